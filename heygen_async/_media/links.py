"""Presigned links: which one a lipsync has, when it ends, and how to get a fresh one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Literal, TypeAlias
from urllib.parse import parse_qs, urlsplit

from attrs import define, field

from heygen_async._arguments import is_https
from heygen_async.errors import DownloadError, LipsyncFailed
from heygen_async.models import Lipsync, LipsyncStatus, Secret

Kind: TypeAlias = Literal["video", "captions"]


@define
class Link:
    """The link to one output of a lipsync.

    Its URL is a `Secret`, so that it is in no message and in no traceback with local variables.
    """

    kind: Kind
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
        url = link_of(self.lipsync, self.kind)
        if not is_https(url.reveal(), or_loopback=self.allow_loopback):
            raise DownloadError(f"the link to the {self.kind} of {self.lipsync.id} is not https")
        return url

    async def renew(self) -> None:
        """Get a fresh one.

        Raises:
            HeyGenError: If the API does not return the lipsync.
        """
        self.lipsync = await self._get(self.lipsync.id)


def link_of(lipsync: Lipsync, kind: Kind) -> Secret:
    """Return the link to an output of a lipsync.

    Raises:
        DownloadError: If there is none (yet).
        LipsyncFailed: If the job failed.
    """
    if lipsync.status == LipsyncStatus.FAILED:
        raise LipsyncFailed(lipsync)
    if lipsync.status != LipsyncStatus.COMPLETED:
        raise DownloadError(f"lipsync {lipsync.id} has no {kind} yet (it is {lipsync.status}); wait for it first")
    url = lipsync.video_url if kind == "video" else lipsync.caption_url
    if not url:
        message = f"lipsync {lipsync.id} is completed, but has no link to its {kind}"
        raise DownloadError(message, is_transient=True)
    return Secret(url)


def expires_at(link: Secret) -> float | None:
    """Return when a presigned link ends by its own account, as Unix time in seconds; `None` if it does not say."""
    query = {name.lower(): values[0] for name, values in parse_qs(urlsplit(link.reveal()).query).items()}
    for vendor in ("x-amz", "x-goog"):
        signed, seconds = query.get(f"{vendor}-date"), query.get(f"{vendor}-expires")
        if signed and seconds:
            return _after(signed, seconds)
    end = query.get("expires", "")
    return float(end) if end.isascii() and end.isdigit() else None


def _after(signed: str, seconds: str) -> float | None:
    try:
        return datetime.strptime(signed, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp() + int(seconds)
    except ValueError:
        return None
