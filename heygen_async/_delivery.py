"""Deliveries of webhooks: verifying and reading them. Pure, except for the time if none is given.

1. A body is verified as the bytes that came. Nothing in it is read before.
2. The timestamp and the event id in the headers are not under the signature. So a replay is recognized by what is: the
   event id in the body, or, where there is none, the body itself.
3. A secret is a variable of no function that can fail, or a traceback with local variables would show it: it is
   concealed first, and revealed only where a digest is made.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import orjson
from attrs import frozen

from heygen_async._arguments import check_seconds, check_type, shown
from heygen_async._events import read_event
from heygen_async._wire import parse_json
from heygen_async.errors import InvalidSignature, StaleDelivery, WebhookError
from heygen_async.models import Secret, WebhookEvent

Body: TypeAlias = bytes | bytearray | memoryview
SigningSecret: TypeAlias = str | Secret | Sequence[str | Secret]
"""The secret of an endpoint; or several, during a rotation or for several endpoints."""

_UNIX_SECONDS: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_ID: Final = re.compile(r"[!-~]{1,255}")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@frozen
class HeaderNames:
    """The names under which the headers of a delivery are looked up, the best first."""

    signature: tuple[str, ...] = ("Heygen-Signature", "X-Heygen-Signature", "Signature")
    timestamp: tuple[str, ...] = ("Heygen-Timestamp", "X-Heygen-Timestamp", "Timestamp")
    event_id: tuple[str, ...] = ("Heygen-Event-Id", "X-Heygen-Event-Id", "Event-Id")

    @classmethod
    def of(cls, signature: str | None, timestamp: str | None, event_id: str | None) -> HeaderNames:
        """Return the user's own names, and the known ones for those that are `None`.

        Raises:
            TypeError, ValueError: If one is not the name of a header.
        """
        own = {"signature": signature, "timestamp": timestamp, "event_id": event_id}
        return cls(**{field: (_checked_header(field, name),) for field, name in own.items() if name is not None})


def _checked_header(field: str, name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{field}_header must be a string, not {type(name).__name__}")
    if not _HEADER.fullmatch(name):
        raise ValueError(f"{field}_header must be the name of a header, not {shown(name)}")
    return name


_KNOWN: Final = HeaderNames()


def verify(
    body: Body,
    headers: Mapping[str, str],
    *,
    secret: SigningSecret,
    tolerance: float = 300,
    now: float | None = None,
    signature_header: str | None = None,
    timestamp_header: str | None = None,
) -> None:
    """Verify signature and timestamp of a delivery.

    The signature is compared in constant time. It does not cover the timestamp, which bounds accidents, not an
    attacker. Replays are recognized by the event id, see `WebhookReceiver`.

    Args:
        body: The bytes as they were sent, before any decoding or decompression.
        headers: The headers; look-up ignores case.
        secret: The secret of the endpoint, or several.
        tolerance: How far the timestamp may be from *now*, either way, in seconds.
        now: Unix time in seconds; `None` for the current time.
        signature_header: The header with the signature; `None` for `Heygen-Signature`, `X-Heygen-Signature` or
            `Signature`, whichever comes first.
        timestamp_header: The header with the timestamp; `None` for `Heygen-Timestamp`, `X-Heygen-Timestamp` or
            `Timestamp`.

    Raises:
        InvalidSignature: If the signature is missing or wrong.
        StaleDelivery: If the timestamp is missing, unreadable, or too far from now.
        TypeError, ValueError: If an argument is wrong, such as an empty secret or a body that is not bytes.
    """
    concealed = conceal(secret)
    del secret
    keys = checked_keys(concealed)
    names = HeaderNames.of(signature_header, timestamp_header, None)
    _check_delivery(headers, now, (*names.signature, *names.timestamp))
    _verify(body, headers, keys=keys, tolerance=checked_tolerance(tolerance), now=now, names=names)


def parse_event(
    body: Body,
    headers: Mapping[str, str],
    *,
    secret: SigningSecret | None,
    tolerance: float = 300,
    now: float | None = None,
    signature_header: str | None = None,
    timestamp_header: str | None = None,
    event_id_header: str | None = None,
) -> WebhookEvent:
    """Verify a delivery and return its event.

    Args:
        body: The bytes as they were sent, before any decoding or decompression.
        headers: The headers; look-up ignores case.
        secret: The secret of the endpoint, or several. `None` accepts unsigned deliveries, such as a `callback_url`
            may get: then anybody can send one, so the event is only a hint to get the job.
        tolerance: How far the timestamp may be from *now*, either way, in seconds.
        now: Unix time in seconds; `None` for the current time.
        signature_header: As for `verify`.
        timestamp_header: As for `verify`.
        event_id_header: The header with the event id, for a body without one; `None` for `Heygen-Event-Id`,
            `X-Heygen-Event-Id` or `Event-Id`.

    Returns:
        The event. Without an id in the body or the headers, its id is a digest of the body.

    Raises:
        InvalidSignature: If the signature is missing or wrong.
        StaleDelivery: If the timestamp is missing, unreadable, or too far from now.
        WebhookError: If the body is not an event.
        TypeError, ValueError: If an argument is wrong, such as an empty secret or a body that is not bytes.
    """
    concealed = None if secret is None else conceal(secret)
    del secret
    keys = None if concealed is None else checked_keys(concealed)
    names = HeaderNames.of(signature_header, timestamp_header, event_id_header)
    _check_delivery(headers, now, (*names.signature, *names.timestamp, *names.event_id))
    return open_delivery(body, headers, keys=keys, tolerance=checked_tolerance(tolerance), now=now, names=names).event


def sign(body: Body, *, secret: str | Secret, event_id: str, timestamp: float) -> dict[str, str]:
    """Return the headers of a delivery of *body*, to test a receiver with.

    Args:
        body: The bytes that will be sent.
        secret: The secret of the endpoint.
        event_id: The event's id, 1 to 255 printable ASCII characters without spaces.
        timestamp: Unix time in seconds.

    Raises:
        TypeError, ValueError: If an argument is wrong.
    """
    concealed = conceal(secret)
    del secret
    keys = checked_keys(concealed)
    if len(keys) > 1:
        raise ValueError(f"secret must be a single one, not {len(keys)}")
    check_type("event_id", event_id, str)
    if not _ID.fullmatch(event_id):
        raise ValueError("event_id must be 1 to 255 printable ASCII characters without spaces")
    return {
        _KNOWN.signature[0]: _digest(_checked(body), keys[0]).decode(),
        _KNOWN.timestamp[0]: str(int(_checked_seconds("timestamp", timestamp))),
        _KNOWN.event_id[0]: event_id,
    }


@frozen
class Delivery:
    """A delivery that passed its checks."""

    event: WebhookEvent
    marks: frozenset[str]
    """Every other delivery of the same event has at least one of these."""


def open_delivery(
    body: Body,
    headers: Mapping[str, str],
    *,
    keys: Sequence[Secret] | None,
    tolerance: float,
    names: HeaderNames,
    now: float | None = None,
) -> Delivery:
    """Verify a delivery if there are *keys*, and read it.

    Raises:
        WebhookError: If it is not signed with one of the keys, stale, or not an event.
    """
    if keys is not None:
        _verify(body, headers, keys=keys, tolerance=tolerance, now=now, names=names)
    wire = _json_object(_checked(body))
    marks = _marks(wire.get("event_id"), _header(headers, names.event_id), body)
    event = read_event({**wire, "event_id": marks[0]})
    # Anything could be such a body. In the history of the API, an event without them is one all the same.
    if event.event_type != wire.get("event_type") and not (event.lipsync_id or event.batch_id or event.callback_id):
        raise WebhookError("the body has neither an event type nor the id of a job or batch")
    return Delivery(event, frozenset(marks))


def _verify(
    body: Body,
    headers: Mapping[str, str],
    *,
    keys: Sequence[Secret],
    tolerance: float,
    now: float | None,
    names: HeaderNames,
) -> None:
    _check_signature(_checked(body), headers, names.signature, keys)
    _check_timestamp(headers, names.timestamp, tolerance, time.time() if now is None else now)


def _check_signature(body: Body, headers: Mapping[str, str], names: Sequence[str], keys: Sequence[Secret]) -> None:
    given = _header(headers, names)
    if not given:
        raise InvalidSignature(f"the header {' or '.join(names)} is missing")
    # Bytes: compare_digest refuses text that is not ASCII. Every key is tried, so that the time reveals nothing.
    signature = given.lower().encode("utf-8", "replace")
    fits = [hmac.compare_digest(_digest(body, key), signature) for key in keys]
    if not any(fits):
        raise InvalidSignature("the signature does not match the body and the secret")


def _check_timestamp(headers: Mapping[str, str], names: Sequence[str], tolerance: float, now: float) -> None:
    given = _header(headers, names)
    if not _UNIX_SECONDS.fullmatch(given):
        raise StaleDelivery(f"the header {' or '.join(names)} is missing or not in unix seconds")
    off = float(given) - now
    if not abs(off) <= tolerance:
        raise StaleDelivery(f"the delivery is {abs(off):.0f} s {'ahead' if off > 0 else 'old'}, over {tolerance:g} s")


def _marks(own_id: object, header_id: str, body: Body) -> list[str]:
    """Return what distinguishes the event from others, the best first."""
    if isinstance(own_id, str) and _ID.fullmatch(own_id):
        return [own_id]
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    # Whoever replays a delivery can change the id in the header, but not the body.
    return [header_id, digest] if _ID.fullmatch(header_id) else [digest]


def _json_object(body: Body) -> Mapping[str, object]:
    try:
        wire = parse_json(bytes(body))
        orjson.dumps(wire)  # fails for what could be read but not be written again, such as 255 levels of nesting
    except (ValueError, orjson.JSONEncodeError):
        raise WebhookError("the body is not JSON, or too deeply nested") from None
    if not isinstance(wire, dict):
        raise WebhookError("the body is not a JSON object")
    return wire


def _header(headers: Mapping[str, str], names: Sequence[str]) -> str:
    """Return the first header of *names* that has a value, or an empty string."""
    found = (value.strip() for name in names for key, value in headers.items() if key.lower() == name.lower())
    return next(filter(None, found), "")


def _checked(body: Body) -> Body:
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise TypeError(f"body must be the bytes as they were sent, not {type(body).__name__}")
    return body


def checked_tolerance(tolerance: float) -> float:
    """Return *tolerance* if it is a number of seconds, 0 or more."""
    return tolerance if tolerance == math.inf else _checked_seconds("tolerance", tolerance)


def _checked_seconds(name: str, value: float) -> float:
    if value is None:
        raise TypeError(f"{name} must be a number of seconds, not None")
    check_seconds(name, value)
    return value


def _check_delivery(headers: Mapping[Any, Any], now: float | None, names: Iterable[str]) -> None:
    """Check what the caller gives of a delivery besides its body. Of headers with other *names* any value will do."""
    check_seconds("now", now)
    if not callable(getattr(headers, "items", None)):  # those of some frameworks are no `Mapping`
        raise TypeError(f"headers must be a mapping of strings, not {type(headers).__name__}")
    used = {name.lower() for name in names}
    for name, value in headers.items():
        if not isinstance(name, str):
            raise TypeError(f"headers must be a mapping of strings; the name {shown(name)} is not one")
        if name.lower() in used and not isinstance(value, str):
            raise TypeError(f"headers must be a mapping of strings; the value of {shown(name)} is not one")


def conceal(secret: SigningSecret) -> list[Secret]:
    """Return one secret or several, whatever they are, in a form that no traceback shows. It never fails."""
    several = secret if isinstance(secret, Sequence) and not isinstance(secret, (str, bytes)) else [secret]
    return [each if isinstance(each, Secret) else Secret(each) for each in several]


def checked_keys(secrets: Sequence[Secret]) -> Sequence[Secret]:
    """Return concealed *secrets* if they can be signing keys.

    Raises:
        TypeError, ValueError: If there is none, or one is not a string, is empty, or is not text.
    """
    for secret in secrets or [Secret("")]:
        if not isinstance(secret.reveal(), str):
            kind = type(secret.reveal()).__name__
            raise TypeError(f"secret must be a string, a Secret or a sequence of them, not {kind}")
        if not secret.reveal():
            raise ValueError("secret is empty")
        if any("\ud800" <= char <= "\udfff" for char in secret.reveal()):
            raise ValueError("secret is not text: it has half of a surrogate pair")
    return secrets


def _digest(body: Body, key: Secret) -> bytes:
    return hmac.digest(key.reveal().encode(), body, "sha256").hex().encode()
