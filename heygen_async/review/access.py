"""Which requests the run page accepts, by token, `Host` and `Origin`; and the headers of every answer. Pure.

Rule 1: without the token every path is the same 404. A browser is started with another token, which leads to the page
once: other users of the machine can see its command line.
Rule 2: `Host` must name this machine, so that a foreign name that resolves to 127.0.0.1 (DNS rebinding) is refused.
The port may differ: a tunnel has another one.
Rule 3: a request of another origin is refused, whatever its path; a POST must have an `Origin`.
Rule 4: the page may load nothing but its own files, and videos of the origins that its manifest names. Of more than a
hundred origins it names their schemes only: a header has no room for them.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import urlsplit

from heygen_async._arguments import is_loopback

_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
_OWN_SITES: Final = frozenset({"same-origin", "none"})

POLICY: Final = "Content-Security-Policy"
_MOST_ORIGINS: Final = 100


def policy(video_origins: Collection[str] = ()) -> str:
    """Return the value of `POLICY` for an answer.

    Args:
        video_origins: Where it may load source videos from, besides the page itself.
    """
    is_many = len(video_origins) > _MOST_ORIGINS
    named = {f"{urlsplit(origin).scheme}:" for origin in video_origins} if is_many else video_origins
    media = " ".join(["'self'", *sorted(named)])
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        f"media-src {media}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


HEADERS: Final[Mapping[str, str]] = {
    POLICY: policy(),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""The headers of every answer, except for the policy of the page itself."""


def has_token(token: str, given: str) -> bool:
    """Return whether *given* is the token, in a time that does not depend on it."""
    return hmac.compare_digest(token.encode(), given.encode("utf-8", "replace"))


def refusal(method: str, headers: Mapping[str, str]) -> str | None:
    """Return why a request with the token is refused; `None` if it is not.

    Args:
        method: `GET`, `POST` and so on.
        headers: Its headers; names in any case.
    """
    host = headers.get("Host", "")
    if not is_loopback(_hostname(host)):
        return "this page is served to 127.0.0.1 and localhost only"
    origin = headers.get("Origin")
    if origin is None and method not in _SAFE_METHODS:
        return "the request has no Origin"
    if origin is not None and origin != f"http://{host}":
        return "the request comes from another page"
    is_link = method in _SAFE_METHODS and headers.get("Sec-Fetch-Mode") == "navigate"  # followed by a person
    if headers.get("Sec-Fetch-Site", "none") not in _OWN_SITES and not is_link:
        return "the request comes from another page"
    return None


def _hostname(host: str) -> str | None:
    try:
        parts = urlsplit(f"//{host}")
    except ValueError:
        return None
    return parts.hostname if parts.netloc == host and "@" not in host else None


def origin_of(url: str) -> str | None:
    """Return the origin of *url*, as a policy names it; `None` if it has none."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    try:
        ascii_host = host.encode("idna").decode() if not host.isascii() else host
    except UnicodeError:
        return None
    return f"{parts.scheme}://{ascii_host}{port}" if _is_plain(ascii_host) else None


def _is_plain(host: str) -> bool:
    return all(letter.isalnum() or letter in "-._[]:" for letter in host)
