"""Waiting for lipsyncs: any number of waits, few requests, no background task.

Waiters send shared requests. A timer wakes, for each chunk of jobs that is due, one of their waiters, which sends the
request in its own task, hands its answer to the other waiters, and goes back to waiting. `board` decides what is
requested, when and by which waiter; `requests` sends, wakes and sets the timer.
"""

from heygen_async.polling.completions import Completions
from heygen_async.polling.poller import LipsyncPoller, PollerSnapshot, WaitingFor

__all__ = ("Completions", "LipsyncPoller", "PollerSnapshot", "WaitingFor")
