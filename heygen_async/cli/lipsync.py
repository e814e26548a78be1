"""`heygen-async lipsync`: create, get, list, wait for, download, rename and delete lipsyncs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Parameter

from heygen_async.cli.advice import advising
from heygen_async.cli.confirm import confirm
from heygen_async.cli.create import create
from heygen_async.cli.exits import Exit
from heygen_async.cli.number_flags import PageSize
from heygen_async.cli.options import Options, Switch, WaitOptions, session
from heygen_async.cli.output import emit, emit_page, next_token, note
from heygen_async.cli.output_flags import OutputFlags, Target
from heygen_async.cli.problems import Problems, check_texts
from heygen_async.cli.wait import check_connection, how_to_continue, path_of, wait_for
from heygen_async.errors import UnexpectedResponse
from heygen_async.models import JSON, check_title
from heygen_async.pagination import Page, Paginator

if TYPE_CHECKING:
    from heygen_async import HeyGenSession

_LIST: Final = "/v3/lipsyncs"
_PAGE: Final = 10
_LARGEST_PAGE: Final = 100

app: Final = App(name="lipsync", help="Create, get, list, wait for, download, rename and delete lipsyncs.")
app.command(create)


@app.command
async def get(
    lipsync_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Print a lipsync, with a fresh link if it is finished.

    Example: heygen-async lipsync get ls_abc123

    Args:
        lipsync_id: The lipsync.
    """
    path = path_of(lipsync_id)
    async with session(options) as heygen:
        emit((await heygen.request("GET", path)).data, options)


@app.command(name="list")
async def list_(
    *,
    limit: PageSize | None = None,
    token: str | None = None,
    all_: Annotated[Switch, Parameter(name="--all")] = False,
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Print the lipsyncs of the account, newest first: one page, or all with --all.

    Example: heygen-async lipsync list --limit 10

    Args:
        limit: Lipsyncs in a page, 1 to 100; 10 without it.
        token: The page to start at: the next_token of the page before.
        all_: Follow the pages to the end, and print all lipsyncs as one list.
    """
    check_texts(token=token)
    size = limit or (_LARGEST_PAGE if all_ else _PAGE)
    async with session(options) as heygen:
        if all_:
            emit(await _whole_list(heygen, size, token), options)
            return
        page = (await heygen.request("GET", _LIST, params={"limit": size, "token": token})).data
    emit_page(page, options, more="; all pages: --all")


@app.command
async def update(
    lipsync_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    title: str,
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Rename a lipsync, and print it.

    Example: heygen-async lipsync update ls_abc123 --title "Episode 1, French"

    Args:
        lipsync_id: The lipsync.
        title: Its new title.
    """
    path = path_of(lipsync_id)
    problems = Problems()
    with problems.at("--title"):
        check_title("title", title)
    problems.check()
    async with session(options) as heygen:
        emit((await heygen.request("PATCH", path, json={"title": title})).data, options)


@app.command
def delete(
    lipsync_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    force: Annotated[Switch, Parameter(name=("--force", "-f"))] = False,
    options: Options = Options(),  # noqa: B008 frozen
) -> int | Coroutine[Any, Any, int]:
    """Delete a lipsync permanently, after confirmation.

    Example: heygen-async lipsync delete ls_abc123 --force

    Args:
        lipsync_id: The lipsync.
        force: Delete without confirmation; needed where the input is not a terminal.
    """
    path = path_of(lipsync_id)
    # Confirmed before the event loop runs: there a signal would wait for the answer.
    if not force and not confirm(f"Delete {lipsync_id} permanently?"):
        note("nothing was deleted", options)
        return Exit.FAILED
    return _delete(lipsync_id, path, options)


async def _delete(lipsync_id: str, path: str, options: Options) -> Exit:
    async with session(options) as heygen:
        answer = (await heygen.request("DELETE", path)).data
    emit({"data": {"id": lipsync_id}} if answer is None else answer, options)
    note(f"deleted {lipsync_id}", options)
    return Exit.DONE


@app.command
async def wait(
    *lipsync_ids: Annotated[str, Parameter(name="ID", required=True)],
    waiting: WaitOptions = WaitOptions(),  # noqa: B008 frozen
    options: Options = Options(),  # noqa: B008 frozen
) -> int:
    """Wait for lipsyncs, and print each when it ends: as JSON, one per line.

    At a timeout it prints the status of the others, and exits with 4.

    Example: heygen-async lipsync wait ls_abc123 --timeout 30m

    Args:
        lipsync_ids: The lipsyncs.
    """
    for lipsync_id in lipsync_ids:
        path_of(lipsync_id)
    async with session(options, polling=waiting.polling) as heygen:
        await check_connection(heygen, lipsync_ids[0])
        return await wait_for(heygen, lipsync_ids, options, timeout=waiting.timeout)


@app.command
def download(
    lipsync_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    output: Target = ".",
    captions: Switch = False,
    overwrite: Switch = False,
    options: Options = Options(),  # noqa: B008 frozen
) -> Coroutine[Any, Any, None]:
    """Write the video of a completed lipsync to a file; an interrupted download is resumed.

    Example: heygen-async lipsync download ls_abc123 -o episode-1.mp4

    Args:
        lipsync_id: The lipsync.
        output: The file; or a folder, for a file named after the title.
        captions: Write the captions too, as .srt beside the video.
        overwrite: Replace files that exist.
    """
    path_of(lipsync_id)
    delivery = OutputFlags(output, overwrite=overwrite, captions=captions)
    problems = Problems()
    problems.add("--output", *delivery.problems(lipsync_id))
    problems.check()
    return _download(lipsync_id, delivery, options)


async def _download(lipsync_id: str, delivery: OutputFlags, options: Options) -> None:
    begun = asyncio.Event()
    async with session(options) as heygen:
        with advising(f"to resume it: {delivery.command(lipsync_id, options)}", helps=begun.is_set):
            lipsync = await heygen.lipsyncs.get(lipsync_id)
            with nullcontext() if lipsync.is_terminal else advising(how_to_continue([lipsync_id], options)):
                path = await delivery.download(heygen, lipsync, options, begun=begun.set)
    emit({"data": {"id": lipsync_id, "path": str(path)}}, options)


def _own_id(item: JSON) -> object:
    own_id = item.get("id") if isinstance(item, dict) else None
    return own_id if isinstance(own_id, str) else None


async def _whole_list(heygen: HeyGenSession, size: int, token: str | None) -> JSON:
    async def page(cursor: str | None) -> Page[JSON]:
        answer = (await heygen.request("GET", _LIST, params={"limit": size, "token": cursor})).data
        return _page(answer)

    return {
        "data": await Paginator(page, token=token, identity=_own_id).collect(),
        "has_more": False,
        "next_token": None,
    }


def _page(answer: JSON) -> Page[JSON]:
    match answer:
        case {"data": list(items), **others}:
            has_more = others.get("has_more") is True
        case _:
            raise UnexpectedResponse(["not a list @ $.data"], status=200)
    try:
        return Page(items=items, next_token=next_token(answer), has_more=has_more)
    except TypeError:
        raise UnexpectedResponse(["invalid type for field, expected str @ $.next_token"], status=200) from None
