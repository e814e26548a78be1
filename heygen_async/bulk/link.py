"""The parts of a link that may be signed, and what its tokens claim. Pure.

Rule 1: a JSON Web Token counts as what it claims, without its times and its signature.
Rule 2: a signature in the path (Akamai, Bunny) is left out there, with all that belongs to it in the same segment.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote, unquote_plus, urlsplit

import orjson
from attrs import Factory, field, frozen

_PATH_START: Final = r"(?:^|[~&])(?:hdn(?:ts|tl|ea)=)?"
_PATH_SIGNATURE: Final = re.compile(
    _PATH_START + r"(?:hmac=[0-9a-f]{32,}|bcdn_token=[A-Za-z0-9_\-]{20,}={0,2})(?![^~&])", re.IGNORECASE
)
"""The signature in a segment of a path, at Akamai and Bunny."""
_PATH_PIECE: Final = re.compile(
    _PATH_START + r"(?:exp|st|acl|ip|hmac|bcdn_token|expires|token_path)=[^~&]*", re.IGNORECASE
)
"""What belongs to it in the same segment."""
_PATH_SESSION: Final = re.compile(r"(?<=~)id=[^~&]*~(?=.*hmac=)", re.IGNORECASE)
"""The session, after the expiry of Akamai."""
_PATH_EXPIRY: Final = re.compile(_PATH_START + r"exp=\d{10}(?![^~&])", re.IGNORECASE)
_PATH_MARK: Final = re.compile(r"(?:^|[~&=])hmac=|(?:^|[~&])bcdn_token=|^edge-cache-token=", re.IGNORECASE)
"""What may be such a signature, at Google too."""

_TOKEN: Final = re.compile(r"ey[A-Za-z0-9_\-]+\.(ey[A-Za-z0-9_\-]+)\.[A-Za-z0-9_\-]*")
"""A JSON Web Token; the group is what it claims."""
_TOKEN_TIMES: Final = frozenset({"exp", "iat", "nbf"})
_ID_CLAIM: Final = "jti"
"""It changes with every signing, but where a token claims nothing else, it may say which file is meant."""
_MAY_BE_SIGNED: Final = re.compile(r"[?=%]|/ey")
"""What every link with a query or a token contains: the others, which are most, need not be taken apart."""


@frozen(eq=False)
class Link:
    """A link, taken apart."""

    url: str
    host: str
    base: str
    """All before the query, less its signature."""
    path: str
    parameters: tuple[tuple[str, str, str], ...]
    """Lower-case name, value, and both as they are written; a token by what it claims."""
    fragment: str
    has_tokens: bool
    """Whether there are signatures outside of parameters, or tokens."""
    is_marked: bool
    """Whether something in the path may be a signature."""
    values: Mapping[str, str] = field(
        init=False, default=Factory(lambda link: _single_values(link.parameters), takes_self=True)
    )
    """Of the names that are there once: of a name that is there twice, one value may say which file is meant."""

    def less(self, names: frozenset[str]) -> str:
        """Return the link without the parameters of these *names*, and with tokens as what they claim."""
        if not names and not self.has_tokens:
            return self.url
        kept = [text for name, _, text in self.parameters if name not in names]
        return "?".join([self.base, "&".join(kept)] if any(kept) else [self.base]) + self.fragment


def _single_values(parameters: tuple[tuple[str, str, str], ...]) -> Mapping[str, str]:
    counts = Counter(name for name, _, _ in parameters)
    return {name: value for name, value, _ in parameters if counts[name] == 1}


@lru_cache(maxsize=256)
def _parsed(url: str) -> Link:
    whole, mark, fragment = url.partition("#")
    base, _, query = whole.partition("?")
    parts = urlsplit(base)
    path = "/".join(one for one in map(_segment, parts.path.split("/")) if one is not None)
    parameters = tuple(map(_parameter, query.split("&"))) if query else ()
    return Link(
        url=url,
        host=(parts.hostname or "").lower(),
        base=base[: len(base) - len(parts.path)] + path,
        path=path,
        parameters=parameters,
        fragment=mark + fragment,
        has_tokens=path != parts.path or "&".join(text for _, _, text in parameters) != query,
        is_marked=any(_PATH_MARK.search(unquote(segment)) for segment in parts.path.split("/")),
    )


def _parameter(text: str) -> tuple[str, str, str]:
    name, equals, coded = text.partition("=")
    value = unquote_plus(coded)
    claims = token_claims(value)
    if claims is not None:
        text = f"{name}{equals}{claims}" if claims else ""
    return unquote_plus(name).lower(), value, text


def _segment(text: str) -> str | None:
    """Return a segment of a path without the signature in it; `None` if nothing remains."""
    value = unquote(text)
    claims = token_claims(value)
    if claims is not None:
        return claims
    if _PATH_SIGNATURE.search(value) is None:
        return text
    if _PATH_EXPIRY.search(value):
        value = _PATH_SESSION.sub("", value)
    return quote(_PATH_PIECE.sub("", value), safe="~&=") or None


def token_claims(value: str) -> str | None:
    """Return what *value* claims, if it is a JSON Web Token, without its times and its signature; "" if nothing."""
    found = _TOKEN.fullmatch(value)
    if found is None:
        return None
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)))
    except (binascii.Error, orjson.JSONDecodeError):
        return None
    if not isinstance(claims, dict):
        return None
    lasting = {name: claim for name, claim in claims.items() if name not in _TOKEN_TIMES}
    if len(lasting) > 1:
        lasting.pop(_ID_CLAIM, None)
    return orjson.dumps(lasting, option=orjson.OPT_SORT_KEYS).decode() if lasting else ""


def parse_link(url: str) -> Link | None:
    """Return the parts of *url*; `None` if nothing of it can be a signature."""
    if _MAY_BE_SIGNED.search(url) is None:
        return None
    link = _parsed(url)
    return link if link.has_tokens or link.is_marked or link.parameters else None
