"""The errors of the library, a tree with one root to catch.

::

    HeyGenError
    ├─ TransportError                  no answer arrived
    │   └─ RequestTimeout              none within the timeout
    ├─ APIError                        the API answered with an error
    │   ├─ InvalidRequest              400 413 422
    │   ├─ AuthenticationError         401
    │   ├─ InsufficientCredit          402
    │   ├─ PermissionDenied            403
    │   ├─ NotFound                    404
    │   ├─ Conflict                    409
    │   ├─ RateLimited                 429
    │   └─ ServerError                 5xx
    ├─ UnexpectedResponse              the answer is not one of the API
    ├─ LipsyncFailed                   the job ended as failed
    ├─ WaitTimeout (and TimeoutError)  the job still runs
    ├─ DownloadError                   the video cannot be downloaded or written
    └─ WebhookError                    a delivery cannot be trusted or read
        ├─ InvalidSignature
        └─ StaleDelivery

`heygen_async.bulk` adds `JournalError` (with `JournalInUse`), `InDoubt` and `OverBudget`, and
`heygen_async.bulk.cluster` adds `ClusterError`, a `JournalError`.

Misuse, such as a bad argument or a closed session, raises a `ValueError`, `TypeError` or `RuntimeError` before
anything is sent; these are not in the tree. Every error survives `pickle` and `copy`. No error shows the API key or the
query of a presigned link, and neither do the local variables of its traceback.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias

from attrs import asdict, frozen

from heygen_async._text import clean_line, one_line, shortened, whole_characters

if TYPE_CHECKING:
    from heygen_async.models import Lipsync

__all__ = (
    "APIError",
    "AuthenticationError",
    "Conflict",
    "DownloadError",
    "ErrorDetail",
    "HeyGenError",
    "InsufficientCredit",
    "InvalidRequest",
    "InvalidSignature",
    "LipsyncFailed",
    "NotFound",
    "Outcome",
    "PermissionDenied",
    "RateLimited",
    "RequestTimeout",
    "ServerError",
    "StaleDelivery",
    "TransportError",
    "UnexpectedResponse",
    "WaitTimeout",
    "WebhookError",
)

IN_PROGRESS: Final = "request_in_progress"
"""The code of a 409: the first request under this idempotency key is still being processed."""

UNUSABLE_ASSET: Final = frozenset({"asset_not_found", "asset_not_available"})
"""The codes of a create with an asset that is gone, or that is still being processed."""

NO_REASON: Final = "no reason was given"
"""What is shown where the API does not say why something failed."""

CLOSED: Final = "this HeyGenSession is closed; make a new one"
"""What a call says that comes after the end of its session."""

_IN_PROGRESS_HINT: Final = (
    "The first request with this idempotency key is still being processed. Repeat the call later with the same key."
)
_COMPLETED: Final = "completed"
_LATE_HINT: Final = "The job is completed and paid. Download its video by its id."
_NOT_CREATED_HINT: Final = "Nothing was created. Make the same call again, with more time."
_IN_DOUBT_HINT: Final = "The request may have been carried out. Repeat a create with the same idempotency key."
_TRANSIENT: Final = frozenset({408, 429})
_REDIRECTS: Final = 300
_SERVER_ERRORS: Final = 500

Outcome: TypeAlias = Literal["not_sent", "rejected", "unknown"]
"""What is known of a request that did not succeed, over all of its attempts.

