"""What counts as text, and how text of strangers is shown on one line. Pure."""

from __future__ import annotations

import re
from typing import Final

# Not str.isprintable(): that rejects joiners (Persian, emoji), U+00A0 and U+3000, which are text.
_NOT_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# A terminal obeys control characters, and direction overrides make a line read as another one.
_NOT_SHOWN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")

_WORD: Final = re.compile(r"""[^\s"'<>]+""")
# A link may have no scheme ("files.example.com/v.mp4?..."), and JSON may write "/" as "\\/".
_LINK: Final = re.compile(r"https?:\\?/\\?/|[\w-]\.[a-z]{2,63}(?::\d{1,5})?\\?/", re.IGNORECASE)


def is_text(value: str) -> bool:
    """Return whether *value* is one line of text with something in it: no control characters, no half characters."""
    return bool(value.strip()) and _NOT_TEXT.search(value) is None


def one_line(text: str) -> str:
    """Return *text* on one line, without characters that a terminal obeys or that reorder what follows."""
    return re.sub(" {2,}", " ", _NOT_SHOWN.sub(" ", text)).strip(" ")


def whole_characters(text: str) -> str:
    """Return *text* with each half of a surrogate pair replaced by U+FFFD, so that it can be encoded."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def without_queries(text: str) -> str:
    """Return *text* with the query of each link in it left out: in a presigned link it is a secret."""
    return _WORD.sub(lambda found: _without_query(found[0]), text)


def _without_query(word: str) -> str:
    if (link := _LINK.search(word)) is None:
        return word
    path, _, query = word[link.end() :].partition("?")
    return f"{word[: link.end()]}{path}?..." if query else word


def escape_controls(text: str) -> str:
    r"""Return *text*, a line of JSON, with the characters that `one_line` removes as the escapes of JSON (`\u009b`)."""
    return _NOT_SHOWN.sub(lambda found: "".join(f"\\u{ord(char):04x}" for char in found[0]), text)
