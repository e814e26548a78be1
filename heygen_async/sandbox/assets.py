"""The uploads of the account: what is here, and what may be used. Pure: their bytes are the storage's business."""

from __future__ import annotations

from typing import Final

from attrs import define, field, frozen

from heygen_async.sandbox.ids import Ids
from heygen_async.sandbox.refusals import Refusal, invalid, not_found
from heygen_async.sandbox.settings import Settings
from heygen_async.sandbox.shelf import Shelf

EXTENSIONS: Final = {
    "image/png": ("png",),
    "image/jpeg": ("jpg", "jpeg"),
    "video/mp4": ("mp4", "m4v"),
    "video/webm": ("webm",),
    "audio/mpeg": ("mp3",),
    "audio/wav": ("wav",),
    "application/pdf": ("pdf",),
    "application/x-subrip": ("srt",),
}
"""What may be uploaded, and the extensions that each may have."""

_ALIASES: Final = {
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/mp3": "audio/mpeg",
    "video/x-m4v": "video/mp4",
}

_KINDS: Final = {"application/pdf": "pdf", "application/x-subrip": "srt"}


@frozen(kw_only=True)
class Received:
    """What the storage found in the bytes of an upload."""

    size_bytes: int
    sha256: str
    mime_type: str | None
    """None for what is not supported."""
    duration: float | None
    """Length in seconds of what plays; None where it cannot be told."""


@define(eq=False, kw_only=True)
class Asset:
    """One upload."""

    id: str
    name: str
    mime_type: str
    size_bytes: int
    uploaded_at: float
    sha256: str | None = None
    duration: float | None = None
    ready_at: float | None = None
    """When a job may use it; None until the upload is complete."""
    received: Received | None = field(default=None, repr=False)
    serial: int = 0

    def status(self, now: float) -> str:
        """Return `pending_upload`, `processing` or `completed`."""
        if self.ready_at is None:
            return "pending_upload"
        return "completed" if now >= self.ready_at else "processing"

    @property
    def kind(self) -> str:
        """The `type` of the API: video, audio, image, pdf or srt."""
        return _KINDS.get(self.mime_type) or self.mime_type.partition("/")[0]

    @property
    def filename(self) -> str:
        """The last part of its link."""
        return f"{self.id}.{EXTENSIONS[self.mime_type][0]}"


class Assets:
    """All of them."""

    def __init__(self, ids: Ids, settings: Settings) -> None:
        self._ids = ids
        self._shelf: Shelf[Asset] = Shelf()
        self._by_id: dict[str, Asset] = {}
        self._ingest_seconds = settings.ingest_seconds
        self.max_bytes = settings.max_asset_bytes

    def new_id(self) -> str:
        """Return an id for an upload that is about to be received."""
        return self._ids.new("asset")

    def add(self, asset_id: str, name: str, received: Received, now: float) -> Asset:
        """Take in a multipart upload, which is usable at once."""
        mime_type = _supported(name, received)
        asset = Asset(id=asset_id, name=name, mime_type=mime_type, size_bytes=received.size_bytes, uploaded_at=now)
        _fill(asset, received, now)
        return self._keep(asset)

    def announce(self, name: str, mime_type: str, size_bytes: int, sha256: str | None, now: float) -> Asset:
        """Expect a direct upload."""
        if size_bytes > self.max_bytes:
            raise Refusal(413, "payload_too_large", f"At most {self.max_bytes} bytes.", "size_bytes")
        mime_type = plain_type(mime_type)
        if mime_type not in EXTENSIONS:
            raise invalid(f"content_type must be one of {', '.join(EXTENSIONS)}.", "content_type")
        _check_extension(name, mime_type, "filename")
        sha256 = sha256.lower() if sha256 else None
        asset = Asset(
            id=self.new_id(), name=name, mime_type=mime_type, size_bytes=size_bytes, sha256=sha256, uploaded_at=now
        )
        return self._keep(asset)

    def complete(self, asset_id: str, sha256: str | None, now: float) -> Asset:
        """Check what the storage received for a direct upload and start its ingestion; repeating it changes nothing."""
        asset = self.get(asset_id)
        if asset.ready_at is not None:
            return asset
        received = asset.received
        if received is None:
            raise Refusal(409, "resource_not_ready", "The file has not been uploaded yet.")
        if sha256 is not None and sha256.lower() != received.sha256:
            raise invalid("checksum_sha256 does not match the uploaded file.", "checksum_sha256")
        if received.mime_type != asset.mime_type:
            raise invalid(f"The file is {received.mime_type}, not {asset.mime_type}.", "content_type")
        _fill(asset, received, now + self._ingest_seconds)
        return asset

    def get(self, asset_id: str) -> Asset:
        """Return the asset with that id."""
        if asset_id not in self._by_id:
            raise not_found("Asset", asset_id, code="asset_not_found")
        return self._by_id[asset_id]

    def find(self, asset_id: str) -> Asset | None:
        """Return the asset with that id, if there is one."""
        return self._by_id.get(asset_id)

    def usable(self, asset_id: str, now: float) -> Asset:
        """Return the asset with that id if a job may use it."""
        asset = self.get(asset_id)
        status = asset.status(now)
        if status != "completed":
            raise Refusal(400, "asset_not_available", f"Asset {asset_id!r} cannot be used yet: {status}.")
        return asset

    def page(self, limit: int, before: int | None) -> tuple[list[Asset], int | None]:
        """Return a page, newest first, and where the next one starts."""
        return self._shelf.page(limit, before)

    def delete(self, asset_id: str) -> None:
        """Forget an asset."""
        self._shelf.remove(self.get(asset_id).serial)
        del self._by_id[asset_id]

    def _keep(self, asset: Asset) -> Asset:
        asset.serial = self._shelf.add(asset)
        self._by_id[asset.id] = asset
        return asset


def plain_type(mime_type: str) -> str:
    """Return the one name that the API has for a type."""
    return _ALIASES.get(mime_type, mime_type)


def _fill(asset: Asset, received: Received, ready_at: float) -> None:
    asset.received, asset.ready_at = received, ready_at
    asset.sha256, asset.duration = received.sha256, received.duration


def _supported(name: str, received: Received) -> str:
    if not received.size_bytes:
        raise invalid("file is empty.", "file")
    if received.mime_type is None:
        raise invalid("file is of no supported type.", "file")
    _check_extension(name, received.mime_type, "file")
    return received.mime_type


def _check_extension(name: str, mime_type: str, param: str) -> None:
    if name.rpartition(".")[2].lower() not in EXTENSIONS[mime_type]:
        raise invalid(f"The extension of {name!r} does not match {mime_type}.", param)
