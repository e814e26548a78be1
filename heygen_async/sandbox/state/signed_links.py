"""Presigned links to the file host: each is for one method and path, and expires."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from attrs import field, frozen

from heygen_async.sandbox.error_answers import StorageError

_DATE: Final = "%Y%m%dT%H%M%SZ"


@frozen
class SignedLinks:
    """Signs links and checks them."""

    origin: str
    """Scheme, host and port of links, without a slash at the end, unless `sign` is given another one."""
    key: bytes = field(repr=False)
    seconds: float
    """How long a link works, in sandbox time."""

    def sign(self, method: str, path: str, wall: float, origin: str | None = None) -> str:
        """Return a link that works for `seconds` from *wall*, a unix timestamp.

        Dates in links are whole seconds; this one is rounded up, so that no link expires early.

        Args:
            method: The method that the link is for.
            path: Its path.
            wall: The time.
            origin: Scheme, host and port by which the client reaches the sandbox; `None` is the usual one.
        """
        date = datetime.fromtimestamp(math.ceil(wall), UTC).strftime(_DATE)
        expires = str(math.ceil(self.seconds))
        signature = self._signature(method, path, date, expires)
        query = {"X-Amz-Date": date, "X-Amz-Expires": expires, "X-Amz-Signature": signature}
        return f"{origin or self.origin}{path}?{urlencode(query)}"

    def check(self, method: str, path: str, query: Mapping[str, str], wall: float) -> None:
        """Raise a `StorageError` unless `sign` made *query* for this request and it has not expired."""
        date, expires = query.get("X-Amz-Date", ""), query.get("X-Amz-Expires", "")
        given = query.get("X-Amz-Signature", "").encode()
        if not hmac.compare_digest(given, self._signature(method, path, date, expires).encode()):
            raise StorageError(403, "SignatureDoesNotMatch", "The signature does not match the request.")
        signed_at = datetime.strptime(date, _DATE).replace(tzinfo=UTC).timestamp()
        if wall >= signed_at + int(expires):
            raise StorageError(403, "AccessDenied", "Request has expired")

    def _signature(self, *parts: str) -> str:
        return hmac.new(self.key, "\n".join(parts).encode(), hashlib.sha256).hexdigest()