`not_sent`: no connection was made. `rejected`: the server refused it, and did nothing. `unknown`: it may have been
carried out; send it again with the same idempotency key, within 24 hours, to find out. Once an attempt has left this
open, only a success or an error of the API about this very request resolves it; a 404, a 402 or the 400 of a gateway
does not.
"""


@frozen(kw_only=True)
class CallRecord:
    """What is known of one call over all of its attempts: what every error of it carries."""

    idempotency_key: str | None = None
    attempts: int = 0
    outcome: Outcome | None = None

    @classmethod
    def read_from(cls, error: BaseException) -> Self:
        """Return the record that *error* carries, an `asyncio.CancelledError` for instance."""
        return cls(
            idempotency_key=getattr(error, "idempotency_key", None),
            attempts=getattr(error, "attempts", 0),
            outcome=getattr(error, "outcome", None),
        )

    def write_to(self, error: BaseException) -> None:
        """Set `.idempotency_key`, `.attempts` and `.outcome` of *error*, if its kind of exception takes attributes.

        A foreign exception keeps its own attributes with these names.
        """
        is_foreign = isinstance(error, Exception) and not isinstance(error, HeyGenError)
        with suppress(AttributeError):
            for name, value in asdict(self).items():
                if not (is_foreign and hasattr(error, name)):
                    setattr(error, name, value)

    @contextmanager
    def on_error(self) -> Iterator[None]:
        """Write this to the error or cancellation that ends the `with` block, if one does."""
        try:
            yield
        except BaseException as error:
            self.write_to(error)
            raise


def copy_of(error: Exception) -> Exception:
    """Return *error* for one of the calls that it ends, so that what is written to it is not about the others.

    It has no traceback. A foreign exception that cannot be copied is returned as it is.
    """
    try:
        copied = copy.copy(error)
    except Exception:  # noqa: BLE001 a foreign exception may fail to be copied in any way
        return error
    if hasattr(error, "__notes__"):
        object.__setattr__(copied, "__notes__", [*error.__notes__])  # it may be frozen
    return copied


def _revive(cls: type[HeyGenError], args: tuple[object, ...], state: Mapping[str, object]) -> HeyGenError:
    error = cls.__new__(cls, *args)
    error.args = args  # OSError.__new__, a parent of WaitTimeout, leaves them to __init__
    error.__dict__.update(state)
    if hasattr(error, "__notes__"):
        error.__notes__ = [*error.__notes__]  # a note on one of them is not about the others
    return error


class HeyGenError(Exception):
    """The root of the tree: catch it to catch every error of this library. It is never raised itself.

    Attributes:
        idempotency_key: The key that a POST was sent with. Pass it to the same call again (`idempotency_key=`), and
            the server returns the result of the first request instead of doing the work twice. `None` for other calls.
        attempts: How many times the request was sent.
        outcome: `not_sent`, `rejected` or `unknown`; `None` where no request was involved.
        is_transient: Whether the failure may pass by itself, so that a retry can help. Every retry in this library
            follows it: connection errors, timeouts, 408, 429, 5xx, a 409 `request_in_progress`, and an answer with a
            2xx status that is not the API's.
    """

    _hint: str | None = None
    """The hint of the class, or the one that was made for this error."""

    idempotency_key: str | None = None
    attempts: int = 0
    outcome: Outcome | None = None
    is_transient: bool = False

    def __init__(self, *args: object, outcome: Outcome | None = None) -> None:
        # The name of a file may be any bytes; a message must be one that can be printed.
        super().__init__(*(whole_characters(one) if isinstance(one, str) else one for one in args))
        if outcome is not None:
            self.outcome = outcome

    @property
    def hint(self) -> str | None:
        """What to do about it, in one sentence; `None` where there is no advice.

        Where a POST may have been carried out (`outcome` is `unknown`), it says to repeat that with the same key.
        """
        # What a class advises, such as to try again, would pay twice where the work may be done already.
        is_in_doubt = self.outcome == "unknown" and self.idempotency_key is not None
        return _IN_DOUBT_HINT if is_in_doubt and "_hint" not in self.__dict__ else self._advice()

    @hint.setter
    def hint(self, hint: str | None) -> None:
        self._hint = hint

    def _advice(self) -> str | None:
        return self._hint

    def __reduce__(self) -> tuple[object, ...]:
        # The default calls __init__ with .args, which are the finished message, not its parts.
        return _revive, (type(self), self.args, self.__dict__)

    def fresh(self) -> Self:
        """Return a copy without traceback, so that one failure can be raised to each of many waiters."""
        return copy.copy(self)


class TransportError(HeyGenError):
    """Raised when no answer arrived: the name did not resolve, or the connection was refused or broke."""

    _hint = "Check the network and the base URL, then try again."
    is_transient = True


class RequestTimeout(TransportError):
    """Raised when no answer arrived in time; see `Timeouts`."""


@frozen
class ErrorDetail:
    """One fault of a request, as the API lists them in `APIError.errors`."""

    message: str
    code: str | None = None
    """The API's word for it, such as `invalid_parameter`."""
    path: str | None = None
    """The field, such as `video.url`."""


