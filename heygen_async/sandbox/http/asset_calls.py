"""Assets, except the two calls that carry their bytes: see `file_host`."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from heygen_async.sandbox.error_answers import ErrorAnswer, invalid
from heygen_async.sandbox.http import validation
from heygen_async.sandbox.http.calls import Call, CallAnswer, Handler, data, listed
from heygen_async.sandbox.settings import USERNAME
from heygen_async.sandbox.state.asset_store import AssetStore, StoredAsset
from heygen_async.sandbox.state.clock import Clock
from heygen_async.sandbox.state.signed_links import SignedLinks

_DEFAULT_LIMIT: Final = 20


@frozen
class AssetCalls:
    """The calls under `/v3/assets`."""

    assets: AssetStore
    links: SignedLinks
    clock: Clock

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by route."""
        return {
            "POST /v3/assets/direct-uploads": self.announce,
            "GET /v3/assets": self.list,
            "GET /v3/assets/statuses": self.statuses,
            "POST /v3/assets/{asset_id}/complete": self.complete,
            "GET /v3/assets/{asset_id}": self.get,
            "DELETE /v3/assets/{asset_id}": self.delete,
        }

    def announce(self, call: Call) -> CallAnswer:
        """`POST /v3/assets/direct-uploads`."""
        required = ("filename", "content_type", "size_bytes")
        body = validation.fields(call.body, validation.DIRECT_UPLOAD, required=required)
        size = body["size_bytes"]
        asset = self.assets.announce(
            str(body["filename"]),
            str(body["content_type"]),
            size if isinstance(size, int) else 0,
            validation.text_in(body, "checksum_sha256"),
            call.now,
        )
        return data(
            {
                "asset_id": asset.id,
                "upload_url": self.links.sign("PUT", f"/uploads/{asset.id}", self.clock.wall(call.now), call.origin),
                "upload_headers": asset.upload_headers(),
                "expires_in_seconds": int(self.links.seconds),
                "max_bytes": self.assets.max_bytes,
                "status": asset.status(call.now),
            }
        )

    def complete(self, call: Call) -> CallAnswer:
        """`POST /v3/assets/{asset_id}/complete`."""
        body = validation.fields(call.body, {"checksum_sha256": validation.checksum}, required=())
        asset = self.assets.complete(self._id(call), validation.text_in(body, "checksum_sha256"), call.now)
        return data({**self.uploaded(asset, call.now, call.origin), "status": asset.status(call.now)})

    def uploaded(self, asset: StoredAsset, now: float, origin: str) -> dict[str, object]:
        """Return the answer to an upload; *origin* is that of its link."""
        return {
            "asset_id": asset.id,
            "url": self._link(asset, now, origin),
            "mime_type": asset.mime_type,
            "size_bytes": asset.size_bytes,
        }

    def get(self, call: Call) -> CallAnswer:
        """`GET /v3/assets/{asset_id}`."""
        validation.query(call.query, ())
        return data(self._view(self.assets.get(self._id(call)), call))

    def list(self, call: Call) -> CallAnswer:
        """`GET /v3/assets`."""
        limit, start = validation.page(call.query, "assets", _DEFAULT_LIMIT, also=("username", "folder_id"))
        if not call.query.get("username"):
            raise invalid("username is required.", "username")
        if call.query["username"] != USERNAME:
            raise ErrorAnswer(403, "resource_access_denied", "These are not your assets.", "username")
        if "folder_id" in call.query:
            return listed([], "assets")  # no call puts an asset into a folder
        assets, before = self.assets.page(limit, start)
        return listed([self._view(asset, call) for asset in assets], "assets", before)

    def statuses(self, call: Call) -> CallAnswer:
        """`GET /v3/assets/statuses`."""
        asset_ids = validation.ids(validation.query(call.query, ("asset_ids",)), "asset_ids")
        if not 1 <= len(asset_ids) <= validation.MAX_IDS:
            raise invalid(f"asset_ids takes 1 to {validation.MAX_IDS} ids.", "asset_ids")
        return listed([self._status(one, call.now) for one in asset_ids], "asset_statuses")

    def _status(self, asset_id: str, now: float) -> dict[str, object]:
        asset = self.assets.find(asset_id)
        return {"asset_id": asset_id, "status": asset.status(now) if asset else "not_found"}

    def delete(self, call: Call) -> CallAnswer:
        """`DELETE /v3/assets/{asset_id}`."""
        return data({"id": self.assets.delete(self._id(call)).id})

    def _id(self, call: Call) -> str:
        return validation.identifier(call.path["asset_id"], "asset_id")

    def _link(self, asset: StoredAsset, now: float, origin: str) -> str | None:
        if asset.status(now) != "completed":
            return None
        return self.links.sign("GET", f"/files/{asset.filename}", self.clock.wall(now), origin)

    def _view(self, asset: StoredAsset, call: Call) -> dict[str, object]:
        return {
            "id": asset.id,
            "name": asset.name,
            "type": asset.kind,
            "owner": USERNAME,
            "space_id": "space_sandbox",
            "uploaded_at": int(self.clock.wall(asset.uploaded_at)),
            "folder_id": None,
            "url": self._link(asset, call.now, call.origin),
        }
