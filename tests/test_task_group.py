"""A cancellation is not lost if an error comes at the same time."""

import asyncio
from pathlib import Path

import pytest

import heygen_async
from heygen_async._task_group import TaskGroup


async def fail_when_cancelled() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        raise OSError("the connection broke")


async def work(steps: list[str]) -> None:
    """Do what a worker does: after an error, try again."""
    while True:
        try:
            async with TaskGroup() as tasks:
                tasks.create_task(fail_when_cancelled())
                steps.append("started")
        except* OSError:
            steps.append("failed")
        await asyncio.sleep(0)


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_a_task_that_is_cancelled_while_one_of_its_group_fails_is_cancelled_at_its_next_await(turns: int) -> None:
    steps: list[str] = []
    task = asyncio.create_task(work(steps))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert steps in (["started", "failed"], [])


async def test_a_timeout_around_it_is_still_a_timeout() -> None:
    steps: list[str] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await work(steps)
    assert steps == ["started", "failed"]
    await asyncio.sleep(0)  # nothing is left of the cancellation


async def test_without_a_cancellation_the_errors_are_raised_and_the_task_goes_on() -> None:
    async def fail() -> None:
        raise OSError("the connection broke")

    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as tasks:
            tasks.create_task(fail())
    await asyncio.sleep(0)


def test_the_library_uses_no_other_task_group() -> None:
    folder = Path(heygen_async.__file__).parent
    users = {path.relative_to(folder) for path in folder.rglob("*.py") if "asyncio.TaskGroup" in path.read_text()}
    assert {path.name for path in users if path.parts[0] != "sandbox"} == {"_task_group.py"}


async def test_a_failed_group_leaves_no_request_to_cancel_behind() -> None:
    """One that is left would make a timeout around it a cancellation."""

    async def fail(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise OSError("the connection broke")

    async def run(turns: int) -> None:
        async with TaskGroup() as tasks:
            tasks.create_task(fail(turns))
            await asyncio.sleep(0)

    task = asyncio.current_task()
    assert task is not None
    for turns in range(4):
        with pytest.raises(ExceptionGroup):
            await run(turns)
        assert task.cancelling() == 0
