"""Presigned links: which one a lipsync has, and when it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Literal, TypeAlias
from urllib.parse import parse_qs, urlsplit

from attrs import define

from heygen_async._arguments import is_https
from heygen_async.errors import DownloadError, LipsyncFailed
from heygen_async.models import Lipsync, LipsyncStatus

Kind: TypeAlias = Literal["video", "captions"]


@define
class Link:
    """A link, and where to get a fresh one."""

    kind: Kind
    lipsync: Lipsync
    allow_loopback: bool
    _get: Callable[[str], Awaitable[Lipsync]]

    @property
    def url(self) -> str:
        """The link as it was last told.

        Raises:
            DownloadError: If there is none, or it is not one to follow.
            LipsyncFailed: If the job failed.
        """
        url = link_of(self.lipsync, self.kind)
        if not is_https(url, or_loopback=self.allow_loopback):
            raise DownloadError(f"the link to the {self.kind} of {self.lipsync.id} is not https")
        return url

    async def renew(self) -> None:
        """Get a fresh one."""
        self.lipsync = await self._get(self.lipsync.id)


def link_of(lipsync: Lipsync, kind: Kind) -> str:
    """Return the link to what came of a lipsync.

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
        raise DownloadError(f"lipsync {lipsync.id} is completed, but HeyGen tells no link to its {kind}")
    return url


def expires_at(url: str) -> float | None:
    """Return when a presigned *url* ends by its own account, as a unix time in seconds; `None` if it does not say."""
    told = {name.lower(): values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    for vendor in ("x-amz", "x-goog"):
        signed, seconds = told.get(f"{vendor}-date"), told.get(f"{vendor}-expires")
        if signed and seconds:
            return _after(signed, seconds)
    return float(told["expires"]) if told.get("expires", "").isdigit() else None


def _after(signed: str, seconds: str) -> float | None:
    try:
        return datetime.strptime(signed, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp() + int(seconds)
    except ValueError:
        return None
