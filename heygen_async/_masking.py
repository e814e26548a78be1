"""Hide a secret in text that a server wrote, however the server spells it. Pure."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from heygen_async.models import Secret

HIDDEN: Final = "****"

# One character in another spelling, escaped once or several times: JSON, percent-encoding, HTML.
_SPELLING: Final = re.compile(
    r"\\+(?:u00|x)(?P<json>[0-9A-Fa-f]{2})"
    r"|\\+(?P<escaped>[!-~])"
    r"|%(?:25)*(?P<percent>[0-9A-Fa-f]{2})"
    r"|&(?:amp;)*#(?:[xX]0*(?P<hex>[0-9A-Fa-f]{1,2})|0*(?P<decimal>[0-9]{1,3}));?"
    r"|&(?:amp;)*(?P<name>[A-Za-z]{2,20};)"
)
_ROUNDS: Final = 3  # escapes inside escapes of another kind
_SHORTEST_PREFIX: Final = 4

_Plain: TypeAlias = tuple[str, list[int]]
"""A text in its plain spelling, and where in the original each of its characters starts (and the last one ends)."""


class Mask:
    """Replaces one secret by `****`, in any spelling. Its repr does not show the secret.

    Args:
        secret: What must not be shown; an empty one masks nothing.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def __call__(self, text: str, *, is_cut: bool = False) -> str:
        """Return *text* without the secret.

        Args:
            text: Any text.
            is_cut: Whether *text* is the start of a longer one, so that it may end in the middle of the secret.
        """
        secret = self._secret.reveal()
        if not secret:
            return text
        return _masked(text.replace(secret, HIDDEN), _plain(secret)[0], is_cut=is_cut)


def _masked(text: str, secret: str, *, is_cut: bool) -> str:
    plain, starts = _plain(text)
    shown: list[str] = []
    done = 0
    at = plain.find(secret)
    while at >= 0:
        shown += text[done : starts[at]], HIDDEN
        done = starts[at + len(secret)]
        at = plain.find(secret, at + len(secret))
    rest = text[done:]
    if is_cut and (kept := _without_prefix(plain, secret)) < len(plain):
        rest = text[done : max(done, starts[kept])] + HIDDEN
    return "".join(shown) + rest


def _without_prefix(plain: str, secret: str) -> int:
    """Return the length of *plain* without the start of *secret* that it may end with."""
    for length in range(min(len(secret), len(plain)), _SHORTEST_PREFIX - 1, -1):
        if plain.endswith(secret[:length]):
            return len(plain) - length
    return len(plain)


def _plain(text: str) -> _Plain:
    plain, starts = text, list(range(len(text) + 1))
    for _ in range(_ROUNDS):
        if _SPELLING.search(plain) is None:
            break
        plain, starts = _decoded(plain, starts)
    return plain, starts


def _decoded(text: str, starts: list[int]) -> _Plain:
    pieces: list[str] = []
    places: list[int] = []
    done = 0
    for match in _SPELLING.finditer(text):
        pieces += text[done : match.start()], _character(match)
        places += starts[done : match.start() + 1]
        done = match.end()
    return "".join(pieces) + text[done:], places + starts[done:]


def _character(match: re.Match[str]) -> str:
    if match["escaped"] is not None:
        return match["escaped"]
    if match["name"] is not None:
        import html  # noqa: PLC0415 its table of names is slow to load, and few errors are web pages

        found = html.unescape(f"&{match['name']}")
        return found if len(found) == 1 else "&"
    if match["decimal"] is not None:
        return chr(int(match["decimal"]))
    return chr(int(match["json"] or match["percent"] or match["hex"], 16))
