"""What a contender is: a client that is measured, and what the server answers it."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from attrs import field, frozen

OPERATIONS = ("get", "create", "page", "items", "statuses", "upload", "download", "wait")
"""The names of the methods of `Client`."""


class Client:
    """What a contender does, through its public API and with its default settings.

    An adapter replaces the methods that its package can do; the reason for the others is in `Contender.cannot`. `n` is
    a number for the id or the URL, so that no two calls are alike. The result of a method is not looked at.
    """

    async def get(self, n: int) -> object:
        """Fetch one job: a JSON object of eight fields."""
        raise NotImplementedError

    async def create(self, n: int) -> object:
        """Create a job from two URLs, as one who pays for it would by default."""
        raise NotImplementedError

    async def page(self, n: int) -> object:
        """Fetch one page of 100 jobs."""
        raise NotImplementedError

    def items(self) -> AsyncIterator[object]:
        """Go through all jobs of the list, page after page of 100."""
        raise NotImplementedError

    async def statuses(self, n: int) -> object:
        """Fetch the states of 100 jobs in one call."""
        raise NotImplementedError

    async def upload(self, path: Path) -> object:
        """Upload the file."""
        raise NotImplementedError

    async def download(self, n: int, path: Path) -> object:
        """Download the video of a job to the path."""
        raise NotImplementedError

    async def wait(self, ids: Sequence[str], seen: Callable[[str], None]) -> None:
        """Wait for all jobs at once; call `seen` with the id of each as soon as its end is known."""
        raise NotImplementedError


async def wait_for_each(
    wait: Callable[[str], Awaitable[object]], ids: Sequence[str], seen: Callable[[str], None]
) -> None:
    """Wait for each job in a task of its own, with a client that waits for one."""

    async def one(job: str) -> None:
        await wait(job)
        seen(job)

    async with asyncio.TaskGroup() as group:
        for job in ids:
            group.create_task(one(job))


@frozen
class Asked:
    """A request, for a route whose answer depends on it."""

    path: str
    """With its query."""
    origin: str
    """Of the server: "http://127.0.0.1:8000"."""
    body: bytes
    is_over: Callable[[str], bool]
    """Whether the job with this id has ended."""
    jobs: Sequence[str] = ()
    """The ids of those that were begun, the newest first."""
    begun_at: int = 0
    """When they began, in unix time."""


@frozen
class Video:
    """The answer that is a video, as large as `Canned.reset` says."""


@frozen
class Route:
    """What the server answers to requests whose first line begins so.

    `Route("GET /openai/v1/files/", {"id": ...})` answers the same to each; with a function, the answer depends on the
    request. Of the routes that fit, the longest counts.
    """

    begins: str
    answer: object | Callable[[Asked], object]
    """Something for JSON, a function that returns it, or a `Video`."""
    is_kept: bool = False
    """Whether the answer of the function is kept for equal requests, so that it costs the server nothing: for pages."""
    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Contender:
    """A client that is measured."""

    name: str
    """As the tables show it."""
    requirement: str
    """What pip installs, without the version: the line of `requirements.txt` that has it says that."""
    module: str
    """The package that must be there."""
    statement: str
    """How a program imports it: "from openai import AsyncOpenAI"."""
    open: Callable[[str], AbstractAsyncContextManager[Client]]
    """Called with the server's URL, such as `http://127.0.0.1:8000`. A rival adds a path of its own, `/openai/v1`, as
    its base URL. Imports the package; this module does not."""
    routes: Sequence[Route] = ()
    cannot: Mapping[str, str] = field(factory=dict)
    """Why it is not measured in an operation: "has no list of jobs"."""

    @property
    def is_installed(self) -> bool:
        """Whether the package is there."""
        return importlib.util.find_spec(self.module) is not None

    def why_not(self, operation: str) -> str | None:
        """Return why it is not measured in the operation, or `None` if it is."""
        if not self.is_installed:
            return f"not installed ({self.requirement})"
        return self.cannot.get(operation)
