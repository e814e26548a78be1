"""Answers as bytes: JSON, and the errors of the API."""

from __future__ import annotations

import math

import orjson
from aiohttp import web

from heygen_async.sandbox.error_answers import ErrorAnswer


def json_answer(status: int, body: bytes) -> web.Response:
    """Return an answer whose body is JSON."""
    return web.Response(status=status, body=body, content_type="application/json")


def json_error(error: ErrorAnswer) -> web.Response:
    """Return the API's answer to a request that it refuses."""
    response = json_answer(error.status, orjson.dumps(error.envelope()))
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(error.retry_after))
    return response
