"""Links to the outputs of lipsyncs: whether there is one to follow, when it expires, and how to get a fresh one."""

from __future__ import annotations

import re
import string
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from random import random
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit

from attrs import define, field

from heygen_async._arguments import is_https
from heygen_async._media.first_bytes import OutputKind
from heygen_async._text import clean_line, whole_characters
from heygen_async._transport.retry import Attempts
from heygen_async.errors import DownloadError, LipsyncFailed
from heygen_async.models import Lipsync, LipsyncStatus, Secret

_LINK: Final = re.compile(r"(https?://[^/?#]*)([^\x00-\x1f\x7f]*)", re.IGNORECASE)
_SECONDS: Final = re.compile(r"[0-9]{1,12}")


class NoLinkError(DownloadError):
    """Raised when a lipsync is completed, and the API does not say (yet) where its output is."""


@define
class OutputLink:
    """The link to one output of a lipsync.

    Its URL is a `Secret`, so that it is in no message and in no traceback with local variables.
    """

    kind: OutputKind
    lipsync: Lipsync
    allow_loopback: bool
    _get: Callable[[str], Awaitable[Lipsync]] = field(repr=False)

    @property
    def url(self) -> Secret:
        """The link, as the lipsync has it.

        Raises:
            DownloadError: If there is none, or it is not one to follow.
            LipsyncFailed: If the job failed.
        """
        url = Secret(_encoded(link_of(self.lipsync, self.kind).reveal()))
        if not is_https(url.reveal(), or_loopback=self.allow_loopback):
            raise DownloadError(clean_line(f"the link to the {self.kind} of {self.lipsync.id} is not https"))
        return url

    async def until_given(self, attempts: Attempts, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Renew it as often as *attempts* allow, until there is one: the API may show it later than the job's end.

        Raises:
            DownloadError: If there is none, or it is not one to follow.
            HeyGenError: If the API does not return the lipsync.
        """
        while True:
            try:
                _ = self.url
            except NoLinkError:
                delay = attempts.delay_before_change(chance=random())  # noqa: S311 it spreads retries
                if delay is None:
                    raise
            else:
                return
            await sleep(delay)
            await self.renew()

    async def renew(self) -> None:
        """Get a fresh one.

        Raises:
            HeyGenError: If the API does not return the lipsync.
        """
        self.lipsync = await self._get(self.lipsync.id)


def _encoded(link: str) -> str:
    """Return *link* with blanks and letters of other scripts, in the name of a file for instance, encoded."""
    parts = _LINK.fullmatch(link.strip())
    return f"{parts[1]}{quote(whole_characters(parts[2]), safe=string.punctuation)}" if parts else link


def link_of(lipsync: Lipsync, kind: OutputKind) -> Secret:
    """Return the link to an output of a lipsync.

    Raises:
        DownloadError: If there is none (yet); `NoLinkError` if it may come.
        LipsyncFailed: If the job failed.
    """
    if lipsync.status == LipsyncStatus.FAILED:
        raise LipsyncFailed(lipsync)
    if lipsync.status != LipsyncStatus.COMPLETED:
        message = f"lipsync {lipsync.id} has no {kind} yet (it is {lipsync.status}); wait for it first"
        raise DownloadError(clean_line(message))
    url = lipsync.video_url if kind == "video" else lipsync.caption_url
    if not url:
        message = f"lipsync {lipsync.id} is completed, but has no link to its {kind}"
        raise NoLinkError(message, is_transient=True)
    return Secret(url)


def expires_at(link: Secret) -> float | None:
    """Return when a presigned link expires according to its own parameters, as Unix time; `None` if they do not say."""
    query = {name.lower(): values[0] for name, values in parse_qs(urlsplit(link.reveal()).query).items()}
    for vendor in ("x-amz", "x-goog"):
        signed, seconds = query.get(f"{vendor}-date"), query.get(f"{vendor}-expires")
        if signed and seconds:
            return _after(signed, seconds)
    return _seconds(query.get("expires", ""))


def _after(signed: str, seconds: str) -> float | None:
    try:
        start = datetime.strptime(signed, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    lasts = _seconds(seconds)
    return None if lasts is None else start + lasts


def _seconds(digits: str) -> float | None:
    # A number that is too long for a time says nothing of the link.
    return float(digits) if _SECONDS.fullmatch(digits) else None