class APIError(HeyGenError):
    """Raised when the API answers with an error: a 4xx, a 5xx, or a 200 whose body is an error.

    Attributes:
        status: The HTTP status. For an error inside a 200, the status that its code means, 200 if that is unknown.
        code: The API's own word for it, such as `invalid_parameter` (older services: a number, such as `"400140"`);
            `None` if it gave none.
        message: The API's sentence, or a short excerpt of a body that is not the API's.
        param: The request field at fault, if the API names one.
        doc_url: Where the API documents the error, if it says.
        errors: The faults of the request, as `ErrorDetail` values, if the API lists them.
        request_id: The `X-Request-Id` of the answer, to quote to HeyGen's support; `None` if there was none.
        retry_after: Seconds that the server asked to wait; `None` if it did not.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        param: str | None = None,
        doc_url: str | None = None,
        errors: Sequence[ErrorDetail] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
        outcome: Outcome | None = None,
        hint: str | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.doc_url = doc_url
        self.errors = tuple(errors)
        self.request_id = request_id
        self.retry_after = retry_after
        if hint is not None or code == IN_PROGRESS:
            self.hint = hint or _IN_PROGRESS_HINT
        self.is_transient = status in _TRANSIENT or status >= _SERVER_ERRORS or code == IN_PROGRESS
        super().__init__(self._sentence(), outcome=outcome)

    def _sentence(self) -> str:
        parts = [f"{self.status} {self.code}" if self.code else str(self.status)]
        if self.message:
            parts.append(f": {self.message}")
        if self.param:
            parts.append(f" (field {self.param})")
        if self.request_id:
            parts.append(f" [request {self.request_id}]")
        return one_line("".join(parts))


class InvalidRequest(APIError):
    """Raised on 400, 413 and 422: the API does not accept the request. `.param` and `.errors` say what is wrong."""


class AuthenticationError(APIError):
    """Raised on 401: the key or token is missing or wrong. The API answers both in the same way."""

    _hint = "Check the API key (HEYGEN_API_KEY, or the one that was given) or the access token."


class InsufficientCredit(APIError):
    """Raised on 402: the account has no credit left for this, or its plan does not include it."""

    _hint = "Add credit or upgrade the plan, then run it again."


class PermissionDenied(APIError):
    """Raised on 403: the key is valid, but may not do this. `.hint` names the missing scope where that is known."""

    _hint = "The API key may not do this: check its scopes and the account's permissions."


class NotFound(APIError):
    """Raised on 404: the object does not exist, or belongs to another account."""

    _hint = "Check the id, and that the API key belongs to the account that created it."


class Conflict(APIError):
    """Raised on 409: `request_in_progress` after the last retry, or a state that does not allow the call."""


class RateLimited(APIError):
    """Raised on 429 after the last retry: too many requests, or too many jobs at once; the code is the same."""

    _hint = "Wait for running jobs to finish, or lower the rate."


class ServerError(APIError):
    """Raised on 5xx after the last retry."""

    _hint = "The server failed. Try again later."


_BY_STATUS: Final[Mapping[int, type[APIError]]] = {
    400: InvalidRequest,
    401: AuthenticationError,
    402: InsufficientCredit,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    413: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
}


def error_class(status: int) -> type[APIError]:
    """Return the class for an HTTP *status*, 400 to 599; an unknown 5xx is a `ServerError`."""
    return _BY_STATUS.get(status) or (ServerError if status >= _SERVER_ERRORS else APIError)


class UnexpectedResponse(HeyGenError):
    """Raised when an answer is not one of the API: HTML, incomplete JSON, a missing field, a redirect.

    Attributes:
        problems: What is wrong and where, such as `required field missing @ $.data.status`.
        status: The HTTP status.
        request_id: The `X-Request-Id`, if there was one.
    """

    _hint = "A gateway may have answered in place of the API, or the API has changed."

    def __init__(
        self,
        problems: Sequence[str],
        *,
        status: int,
        request_id: str | None = None,
        outcome: Outcome | None = None,
        is_transient: bool | None = None,
    ) -> None:
        self.problems = list(problems)
        self.status = status
        self.request_id = request_id
        # The next attempt may not meet the gateway that answered 200 with a page of its own. A redirect stays.
        self.is_transient = status < _REDIRECTS if is_transient is None else is_transient
        where = f" [request {request_id}]" if request_id else ""
        super().__init__(
            one_line(f"unexpected answer ({status}): {shortened('; '.join(self.problems))}{where}"), outcome=outcome
        )


class LipsyncFailed(HeyGenError):
    """Raised by a wait when the job ended as `failed`.

    Attributes:
        lipsync: The job; its `.failure_message` says why.
    """

    _hint = "A failed job stays failed. Correct the source or the options, and create a new one."

    def __init__(self, lipsync: Lipsync) -> None:
        self.lipsync = lipsync
        super().__init__(clean_line(f"lipsync {lipsync.id} failed: {lipsync.failure_message or NO_REASON}"))


class WaitTimeout(HeyGenError, TimeoutError):
    """Raised when a wait reaches its deadline. The job still runs; wait for it again.

    If `.last_status` is `completed`, the job has ended and only its result was late: download the video by the job's
    id. If there is no `.lipsync_id` and nothing `.pending`, the create was not answered in time, and `.outcome` says
    what is known of it; of many jobs, none of the ids was read in time.

    Attributes:
        lipsync_id: The job (or the batch); `None` if the create was not answered in time, or for several jobs.
        last_status: The last status that the API reported; `None` if there was none.
        pending: For a wait on many jobs, the ids of those that did not end in time, each with its last status.
    """

    _hint = "The job still runs at HeyGen. Wait for it again by its id."

    def __init__(
        self,
        lipsync_id: str | None,
        *,
        last_status: str | None = None,
        pending: Mapping[str, str | None] | None = None,
    ) -> None:
        self.pending = dict(pending or {})
        if len(self.pending) == 1:
            [(lipsync_id, last_status)] = self.pending.items()
        self.lipsync_id = lipsync_id
        self.last_status = last_status
        if last_status == _COMPLETED and lipsync_id is not None:
            self.hint = _LATE_HINT
        # One argument only: with two, OSError (a parent through TimeoutError) would read them as errno.
        super().__init__(clean_line(self._sentence(is_of_many=pending is not None)))

    def _advice(self) -> str | None:
        if self.lipsync_id is not None or self.pending:
            return self._hint
        return None if self.outcome is None else _NOT_CREATED_HINT

    def _sentence(self, *, is_of_many: bool) -> str:
        if len(self.pending) > 1:
            return f"{len(self.pending)} lipsyncs did not end in time"
        if self.lipsync_id is None:
            return f"the deadline passed before {'all ids were read' if is_of_many else 'the create was answered'}"
        if self.last_status == _COMPLETED:
            return f"{self.lipsync_id} is completed, but its video did not arrive in time"
        return f"{self.lipsync_id} did not end in time (last status: {self.last_status or 'none'})"


class DownloadError(HeyGenError):
    """Raised when a finished video cannot be downloaded or written.

    It is transient if the file host or the network failed, and not if the host sent another kind of file, or if
    the file could not be written.
    """

    def __init__(self, message: str, *, is_transient: bool = False) -> None:
        self.is_transient = is_transient
        super().__init__(message)


class WebhookError(HeyGenError):
    """Raised for a webhook delivery that cannot be trusted or read."""


class InvalidSignature(WebhookError):
    """Raised when the signature of a delivery is missing or wrong."""

    _hint = "Check that the receiver has the secret of this webhook endpoint."


class StaleDelivery(WebhookError):
    """Raised when the timestamp of a delivery is too far from now, in the past or in the future."""

    _hint = "Check the clock of this machine."


def has_own_code(error: APIError) -> bool:
    """Return whether *error* has one of the API's codes: an answer without one may be a gateway's."""
    return error.code is not None and error.code != str(error.status)


def may_be_page(error: BaseException) -> bool:
    """Return whether a gateway may have refused the request with a page of its own; the next one may reach the API."""
    return isinstance(error, APIError) and not error.is_transient and not has_own_code(error)
