"""What `heygen.doctor()` returns: checks of the network, the key, the account and the API, and a verdict. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from datetime import datetime

from attrs import frozen

from heygen_async._models.model import Model

__all__ = ("Check", "Diagnosis", "Level", "Verdict")


class Level(enum.StrEnum):
    """What a check means for the user; warnings and errors are findings."""

    OK = "ok"
    INFO = "info"
    """Good to know; nothing has to be done."""
    WARNING = "warning"
    """It works, but something should be done."""
    ERROR = "error"
    """Lipsyncs cannot be created or downloaded like this."""


class Verdict(enum.StrEnum):
    """The result of all checks."""

    READY = "ready"
    """There are no findings."""
    FINDINGS = "findings"
    UNAUTHORIZED = "unauthorized"
    """The API does not accept the key."""


@frozen(kw_only=True)
class Check(Model):
    """One thing that was looked at. It holds no secret and no name or address of the account."""

    area: str
    """`network`, `clock`, `key`, `account`, `calls` or `answers`."""
    level: Level
    summary: str
    """What was seen, in one sentence."""
    advice: str | None = None
    """What to do; every finding has some."""

    @property
    def is_finding(self) -> bool:
        """Whether something should be done."""
        return self.level in (Level.WARNING, Level.ERROR)


@frozen(kw_only=True)
class Diagnosis(Model):
    """What `heygen.doctor()` has seen. It contains no secrets."""

    base_url: str
    version: str
    """The version of this library."""
    at: datetime
    """Aware, UTC."""
    verdict: Verdict
    checks: Sequence[Check]
    """In the order in which they were made."""

    @property
    def findings(self) -> Sequence[Check]:
        """The checks that something should be done about, errors first."""
        found = [check for check in self.checks if check.is_finding]
        return sorted(found, key=lambda check: check.level is not Level.ERROR)
