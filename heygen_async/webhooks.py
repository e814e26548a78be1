"""Receiving webhooks: who sent it, what it says, and an application that takes it in.

The rules of this file:

1. A body is verified as the bytes that came. Nothing in it is read before.
2. The timestamp and the event id in the headers are not under the signature. So a replay is told by what is: the
   event id in the body, or, where there is none, the body itself.
3. A delivery is answered with a 2xx once it is in somebody's hands, and remembered only then. Until that HeyGen
   delivers it again, for up to 24 h.
4. What a delivery says is a hint to look. `lipsyncs.get` knows the truth.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import orjson
from attrs import frozen

from heygen_async._converter import read_event
from heygen_async.errors import InvalidSignature, StaleDelivery, WebhookError
from heygen_async.models import Secret, WebhookEvent

__all__ = ("WebhookEvent", "parse_event", "sign", "verify")

Body: TypeAlias = bytes | bytearray | memoryview
SigningSecret: TypeAlias = str | Secret | Sequence[str | Secret]
"""The secret of an endpoint; or several, while it is being rotated or for several endpoints."""

_SIGNATURE: Final = "Heygen-Signature"
_TIMESTAMP: Final = "Heygen-Timestamp"
_EVENT_ID: Final = "Heygen-Event-Id"

_UNIX_SECONDS: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_ID: Final = re.compile(r"[!-~]{1,255}")


def verify(
    body: Body,
    headers: Mapping[str, str],
    *,
    secret: SigningSecret,
    tolerance: float = 300,
    now: float | None = None,
) -> None:
    """See that a delivery was signed with *secret*, and lately. Returns nothing if it was.

    The signature is compared in constant time. It does not cover the timestamp: that bounds accidents, not an
    attacker. A replay is told by the event id, see `WebhookReceiver`.

    Args:
        body: The bytes as they came, before any decoding.
        headers: The headers; look-up ignores case.
        secret: The secret of the endpoint, or several.
        tolerance: How far the timestamp may be from *now*, either way, in seconds.
        now: Unix time in seconds; `None` is the time of the clock.

    Raises:
        InvalidSignature: If the signature is missing or wrong.
        StaleDelivery: If the timestamp is missing, unreadable, or too far from now.
        TypeError, ValueError: If an argument is wrong, such as an empty secret or a body that is not bytes.
    """
    keys = _keys(secret)
    _check_tolerance(tolerance)
    _check_signature(_checked(body), _header(headers, _SIGNATURE), keys)
    _check_timestamp(_header(headers, _TIMESTAMP), tolerance, time.time() if now is None else now)


def parse_event(
    body: Body,
    headers: Mapping[str, str],
    *,
    secret: SigningSecret | None,
    tolerance: float = 300,
    now: float | None = None,
) -> WebhookEvent:
    """Verify a delivery and return what it says.

    Args:
        body: The bytes as they came, before any decoding.
        headers: The headers; look-up ignores case.
        secret: The secret of the endpoint, or several. `None` takes in unsigned deliveries, such as a
            `callback_url` may get: then anybody can send one, and it is a hint to look and no more.
        tolerance: How far the timestamp may be from *now*, either way, in seconds.
        now: Unix time in seconds; `None` is the time of the clock.

    Raises:
        InvalidSignature: If the signature is missing or wrong.
        StaleDelivery: If the timestamp is missing, unreadable, or too far from now.
        WebhookError: If the body is not an event.
        TypeError, ValueError: If an argument is wrong, such as an empty secret or a body that is not bytes.
    """
    return _open(body, headers, secret=secret, tolerance=tolerance, now=now).event


def sign(body: Body, *, secret: str | Secret, event_id: str, timestamp: float) -> dict[str, str]:
    """Return the headers of a delivery of *body*, to test a receiver with.

    Args:
        body: The bytes that will be sent.
        secret: The secret of the endpoint.
        event_id: The event's id.
        timestamp: Unix time in seconds.

    Raises:
        TypeError, ValueError: If an argument is wrong.
    """
    (key,) = _keys(secret)
    if not _ID.fullmatch(event_id):
        raise ValueError("event_id must be 1 to 255 printable ASCII characters without spaces")
    return {
        _SIGNATURE: _digest(_checked(body), key).decode(),
        _TIMESTAMP: str(int(timestamp)),
        _EVENT_ID: event_id,
    }


@frozen
class _Delivery:
    """A delivery that may be believed as far as its signature goes."""

    event: WebhookEvent
    marks: frozenset[str]
    """What another delivery of the same event has at least one of."""


def _open(
    body: Body,
    headers: Mapping[str, str],
    *,
    secret: SigningSecret | None,
    tolerance: float,
    now: float | None = None,
) -> _Delivery:
    if secret is not None:
        verify(body, headers, secret=secret, tolerance=tolerance, now=now)
    wire = _json_object(_checked(body))
    marks = _marks(wire.get("event_id"), headers, body)
    try:
        return _Delivery(read_event({**wire, "event_id": marks[0]}), frozenset(marks))
    except ValueError:
        raise WebhookError("the body does not say what kind of event it is") from None


def _marks(own_id: object, headers: Mapping[str, str], body: Body) -> list[str]:
    """Return what tells the event from others, the best first."""
    if isinstance(own_id, str) and _ID.fullmatch(own_id):
        return [own_id]
    header_id = _header(headers, _EVENT_ID)
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    # The id in the header can be changed by whoever replays a delivery, the body cannot.
    return [header_id, digest] if _ID.fullmatch(header_id) else [digest]


def _json_object(body: Body) -> Mapping[str, object]:
    try:
        wire = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise WebhookError("the body is not JSON") from None
    if not isinstance(wire, dict):
        raise WebhookError("the body is not a JSON object")
    return wire


def _header(headers: Mapping[str, str], name: str) -> str:
    found = (value.strip() for key, value in headers.items() if key.lower() == name.lower())
    return next(found, "")


def _checked(body: Body) -> Body:
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise TypeError(f"body must be the bytes as they came, not {type(body).__name__}")
    return body


def _keys(secret: SigningSecret) -> list[bytes]:
    secrets = [secret] if isinstance(secret, (str, Secret)) else secret
    return [_key(each) for each in secrets or [""]]


def _key(secret: str | Secret) -> bytes:
    revealed = secret.reveal() if isinstance(secret, Secret) else secret
    if not isinstance(revealed, str):
        raise TypeError(f"secret must be a string, a Secret or a sequence of them, not {type(secret).__name__}")
    if not revealed:
        raise ValueError("secret is empty")
    return revealed.encode()


def _digest(body: Body, key: bytes) -> bytes:
    return hmac.digest(key, body, "sha256").hex().encode()


def _check_signature(body: Body, given: str, keys: Sequence[bytes]) -> None:
    if not given:
        raise InvalidSignature(f"the header {_SIGNATURE} is missing")
    # Bytes: compare_digest refuses text that is not ASCII. Every key is tried, so that the time tells nothing.
    signature = given.lower().encode("utf-8", "replace")
    fits = [hmac.compare_digest(_digest(body, key), signature) for key in keys]
    if not any(fits):
        raise InvalidSignature("the signature does not fit the body and the secret")


def _check_timestamp(given: str, tolerance: float, now: float) -> None:
    if not _UNIX_SECONDS.fullmatch(given):
        raise StaleDelivery(f"the header {_TIMESTAMP} is missing or not in unix seconds")
    off = float(given) - now
    if not abs(off) <= tolerance:
        raise StaleDelivery(f"the delivery is {abs(off):.0f} s {'ahead' if off > 0 else 'old'}, over {tolerance:g} s")


def _check_tolerance(tolerance: float) -> None:
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be 0 seconds or more, not {tolerance!r}")
