"""Routes of the rivals' APIs, with bodies as large as those of HeyGen. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import orjson

from benchmarks.answers import ITEM_SIZE, ITEMS, PAGE, page_number
from benchmarks.contender import Asked, Route

DAY = "2026-01-01T00:00:00Z"
HOST = "https://files.example.com"
Body = Mapping[str, object]


def link_for(make: Callable[[str], Body]) -> str:
    """Return a link so long that the JSON of *make* with it has the size of HeyGen's.

    Raises:
        ValueError: The rest of the JSON is too long for that.
    """
    link = f"{HOST}/v.mp4?X-Amz-Signature="
    missing = ITEM_SIZE - len(orjson.dumps(make(link)))
    if missing < 0:
        raise ValueError(f"the body is {-missing} bytes too long")
    return link + "0" * missing


def job_route(begins: str, *, id_field: str, running: Body, done: Body | Callable[[Asked], Body]) -> Route:
    """Return the route of one job: *running* until it is over."""

    def answer(asked: Asked) -> object:
        job = job_in(asked.path)
        if not asked.is_over(job):
            return {**running, id_field: job}
        return {**(done(asked) if callable(done) else done), id_field: job}

    return Route(begins, answer)


def job_in(path: str) -> str:
    """Return the id of the job in a path."""
    found = re.search(r"ls_\w+", path)
    assert found, path
    return found[0]


def page_routes(
    begins: str, *, alone: str, cursor: str, page: Callable[[Sequence[str], str | None], object]
) -> tuple[Route, Route]:
    """Return the routes of a list of 10,000 jobs.

    Args:
        begins: The first line of a request for any page.
        alone: That of one with a cursor that begins with "t", which is always the same page, and the last.
        cursor: The parameter for the cursor, which is the number of items before the page, or the id of the last.
        page: Returns the body, for the ids of a page and the cursor of the next.
    """

    def answer(asked: Asked) -> object:
        start = page_number(asked.path, cursor)
        return page(ids_after(start), str(start + PAGE) if start + PAGE < ITEMS else None)

    return Route(begins, answer, is_kept=True), Route(alone, page(ids_after(0), None))


def ids_after(start: int) -> list[str]:
    """Return the ids of a page of jobs, numbered from 1."""
    return [f"ls_{start + n:024}" for n in range(1, PAGE + 1)]
