"""What counts as text, and how untrusted text is shown on one line. Pure."""

from __future__ import annotations

import re
from typing import Final

# Not str.isprintable(): that rejects joiners (Persian, emoji), U+00A0 and U+3000, which are text.
_NOT_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# A terminal obeys control characters, and direction overrides make a line read as another one.
_NOT_SHOWN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")

# Servers quote links as they are, escaped for JSON or HTML, and percent-encoded, once or several times.
_SLASH: Final = r"(?:\\{0,8}/|%(?:25){0,4}2F|\\{1,8}u002f|&(?:amp;){0,4}(?:#47|#x0{0,4}2f|sol);)"
_EQUALS: Final = r"(?:=|%(?:25){0,4}3D|\\{1,8}u003d|&(?:amp;){0,4}(?:#61|#x0{0,4}3d|equals);)"
_MARK: Final = re.compile(
    r"\?|%(?:25){0,4}3F|\\{1,8}u003f|&(?:amp;){0,4}(?:#63|#x0{0,4}3f|quest);",
    re.IGNORECASE,
)
# What follows a "?" may have any character of a link in it, but not a quotation mark.
_RUN: Final = re.compile(r'[^\s"]+')
_PARAMETER: Final = re.compile(rf"[^\s=?]{{1,100}}?{_EQUALS}", re.IGNORECASE)
_HAS_SLASH: Final = re.compile(_SLASH, re.IGNORECASE)
_CLOSING: Final = "'<>()[]{}.,;:!?\\"
_USER: Final = re.compile(
    rf'((?::|%(?:25){{0,4}}3A){_SLASH}{{2}})[^\s/?#"]{{1,500}}(?=@|%(?:25){{0,4}}40)', re.IGNORECASE
)
# Names that mean nothing but a secret, with any prefix; and short ones, which other words may end with.
_SIGNATURE: Final = re.compile(
    r"((?:signature|token|secret|passw(?:or)?d|credential|hmac|tempauth|(?:access|api|auth)[-_]?key|access[-_]?key[-_]?id"
    rf"|key-pair-id|googleaccessid|hdn(?:ts|ea|tl)|(?<![A-Za-z])(?:sig|sign|jwt|auth|policy|pwd)){_EQUALS})"
    r'[^\s"&]+',
    re.IGNORECASE,
)


LONGEST_TEXT: Final = 1000
"""Most characters of one text of a server's that an error or a repr shows."""
_WINDOW: Final = 4096
"""Characters that are read beyond `LONGEST_TEXT`, so that a link that is cut there is recognized as one."""


def is_text(value: str) -> bool:
    """Return whether *value* is one line of text with something in it: no control characters, no half characters."""
    return bool(value.strip()) and _NOT_TEXT.search(value) is None


def one_line(text: str) -> str:
    """Return *text* on one line, without characters that a terminal obeys or that reorder what follows."""
    return re.sub(" {2,}", " ", _NOT_SHOWN.sub(" ", text)).strip(" ")


def whole_characters(text: str) -> str:
    """Return *text* with each half of a surrogate pair replaced by U+FFFD, so that it can be encoded."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def without_queries(text: str, *, hidden: str = "...") -> str:
    """Return *text* without what may be a secret in a link: its query, its user, and signatures wherever they are.

    Args:
        text: Any text; a link in it may be escaped, and may have no scheme.
        hidden: What is shown in place of it.
    """
    bare = _RUN.sub(lambda found: _without_query(found[0], hidden), text)
    bare = _USER.sub(lambda found: found[1] + hidden, bare)
    return _SIGNATURE.sub(lambda found: found[1] + hidden, bare)


def _without_query(run: str, hidden: str) -> str:
    end = len(run.rstrip(_CLOSING))
    slash = _HAS_SLASH.search(run)
    for mark in _MARK.finditer(run, 0, end):
        is_of_path = slash is not None and slash.end() <= mark.start() and run[mark.end() : end].strip("*") != ""
        if is_of_path or _PARAMETER.match(run, mark.end(), end):
            return f"{run[: mark.start()]}?{hidden}{run[end:]}"
    return run


def start_of(text: str) -> str:
    """Return as much of *text*, which may have millions of characters, as has to be cleaned for what is shown of it.

    A longer one ends between two words if it can, so that it does not end inside a link.
    """
    if len(text) <= LONGEST_TEXT + _WINDOW:
        return text
    start = text[: LONGEST_TEXT + _WINDOW]
    blank = start.rfind(" ", LONGEST_TEXT)
    return start if blank < 0 else start[:blank]


def shortened(text: str) -> str:
    """Return *text*, cut after `LONGEST_TEXT` characters; an ellipsis shows the cut."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def clean_line(text: str) -> str:
    """Return *text*, which a server may have written, as a message shows it: short, `one_line`, `without_queries`."""
    return shortened(one_line(without_queries(start_of(text))))


def line_without_queries(text: str) -> str:
    """Return *text* on one line, and without the queries of links."""
    return one_line(without_queries(text))


def escape_controls(text: str) -> str:
    r"""Return *text* with the characters that `one_line` removes as the escapes of JSON (`\u009b`)."""
    return _NOT_SHOWN.sub(lambda found: "".join(f"\\u{ord(char):04x}" for char in found[0]), text)
