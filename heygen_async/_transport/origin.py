"""Where the API is, and what a session sends with every request: credential and headers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Final, cast

import aiohttp
from attrs import frozen
from yarl import URL

from heygen_async._arguments import check_type, is_loopback, plain_text
from heygen_async._masking import Mask
from heygen_async._version import __version__
from heygen_async._wire import GetEnv, chosen_base_url
from heygen_async.models import Secret

LOOPBACK_ONLY: Final = "HEYGEN_LOOPBACK_ONLY"
"""The environment variable that restricts sessions to loopback."""

_OURS: Final = frozenset(
    {"x-api-key", "authorization", "host", "content-length", "content-type", "transfer-encoding", "idempotency-key"}
)


@frozen
class Origin:
    """Where the API is, and the credential for it."""

    base_url: str
    auth_header: str
    auth_prefix: str
    credential: Secret

    @property
    def is_loopback(self) -> bool:
        """Whether the API is on this machine, so that plain http may be used."""
        return is_loopback(URL(self.base_url).host)

    @cached_property
    def mask(self) -> Mask:
        """Hides the credential in text."""
        return Mask(self.credential)

    def headers(self) -> dict[str, str]:
        """Return the headers that every request to the API carries."""
        return {**self.credentials(), **public_headers()}

    def credentials(self) -> dict[str, str]:
        """Return the header with the credential."""
        return {self.auth_header: self.auth_prefix + self.credential.reveal()}


def public_headers() -> dict[str, str]:
    """Return the headers of every request to the API that are no secret."""
    return {"Accept": "application/json", "User-Agent": user_agent()}


def user_agent() -> str:
    """Return the name that every request carries."""
    return f"heygen-async/{__version__} aiohttp/{aiohttp.__version__}"


_MISSING_KEY: Final = "there is no API key: set the environment variable HEYGEN_API_KEY, or give api_key="


def concealed(value: object) -> Secret | None:
    """Return a credential, whatever its type, so that the local variables of a traceback do not show it."""
    return None if value is None else Secret(cast("str", value.strip() if isinstance(value, str) else value))


def make_origin(api_key: Secret | None, access_token: Secret | None, base_url: str | None, variable: GetEnv) -> Origin:
    """Return where the API is, from the arguments of a session and its environment variables.

    Raises:
        TypeError, ValueError: If an argument is wrong, or there is no key; the message does not show the key.
    """
    url = chosen_base_url(base_url, variable)
    if access_token is not None:
        if api_key is not None:
            raise ValueError("give api_key or access_token, not both")
        return Origin(url, "Authorization", "Bearer ", _credential("access_token", access_token))
    if api_key is None:
        api_key = concealed(variable("HEYGEN_API_KEY"))
        if api_key is None or not api_key.reveal():
            raise ValueError(_MISSING_KEY)
    return Origin(url, "X-Api-Key", "", _credential("api_key", api_key))


def check_allowed(origin: Origin, variable: GetEnv) -> None:
    """Check that requests may go to *origin*: with `HEYGEN_LOOPBACK_ONLY`, to this machine only.

    Raises:
        RuntimeError: If not.
    """
    if variable(LOOPBACK_ONLY) and not origin.is_loopback:
        raise RuntimeError(
            f"{LOOPBACK_ONLY} is set, as the pytest plugin of heygen_async does, and {origin.base_url} is another "
            "machine: mark the test heygen_live if the real API is meant"
        )


def _credential(name: str, credential: Secret) -> Secret:
    if not isinstance(credential.reveal(), str):
        raise TypeError(f"{name} must be a string, not {type(credential.reveal()).__name__}")
    if not _is_token(credential.reveal()):
        raise ValueError(f"{name} must be printable ASCII without spaces")  # without saying what it is
    return credential


def _is_token(text: str) -> bool:
    return text.isascii() and text.isprintable() and text != "" and " " not in text


class SecretHeaders(dict[str, str]):
    """Headers that may be secret. Their repr does not show them."""

    def __repr__(self) -> str:
        return f"<{len(self)} headers>"


def check_headers(headers: Mapping[str, str] | None) -> SecretHeaders:
    """Return *headers* if each is a name and a text, and the session does not set it itself.

    Raises:
        TypeError, ValueError: If not; the message names the header.
    """
    if headers is None:
        return SecretHeaders()
    check_type("headers", headers, Mapping)
    for name, value in headers.items():
        _check_header(name, value)
    return SecretHeaders({plain_text(name): plain_text(value) for name, value in headers.items()})


def _check_header(name: object, value: object) -> None:
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"headers must be a mapping of strings; {name!r} or its value is not one")
    if name.lower() in _OURS:
        raise ValueError(f"headers must not set {name}: the session does")
    if not _is_token(name) or not value.isascii() or not value.isprintable():
        raise ValueError(f"the header {name!r} has characters that no header may have")
