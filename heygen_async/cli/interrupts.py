"""SIGINT, SIGTERM and SIGHUP: the first one ends a command in an orderly way, a second one at once.

Rule 1: outside the event loop a signal raises `Interrupted`; inside, it cancels the command, see `interruptible`.
Rule 2: a signal that was ignored when the process started stays ignored, as nohup and background jobs expect.
Rule 3: handlers are installed for PID 1 too: there the kernel ignores signals without a handler.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
_SAME: Final = 0.05
"""Seconds within which a repeated SIGTERM or SIGHUP is the same request: `timeout` and shells send it twice."""
_GRACE: Final = 0.5
"""Seconds for the threads of an interrupted command to end."""
_SHOW_CURSOR: Final = b"\x1b[?25h\n"


class Interrupted(KeyboardInterrupt):
    """Raised when a signal ends a command.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """The exit code that shells use for it."""
        return 128 + self.number


class Interrupts:
    """The signals that end a command, while `handled` is entered."""

    def __init__(self) -> None:
        self.first: int | None = None
        """The first signal that came."""
        self._first_at = 0.0
        self._cancel: Callable[[], object] | None = None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals while the body runs; outside the main thread this does nothing."""
        before = {number: signal.getsignal(number) for number in _numbers()}
        for number in before:
            signal.signal(number, self.on_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def cancelling(self, cancel: Callable[[], object]) -> Iterator[list[int]]:
        """Call *cancel* for the first signal while the body runs; yields the signals that are handled."""
        self._cancel = cancel
        try:
            yield [number for number in _numbers() if signal.getsignal(number) == self.on_signal]
        finally:
            self._cancel = None

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal.

        Raises:
            Interrupted: If it is the first one, and there is nothing to cancel.
        """
        now = time.monotonic()
        if self.first is not None:
            if number != signal.SIGINT and number == self.first and now - self._first_at < _SAME:
                return
            _exit_at_once(128 + number)
        self.first, self._first_at = number, now
        if self._cancel is None:
            raise Interrupted(number)
        self._cancel()


def has_blocked_threads() -> bool:
    """Return whether threads go on after a command was interrupted, in a read of a silent pipe for instance."""
    end = time.monotonic() + _GRACE
    others = [one for one in threading.enumerate() if one is not threading.current_thread() and not one.daemon]
    for thread in others:
        thread.join(max(0.0, end - time.monotonic()))
    return any(thread.is_alive() for thread in others)


def _numbers() -> list[int]:
    """Return the signals to handle."""
    if threading.current_thread() is not threading.main_thread():
        return []  # Python takes handlers from the main thread only
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]


def _exit_at_once(code: int) -> None:
    """End the process without any clean-up: threads may be blocked for ever. The journal survives that."""
    with suppress(OSError, ValueError):
        if sys.__stderr__ is not None and sys.__stderr__.isatty():
            os.write(sys.__stderr__.fileno(), _SHOW_CURSOR)
    os._exit(code)
