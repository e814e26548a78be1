"""What the doctor has seen of the API: one result for each call. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from heygen_async._wire import Response
from heygen_async.errors import AuthenticationError, HeyGenError, TransportError
from heygen_async.models import JSON


@frozen(kw_only=True)
class CallResult:
    """What came back from one call: an answer or an error."""

    call: str
    """Method and path template."""
    seconds: float
    """How long its last attempt took, from the request to the answer."""
    received_at: float
    """By the clock of this machine, in unix seconds."""
    response: Response | None = field(default=None, repr=False)
    error: HeyGenError | None = None

    @property
    def objects(self) -> Sequence[Mapping[str, JSON]]:
        """The objects of a list; nothing if it is none."""
        body = None if self.response is None else self.response.data
        data = body.get("data") if isinstance(body, dict) else None
        return [item for item in data if isinstance(item, dict)] if isinstance(data, list) else []


@frozen(kw_only=True)
class Offers:
    """The results that show what the account may use."""

    account: CallResult
    statuses: CallResult
    batch: CallResult
    """For a batch, which need not exist."""
    nowhere: CallResult
    """For a path that no API has: a call that the account does not have is answered in the same way."""
    event_types: CallResult


@frozen(kw_only=True)
class CallResults:
    """The results to all calls. The later ones are missing where the first ones show that they cannot succeed."""

    key: CallResult
    page: CallResult | None = None
    """The newest lipsyncs."""
    offers: Offers | None = None
    details: Sequence[CallResult] = ()
    """Each lipsync of the page on its own."""

    @property
    def unanswered(self) -> TransportError | None:
        """The error of the first two calls, if nothing answered them."""
        error = (self.page or self.key).error
        return error if isinstance(error, TransportError) else None

    @property
    def unauthorized(self) -> AuthenticationError | None:
        """The error of the list, if it is a 401."""
        error = None if self.page is None else self.page.error
        return error if isinstance(error, AuthenticationError) else None

    @property
    def all(self) -> Sequence[CallResult]:
        """Every result that there is."""
        some = self.offers
        offers = () if some is None else (some.account, some.statuses, some.batch, some.nowhere, some.event_types)
        return [result for result in (self.key, self.page, *offers, *self.details) if result is not None]
