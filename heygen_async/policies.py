"""How a session behaves: retries, polling and timeouts, as frozen values. All times are seconds."""

from __future__ import annotations

from typing import Literal, Self

from attrs import field, frozen

from heygen_async._arguments import one_of, valid_count, valid_positive, valid_seconds

__all__ = ("PollPolicy", "RetryPolicy", "Timeouts")


@frozen(kw_only=True)
class RetryPolicy:
    """When a request is sent again. Times are seconds.

    Transient errors are retried: connection errors, timeouts, 408, 429, 5xx, a 409 `request_in_progress`, and a success
    whose body is not one of the API. The wait is random, up to `min(first_delay * 2 ** n, max_delay)`, and never ends
    before a `Retry-After`. A POST keeps its idempotency key, and is not sent again once the key is 23 hours old. A 429
    and a 409 `request_in_progress` use up no attempt; only `max_seconds` bounds them.

    Attributes:
        max_attempts: How many times a request is sent at most, 1 or more; 1 switches off all retries, those after a
            429 or 409 too.
        max_seconds: No attempt starts later than this after the first one, 0 or more. For transfers with a file host
            it bounds the sum of the waits between attempts, which progress of a download sets back to 0.
        first_delay: The longest wait before the second attempt, 0 or more.
        max_delay: The longest wait before any attempt, 0 or more, unless the server asks for more.
        max_retry_after: A longer `Retry-After` is raised at once, as `.retry_after` of the error; 0 or more.
        on_rate_limit: `"wait"`: after a 429, all requests of the session wait for `Retry-After` (creates only, if it
            was a create), and then leave one after another. `"raise"`: the 429 is raised at once, and no request waits.

    Raises:
        TypeError, ValueError: If an argument is wrong; the message names it.
    """

    max_attempts: int = field(default=4, validator=valid_count)
    max_seconds: float = field(default=180, validator=valid_seconds)
    first_delay: float = field(default=0.5, validator=valid_seconds)
    max_delay: float = field(default=8, validator=valid_seconds)
    max_retry_after: float = field(default=120, validator=valid_seconds)
    on_rate_limit: Literal["wait", "raise"] = field(default="wait", validator=one_of("wait", "raise"))


@frozen(kw_only=True)
class PollPolicy:
    """How often waits look at running jobs. Times are seconds.

    The time between two looks is `growth` times the age of the job, or times the length of a typical job if that is
    more, but at least `fastest` and at most `slowest`. So a result is seen late by a small share of the job's length.
    A look at a job is one request, whatever the `RetryPolicy` says. After each one that fails, the time to the next
    doubles, from twice `fastest` up to `slowest`, and is never less than a `Retry-After`.

    Attributes:
        fastest: The shortest time between two looks, more than 0.
        growth: The share of a job's age that may pass between two looks, more than 0.
        slowest: The longest time between two looks, `fastest` or more.
        longest: The timeout of a wait that has none of its own, more than 0.
        max_bulk: The most bulk status requests in flight at once, 1 or more. Each asks about up to 100 jobs, so more
            than one is used only when more than 100 jobs are due.

    Raises:
        TypeError, ValueError: If an argument is wrong, or `fastest` is more than `slowest`; the message names it.
    """

    fastest: float = field(default=1.0, validator=valid_positive)
    growth: float = field(default=0.03, validator=valid_positive)
    slowest: float = field(default=15.0, validator=valid_positive)
    longest: float = field(default=86400.0, validator=valid_positive)
    max_bulk: int = field(default=16, validator=valid_count)

    def __attrs_post_init__(self) -> None:
        if self.fastest > self.slowest:
            raise ValueError(f"fastest ({self.fastest}) must not be more than slowest ({self.slowest})")

    @classmethod
    def eager(cls) -> Self:
        """Return a policy for a few short jobs that a person waits for."""
        return cls(fastest=0.25, growth=0.01, slowest=2.0)

    @classmethod
    def gentle(cls) -> Self:
        """Return a policy for jobs that may take days, where minutes do not matter."""
        return cls(fastest=10.0, growth=0.05, slowest=300.0, longest=14 * 86400.0)

    @classmethod
    def with_webhooks(cls) -> Self:
        """Return a policy for use with webhooks: they report the ends of jobs, and polling finds those they missed.

        A missed end is seen late by about half the job's length, at most 10 minutes.
        """
        return cls(fastest=30.0, growth=0.5, slowest=600.0)

    def interval(self, age: float, typical: float) -> float:
        """Return the seconds until the status of a job is requested again.

        Args:
            age: Seconds since the job was created.
            typical: The length of a typical job in seconds; 0 if it is not known.
        """
        return min(max(self.growth * max(age, typical), self.fastest), self.slowest)


@frozen(kw_only=True, cache_hash=True)
class Timeouts:
    """How long each kind of operation may take, in seconds, more than 0.

    A request's time starts when it has a connection: waiting for a free one (`max_connections`) uses up no timeout.

    Attributes:
        connect: For a connection: host name, TCP and TLS.
        read: For the whole of a GET.
        write: For the whole of any other request. HeyGen works while the request waits, so a create can take 30 s.
        transfer_idle: For the next bytes of an upload or download. The whole time of a transfer has no limit.

    Raises:
        TypeError, ValueError: If an argument is wrong; the message names it.
    """

    connect: float = field(default=10, validator=valid_positive)
    read: float = field(default=30, validator=valid_positive)
    write: float = field(default=120, validator=valid_positive)
    transfer_idle: float = field(default=60, validator=valid_positive)
