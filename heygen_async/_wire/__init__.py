"""The protocol of HeyGen's v3 API as pure functions: values in, values or errors out; no I/O, no clock.

Rule 1: whatever is known of paths, headers, envelopes and keys is known here, or in `_converter` if it is about
the shape of `data`.
Rule 2: nothing here awaits, logs or reads the time; the caller passes the time.
"""

from heygen_async._wire.bodies import (
    Answer,
    Response,
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
)
from heygen_async._wire.outgoing import (
    GetEnv,
    Parameter,
    Piece,
    RateScope,
    Request,
    Stream,
    chosen_base_url,
    compose,
    compose_raw,
    multipart,
)

__all__ = (
    "Answer",
    "GetEnv",
    "Parameter",
    "Piece",
    "RateScope",
    "Request",
    "Response",
    "Stream",
    "chosen_base_url",
    "compose",
    "compose_raw",
    "created_id",
    "decipher",
    "is_final_answer",
    "is_in_progress",
    "is_unsettled",
    "multipart",
    "outcome_after",
    "parse_json",
    "request_id",
    "retry_after",
    "short_text",
    "unix_time",
)
