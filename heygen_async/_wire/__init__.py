"""The protocol of HeyGen's v3 API as pure functions: values in, values or errors out; no I/O, no clock.

Rule 1: whatever is known of paths, headers, envelopes and keys is known here, or in `_converter` if it is about
the shape of `data`.
Rule 2: nothing here awaits, logs or reads the time; the caller passes the time.
"""

from heygen_async._wire.bodies import (
    Answer,
    Response,
    excerpt,
    parse_json,
    request_id,
    retry_after,
    short_text,
    unix_time,
)
from heygen_async._wire.incoming import created_id, decipher
from heygen_async._wire.outcomes import (
    is_final_answer,
    is_in_progress,
    is_unsettled,
    outcome_after,
    worse,
)
from heygen_async._wire.outgoing import (
    Parameter,
    Piece,
    RateScope,
    Request,
    Stream,
    check_base_url,
    chosen_base_url,
    compose,
    compose_raw,
    multipart,
    query_string,
)

__all__ = (
    "Answer",
    "Parameter",
    "Piece",
    "RateScope",
    "Request",
    "Response",
    "Stream",
    "check_base_url",
    "chosen_base_url",
    "compose",
    "compose_raw",
    "created_id",
    "decipher",
    "excerpt",
    "is_final_answer",
    "is_in_progress",
    "is_unsettled",
    "multipart",
    "outcome_after",
    "parse_json",
    "query_string",
    "request_id",
    "retry_after",
    "short_text",
    "unix_time",
    "worse",
)
