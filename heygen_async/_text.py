"""What counts as text, and how text of strangers is shown on one line. Pure."""

from __future__ import annotations

import re
from typing import Final

# Not str.isprintable(): that rejects joiners (Persian, emoji), U+00A0 and U+3000, which are text.
_NOT_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# A terminal obeys control characters, and direction overrides make a line read as another one.
_NOT_SHOWN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")

_QUERY: Final = re.compile(r"""(?i:\b(https?:\\?/\\?/[^\s"'<>?\\]*(?:\\/[^\s"'<>?\\]*)*))\?[^\s"'<>]*""")


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
    """Return *text* with the query of each URL in it left out: in a presigned link it is a secret."""
    return _QUERY.sub(r"\1?...", text)


def escape_controls(text: str) -> str:
    r"""Return *text*, a line of JSON, with the characters that `one_line` removes as the escapes of JSON (`\u009b`)."""
    return _NOT_SHOWN.sub(lambda found: "".join(f"\\u{ord(char):04x}" for char in found[0]), text)
