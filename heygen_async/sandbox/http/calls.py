"""The API as functions: a `Call` in, a `CallAnswer` out. Nothing here waits or knows HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from attrs import frozen

from heygen_async.sandbox.http.validation import cursor


@frozen(kw_only=True)
class Call:
    """A request whose key was checked and whose body was parsed."""

    path: Mapping[str, str]
    """The values of the names in the route's path."""
    query: Mapping[str, str]
    body: object
    now: float
    """Sandbox time, in seconds."""
    origin: str
    """Scheme, host and port of the links in the answer."""


@frozen
class CallAnswer:
    """A success."""

    payload: Mapping[str, object]
    status: int = 200


Handler: TypeAlias = Callable[[Call], CallAnswer]
"""Answers the calls of one route."""


def data(value: object, status: int = 200) -> CallAnswer:
    """Return one resource, or a list without pages."""
    return CallAnswer({"data": value}, status)


def listed(values: list[dict[str, object]], kind: str, next_position: int | None = None) -> CallAnswer:
    """Return a page of a *kind* of list."""
    return CallAnswer({"data": values, **paging(kind, next_position)})


def paging(kind: str, next_position: int | None) -> dict[str, object]:
    """Return the two fields that lead to the next page."""
    token = None if next_position is None else cursor(kind, next_position)
    return {"has_more": token is not None, "next_token": token}
