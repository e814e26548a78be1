"""Links to file hosts in answers, replaced by links to the proxy, so that media goes through it too.

Only a link that the API itself has returned can be reached through the proxy, under a name that cannot be guessed.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from heygen_async.sandbox.http.validation import is_loopback

PREFIX: Final = "/_media/"
_FIELDS: Final = frozenset({"video_url", "caption_url", "upload_url", "url"})
_ROUTES: Final = ("/v3/lipsyncs", "/v3/assets")
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9._\-]+")
"""What of a name a client or a server may spell in another way, percent-encoded for instance."""
_MOST: Final = 10_000
"""Links that are remembered; the oldest are forgotten first."""


class ProxiedLinks:
    """The links that answers have contained, by the path that the proxy has for each.

    Args:
        origin: The address of the proxy.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._links: OrderedDict[str, str] = OrderedDict()

    def target(self, path: str) -> str | None:
        """Return the link that a *path* of the proxy stands for."""
        return self._links.get(path)

    def rewrite(self, path: str, body: bytes, answer: object) -> bytes:
        """Return the *body* of the answer to *path*, with its links to file hosts replaced and nothing else changed."""
        if not path.startswith(_ROUTES):
            return body
        for link in dict.fromkeys(_links_in(answer)):
            ours = f"{self._origin}{self._add(link)}".encode()
            for spelling in _spellings(link):
                body = body.replace(spelling, b'"%b"' % ours)
        return body

    def _add(self, link: str) -> str:
        name = _NOT_PLAIN.sub("-", urlsplit(link).path.rpartition("/")[2]).strip(".") or "file"
        path = f"{PREFIX}{secrets.token_urlsafe(16)}/{name}"
        self._links[path] = link
        if len(self._links) > _MOST:
            self._links.popitem(last=False)
        return path


def _links_in(value: object, name: str = "") -> Iterator[str]:
    match value:
        case dict():
            for key, inner in value.items():
                yield from _links_in(inner, key)
        case list():
            for inner in value:
                yield from _links_in(inner, name)
        case str() if name in _FIELDS and _can_be_reached(value):
            yield value


def _can_be_reached(link: str) -> bool:
    try:
        parts = urlsplit(link)
    except ValueError:
        return False
    return bool(parts.hostname) and (parts.scheme == "https" or is_loopback(parts.hostname or ""))


def _spellings(link: str) -> Iterator[bytes]:
    """Yield the ways in which servers commonly write *link* in JSON."""
    for text in dict.fromkeys((json.dumps(link), json.dumps(link, ensure_ascii=False))):
        for escaped in dict.fromkeys((text, text.replace("&", "\\u0026"))):
            yield escaped.encode()
            yield escaped.replace("/", "\\/").encode()
