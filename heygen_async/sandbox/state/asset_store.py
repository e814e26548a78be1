"""The uploads of the account: what may be uploaded, and what jobs may use. The bytes are in `http.storage`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

from attrs import define, field, frozen

from heygen_async.sandbox.error_answers import ErrorAnswer, StorageError, invalid
from heygen_async.sandbox.settings import Settings
from heygen_async.sandbox.state.paged_store import Ids, PagedStore

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
"""What may be uploaded, and the extensions that each type may have."""

_ALIASES: Final = {
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/mp3": "audio/mpeg",
    "video/x-m4v": "video/mp4",
}

_KINDS: Final = {"application/pdf": "pdf", "application/x-subrip": "srt"}


@frozen(kw_only=True)
class ReceivedFile:
    """What was found in the bytes of an upload."""

    size_bytes: int
    sha256: str
    mime_type: str | None
    """None if the type is not supported."""
    duration: float | None
    """Length of the media in seconds; None if it has none or it cannot be read."""


@define(eq=False, kw_only=True)
class StoredAsset:
    """One upload."""

    id: str
    name: str
    mime_type: str
    size_bytes: int
    uploaded_at: float
    sha256: str | None = None
    duration: float | None = None
    ready_at: float | None = None
    """When jobs may use it; None until the upload is complete."""
    received: ReceivedFile | None = field(default=None, repr=False)

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

    def fill(self, received: ReceivedFile, ready_at: float) -> None:
        """Complete it with what was received."""
        self.received, self.ready_at = received, ready_at
        self.sha256, self.duration = received.sha256, received.duration

    # --- a direct upload ---------------------------------------------------------------------------------

    def upload_headers(self) -> dict[str, str]:
        """Return the headers that the PUT must carry unchanged."""
        headers = {"Content-Type": self.mime_type, "x-amz-meta-asset-id": self.id}
        if self.sha256 is not None:
            headers["x-amz-checksum-sha256"] = base64.b64encode(bytes.fromhex(self.sha256)).decode()
        return headers

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Raise a `StorageError` unless *headers* are `upload_headers` and the length is the announced one."""
        for name, value in self.upload_headers().items():
            if headers.get(name) != value:
                raise StorageError(403, "SignatureDoesNotMatch", f"The header {name} is not the signed one.")
        length = headers.get("Content-Length")
        if length is None:
            raise StorageError(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        if int(length) != self.size_bytes:
            code = "EntityTooLarge" if int(length) > self.size_bytes else "EntityTooSmall"
            raise StorageError(400, code, "The length is not the announced one.")

    def check_bytes(self, received: ReceivedFile) -> None:
        """Raise a `StorageError` unless the bytes are the announced ones."""
        if received.size_bytes != self.size_bytes:
            raise StorageError(400, "IncompleteBody", "Fewer bytes were received than Content-Length says.")
        if self.sha256 is not None and received.sha256 != self.sha256:
            raise StorageError(400, "BadDigest", "The checksum does not match the bytes.")


class AssetStore:
    """All uploads."""

    def __init__(self, ids: Ids, settings: Settings) -> None:
        self._ids = ids
        self._assets: PagedStore[StoredAsset] = PagedStore("Asset", "asset_not_found")
        self._ingest_seconds = settings.ingest_seconds
        self.max_bytes = settings.max_asset_bytes
        self.get = self._assets.get
        self.find = self._assets.find
        self.page = self._assets.page
        self.delete = self._assets.remove

    def new_id(self) -> str:
        """Return an id for an upload that is about to be received."""
        return self._ids.new("asset")

    def add(self, asset_id: str, name: str, received: ReceivedFile, now: float) -> StoredAsset:
        """Add a multipart upload, which is usable at once."""
        mime_type, size = _supported_type(name, received), received.size_bytes
        asset = StoredAsset(id=asset_id, name=name, mime_type=mime_type, size_bytes=size, uploaded_at=now)
        asset.fill(received, now)
        self._assets.add(asset)
        return asset

    def announce(self, name: str, mime_type: str, size_bytes: int, sha256: str | None, now: float) -> StoredAsset:
        """Add a direct upload whose bytes are still to come."""
        if size_bytes > self.max_bytes:
            raise ErrorAnswer(413, "payload_too_large", f"At most {self.max_bytes} bytes.", "size_bytes")
        mime_type = plain_type(mime_type)
        if mime_type not in EXTENSIONS:
            raise invalid(f"content_type must be one of {', '.join(EXTENSIONS)}.", "content_type")
        _check_extension(name, mime_type, "filename")
        asset = StoredAsset(
            id=self.new_id(),
            name=name,
            mime_type=mime_type,
            size_bytes=size_bytes,
            sha256=sha256.lower() if sha256 else None,
            uploaded_at=now,
        )
        self._assets.add(asset)
        return asset

    def complete(self, asset_id: str, sha256: str | None, now: float) -> StoredAsset:
        """Check the bytes of a direct upload and start its ingestion; repeating it changes nothing."""
        asset = self.get(asset_id)
        if asset.ready_at is not None:
            return asset
        received = asset.received
        if received is None:
            raise ErrorAnswer(409, "resource_not_ready", "The file has not been uploaded yet.")
        if sha256 is not None and sha256.lower() != received.sha256:
            raise invalid("checksum_sha256 does not match the uploaded file.", "checksum_sha256")
        if received.mime_type != asset.mime_type:
            raise invalid(f"The file is {received.mime_type}, not {asset.mime_type}.", "content_type")
        asset.fill(received, now + self._ingest_seconds)
        return asset

    def usable(self, asset_id: str, now: float) -> StoredAsset:
        """Return the asset with that id if jobs may use it."""
        asset = self.get(asset_id)
        status = asset.status(now)
        if status != "completed":
            raise ErrorAnswer(400, "asset_not_available", f"Asset {asset_id!r} cannot be used yet: {status}.")
        return asset


def plain_type(mime_type: str) -> str:
    """Return the API's name of a type."""
    return _ALIASES.get(mime_type, mime_type)


def _supported_type(name: str, received: ReceivedFile) -> str:
    if not received.size_bytes:
        raise invalid("file is empty.", "file")
    if received.mime_type is None:
        raise invalid("file is of no supported type.", "file")
    _check_extension(name, received.mime_type, "file")
    return received.mime_type


def _check_extension(name: str, mime_type: str, param: str) -> None:
    if name.rpartition(".")[2].lower() not in EXTENSIONS[mime_type]:
        # Without the name, which is the user's: the message gets into recordings.
        raise invalid(f"The extension of the file name does not match {mime_type}.", param)
