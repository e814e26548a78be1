"""What of an exchange is written to a file: no key, no signature, no name and no address. Pure.

Rule 1: a text is kept only in fields whose names are listed here; in every other field it becomes `***`.
Rule 2: in the texts that are kept, the key, URLs, e-mail and IP addresses, and tokens are replaced.
Rule 3: the result depends on nothing but the exchange, so that two requests that differ in what is masked are alike.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from heygen_async._masking import Mask
from heygen_async._text import whole_characters, without_queries
from heygen_async.models import Secret

HIDDEN: Final = "***"
HOST: Final = "masked.invalid"

_KEPT_HEADERS: Final = frozenset(
    {"accept", "accept-ranges", "cache-control", "content-encoding", "content-length", "content-range"}
    | {"content-type", "date", "etag", "expires", "if-range", "range", "retry-after", "server", "user-agent"}
    | {"vary", "x-request-id"}
)
_KEPT_PARAMETERS: Final = frozenset({"asset_ids", "batch_ids", "event_type", "limit", "lipsync_ids", "token"})
_KEPT_FIELDS: Final = frozenset(
    {"id", "asset_id", "batch_id", "callback_id", "endpoint_id", "event_id", "folder_id", "key_id", "lipsync_id"}
    | {"video_id", "multipart_upload_id", "status", "type", "mode", "fps_mode", "currency", "billing_type", "plan"}
    | {"scope_mode", "scopes", "event_type", "events", "mime_type", "content_type", "next_token", "code", "param"}
    | {"path", "created_at", "updated_at", "expires_at", "resets_at", "uploaded_at", "duration", "item_index"}
)
_CURSORS: Final = frozenset({"token", "next_token"})
"""Each page of a list has another one: what of it must be replaced becomes a digest, so that pages stay apart."""
_PROSE: Final = frozenset({"message", "msg", "failure_message", "error", "detail", "description", "reason"})
"""Sentences: kept, and searched for secrets."""
_NAMES: Final = frozenset({"username", "email", "first_name", "last_name", "full_name"})
_SHORTEST_NAME: Final = 3

# Each begins where a word does, or a long text without a match would be read again from every character.
# A query may have quotation marks and brackets in it, but not at its end.
_URL: Final = re.compile(
    r"(?<![a-z0-9+.\-])[a-z0-9+.\-]+:\\?/\\?/[^\s\"'<>?]+(?:\?(?:[^\s\"'<>]|['<>]+(?=[^\s\"'<>]))*)?", re.IGNORECASE
)
_EMAIL: Final = re.compile(r"(?<![^\s\"'<>@,;:()])[^\s\"'<>@,;:()]+@[^\s\"'<>@,;:()]+")
_IPV4: Final = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])")
# With "::" or at least five groups: three groups are a time.
_IPV6: Final = re.compile(
    r"(?<![\w:.])(?:(?:[0-9a-f]{1,4}:){4,7}[0-9a-f]{1,4}|(?:[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,5})?::[0-9a-f:]*)"
    r"(?![\w:])",
    re.IGNORECASE,
)
# The separator belongs to it: words begin with "sk", too.
_TOKEN: Final = re.compile(r"\b(?:(?:whsec|sk|pk|rk)[_.\-]|eyJ|[Bb]earer )[A-Za-z0-9_\-+/=.]{8,}")
_EXTENSION: Final = re.compile(r"\.[a-z0-9]{1,4}$", re.IGNORECASE)


class ExchangeMask:
    """Masks one exchange.

    Args:
        key: The key that the request was sent with, also as a bearer token; empty if there was none.
        names: Names of the account's owner that were seen before, see `names_in`.
    """

    def __init__(self, key: str, names: Collection[str] = ()) -> None:
        self._mask = Mask(Secret(key))
        words = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
        self._names = re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE) if words else None

    def text(self, text: str) -> str:
        """Return a text in which every secret that can be recognized is replaced."""
        whole = whole_characters(text)  # a header may have bytes that are not text
        found = _URL.sub(lambda match: _masked_url(match[0]), self._mask(whole))
        found = without_queries(found, hidden=HIDDEN)  # of links without a scheme, or in another spelling
        for pattern in (_EMAIL, _IPV4, _IPV6, _TOKEN):
            found = pattern.sub(HIDDEN, found)
        return found

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return all headers, in lower case, with the values of those that are known to hold no secret."""
        lower = ((name.lower(), value) for name, value in headers.items())
        return {name: self.text(value) if name in _KEPT_HEADERS else HIDDEN for name, value in lower}

    def query(self, query: Mapping[str, str]) -> dict[str, str]:
        """Return the parameters of a query, masked."""
        return {
            self.text(name): self._kept(value, name) if name in _KEPT_PARAMETERS else HIDDEN
            for name, value in query.items()
        }

    def body(self, value: object, *, name: str = "") -> object:
        """Return a JSON value, masked.

        Args:
            value: The value.
            name: The field that holds it.
        """
        match value:
            case dict():
                return {self.text(key): self.body(inner, name=key) for key, inner in value.items()}
            case list():
                return [self.body(inner, name=name) for inner in value]
            case str():
                return self._string(value, name)
            case _:
                return value

    def _string(self, value: str, name: str) -> str:
        if name in _PROSE:
            return self.text(value if self._names is None else self._names.sub(HIDDEN, value))
        if name in _KEPT_FIELDS:
            return self._kept(value, name)
        return _masked_url(value) if _URL.fullmatch(value) else HIDDEN

    def _kept(self, value: str, name: str) -> str:
        text = self.text(value)
        return text if name not in _CURSORS or text == value else f"{HIDDEN}{_digest(value)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def names_in(value: object) -> Iterator[str]:
    """Yield the names of people in a JSON value, as far as its fields say that they are."""
    match value:
        case dict():
            for key, inner in value.items():
                if key in _NAMES and isinstance(inner, str) and len(inner) >= _SHORTEST_NAME:
                    yield inner
                yield from names_in(inner)
        case list():
            for inner in value:
                yield from names_in(inner)


def _masked_url(url: str) -> str:
    """Return a URL that is as valid as *url*, and says nothing but its kind of file and whether it had a query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return HIDDEN
    extension = _EXTENSION.search(parts.path)
    name = f"file{extension[0].lower()}" if extension else "file"
    return f"https://{HOST}/{name}{f'?{HIDDEN}' if parts.query else ''}"
