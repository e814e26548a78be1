"""What a direct upload must look like: the headers that were signed, the size and the checksum announced. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from heygen_async.sandbox.state.asset_store import Asset, Received
from heygen_async.sandbox.state.signed_links import Denied


def upload_headers(asset: Asset) -> dict[str, str]:
    """Return the headers that the PUT must carry, as they are."""
    headers = {"Content-Type": asset.mime_type, "x-amz-meta-asset-id": asset.id}
    if asset.sha256 is not None:
        headers["x-amz-checksum-sha256"] = base64.b64encode(bytes.fromhex(asset.sha256)).decode()
    return headers


def check_headers(asset: Asset, headers: Mapping[str, str]) -> None:
    """Raise `Denied` unless *headers* are those of `upload_headers` and the length is the one announced."""
    for name, value in upload_headers(asset).items():
        if headers.get(name) != value:
            raise Denied(403, "SignatureDoesNotMatch", f"The header {name} is not the one that was signed.")
    length = headers.get("Content-Length")
    if length is None:
        raise Denied(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
    if int(length) != asset.size_bytes:
        raise Denied(400, "EntityTooLarge" if int(length) > asset.size_bytes else "EntityTooSmall", "Wrong size.")


def check_bytes(asset: Asset, received: Received) -> None:
    """Raise `Denied` unless the bytes are those that were announced."""
    if received.size_bytes != asset.size_bytes:
        raise Denied(400, "IncompleteBody", "Fewer bytes came than Content-Length said.")
    if asset.sha256 is not None and received.sha256 != asset.sha256:
        raise Denied(400, "BadDigest", "The checksum does not match the bytes.")
