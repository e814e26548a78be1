"""A task group that keeps a cancellation: `asyncio.TaskGroup` forgets one that comes with an error, before 3.13."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

_IS_KEPT = sys.version_info >= (3, 13)


class TaskGroup(asyncio.TaskGroup):
    """`asyncio.TaskGroup`, but a task that is cancelled while one of the group fails stays cancelled.

    The errors are raised, as an `ExceptionGroup`. Whatever is done with them, the next `await` raises `CancelledError`.
    """

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._task = asyncio.current_task()
        self._before = 0 if self._task is None else self._task.cancelling()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        was_requested = self._has_requested()
        try:
            await super().__aexit__(kind, error, trace)
        except BaseExceptionGroup:
            if not _IS_KEPT:
                self._keep_cancelled(has_requested=self._has_requested() and not was_requested)
            raise

    def _has_requested(self) -> bool:
        """Return whether the group itself has cancelled its task, because another one of it failed."""
        return bool(getattr(self, "_parent_cancel_requested", False))

    def _keep_cancelled(self, *, has_requested: bool) -> None:
        """Cancel the task again if somebody else has cancelled it.

        Args:
            has_requested: Whether the group has done it while it waited for its tasks: it does not take that back.
        """
        task = self._task
        assert task is not None  # noqa: S101 `__aenter__` checks it
        if has_requested:
            task.uncancel()
        if task.cancelling() > self._before:
            task.uncancel()
            task.cancel()


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the results of calls that go on at the same time, in order.

    Raises:
        Exception: The first error of a call; the others have been cancelled, and have ended.
    """
    try:
        async with TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except ExceptionGroup as errors:
        failure = first_error(errors)
    else:
        return [task.result() for task in tasks]
    raise failure


def first_error(error: BaseException) -> BaseException:
    """Return the first error of a group, however deep it is: the other tasks were cancelled because of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
