"""What connections and answers say about the network and this machine's clock. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from statistics import median
from typing import TYPE_CHECKING, Final

from heygen_async._doctor.seen import CallResult
from heygen_async._wire import unix_time
from heygen_async.diagnosis import Check, Level
from heygen_async.errors import TransportError

if TYPE_CHECKING:
    from heygen_async._transport.probe import Failure, Reach

_SLOW: Final = 2.0
"""Seconds: the API's own promise is that nearly all reads are faster."""
_SKEW: Final = 30.0
_SOON: Final = timedelta(days=14)
_NO_NAME: Final = (
    "Check that this machine is online, then its DNS server or VPN, then the spelling of the host in --base-url or "
    "HEYGEN_BASE_URL."
)
_NO_CONNECTION: Final = (
    "Check that this machine is online and that no firewall blocks the address. Behind a proxy, set HTTPS_PROXY."
)
_PROXY: Final = "Check HTTPS_PROXY (and its user name and password), or except the host with NO_PROXY."
_PRIVATE_CA: Final = (
    "A proxy or a virus scanner may replace the certificate. Get its CA certificate and set SSL_CERT_FILE to the "
    "file, or give an ssl.SSLContext as ssl= to the session."
)
_CLOCK: Final = "Set the clock of this machine, for instance by NTP."
_TLS: Final = "Something between here and the API speaks no TLS, or an old one: check the port, proxy and firewall."
# By OpenSSL's numbers (x509_vfy.h); any other certificate error is about who signed it.
_CERTIFICATES: Final = {
    9: f"It is not valid yet. {_CLOCK}",
    10: "It has expired, or the date of this machine is wrong: set it. Else the owner of the server has to renew it.",
    62: "The certificate is for another host: check the host in --base-url or HEYGEN_BASE_URL, and the DNS.",
}


def reach_checks(reach: Reach, *, now: datetime) -> Iterator[Check]:
    """Yield what one connection, to the API or to the proxy, has shown."""
    via = f"the proxy {reach.host}" if reach.is_proxy else reach.host
    if reach.dns_seconds is not None and not _is_address(reach.host):
        count = f"{reach.addresses} address{'' if reach.addresses == 1 else 'es'}"
        yield _ok(f"DNS: {via} has {count}, found in {_ms(reach.dns_seconds)}")
    if reach.connect_seconds is not None:
        yield _ok(f"connection to {via}, port {reach.port}, in {_ms(reach.connect_seconds)}")
    if reach.tls_version is not None and reach.tls_seconds is not None:
        yield _certificate(reach, f"{reach.tls_version} in {_ms(reach.tls_seconds)}", now)
    if reach.failure is not None:
        yield _failed(reach, reach.failure, via)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _certificate(reach: Reach, handshake: str, now: datetime) -> Check:
    end = reach.certificate_end
    if end is None:
        return Check(area="network", level=Level.INFO, summary=f"{handshake}; the certificate was not verified")
    text = f"{handshake}; the certificate of the server is valid until {end:%Y-%m-%d}"
    if end - now > _SOON:
        return _ok(text)
    advice = "Its owner has to renew it in time; if it belongs to a proxy of yours, renew it yourself."
    return Check(area="network", level=Level.INFO, summary=text, advice=advice)


def _failed(reach: Reach, failure: Failure, via: str) -> Check:
    match failure.stage:
        case "dns":
            summary, advice = f"the name of {via} cannot be resolved: {failure.reason}", _NO_NAME
        case "connect":
            summary, advice = f"no connection to {via}, port {reach.port}: {failure.reason}", _NO_CONNECTION
        case "tls" if failure.certificate_error is not None:
            summary = f"the certificate of {via} is not accepted: {failure.reason}"
            advice = _CERTIFICATES.get(failure.certificate_error, _PRIVATE_CA)
        case "tls":
            summary, advice = f"TLS with {via} failed: {failure.reason}", _TLS
    return Check(area="network", level=Level.ERROR, summary=summary, advice=_PROXY if reach.is_proxy else advice)


def unanswered(error: TransportError, reach: Reach | None) -> Check:
    """Return the check for a first call that got no answer, though the connection could be made."""
    through_proxy = reach is not None and reach.is_proxy
    advice = _PROXY if through_proxy else error.hint
    return Check(area="network", level=Level.ERROR, summary=str(error), advice=advice)


def latency_check(results: Sequence[CallResult]) -> Check:
    """Return how fast the API has answered."""
    times = [result.seconds for result in results]
    text = f"answers take {_ms(median(times))} in the median, {_ms(max(times))} at most ({len(times)} requests)"
    if median(times) < _SLOW:
        return _ok(text)
    advice = "Reads of the API take less than 2 s. Check the network and the proxy; else HeyGen is slow just now."
    return Check(area="network", level=Level.WARNING, summary=text, advice=advice)


def clock_check(results: Sequence[CallResult]) -> Check:
    """Return how far the clock of this machine is from the server's, by the `Date` of its answers."""
    skews = [skew for result in results if (skew := _skew(result)) is not None]
    if not skews:
        return Check(area="clock", level=Level.INFO, summary="not compared: no answer has a date")
    skew = median(skews)
    if abs(skew) <= _SKEW:
        return Check(area="clock", level=Level.OK, summary=f"within {max(2, round(abs(skew)))} s of the server's")
    summary = f"this machine's clock is {_length(abs(skew))} {'ahead' if skew > 0 else 'behind'}, by the server's date"
    advice = f"{_CLOCK} Webhooks would be refused as too old, and keys and links seem to expire at other times."
    return Check(area="clock", level=Level.WARNING, summary=summary, advice=advice)


def _skew(result: CallResult) -> float | None:
    """Return the seconds that this machine is ahead."""
    if result.response is None:
        return None
    date = unix_time(result.response.headers.get("Date", ""))
    # The date has whole seconds, and was written some time between the request and the answer.
    return None if date is None else result.received_at - result.seconds / 2 - date - 0.5


def _ok(summary: str) -> Check:
    return Check(area="network", level=Level.OK, summary=summary)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms"


def _length(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.0f} s"
