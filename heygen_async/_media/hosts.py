"""What a file host's answer means. Pure.

A file host speaks no JSON, and its error pages quote the link: only their one word of a code is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from heygen_async._wire import is_unsettled, retry_after
from heygen_async.errors import HeyGenError, UnexpectedResponse, error_class

_CODE: Final = re.compile(rb"<Code>([A-Za-z]{1,60})</Code>")


def refusal(status: int, headers: Mapping[str, str], body: bytes, *, now: float) -> HeyGenError | None:
    """Return the error for an answer with that *status*; `None` for a success.

    Args:
        status: The HTTP status.
        headers: The headers; look-up ignores case.
        body: The start of the body.
        now: Unix time in seconds, for a `Retry-After` that is a date.
    """
    if 200 <= status < 300:  # noqa: PLR2004 the successes
        return None
    if 400 <= status < 600:  # noqa: PLR2004 the errors
        code = _CODE.search(body)
        wait = retry_after(headers.get("Retry-After"), now=now)
        word = code[1].decode() if code else None
        error = error_class(status)("the file host refused", status=status, code=word, retry_after=wait)
        error.outcome = "unknown" if is_unsettled(error) else "rejected"
        return error
    told = "a redirect, which is not followed" if status // 100 == 3 else "no such status"  # noqa: PLR2004 3xx
    return UnexpectedResponse([f"the file host sent {told}"], status=status)
