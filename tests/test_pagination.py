"""Lists that come in pages."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from heygen_async import HeyGenSession, Page, Paginator, TransportError, UnexpectedResponse


class Server:
    """Serves the pages it was given, under the cursors "1", "2" and so on, and records the requests."""

    def __init__(self, *pages, last_token=None):
        self.pages = pages
        self.last_token = last_token
        self.requested = []

    async def fetch(self, token):
        self.requested.append(token)
        index = int(token or 0)
        is_last = index == len(self.pages) - 1
        next_token = self.last_token if is_last else str(index + 1)
        return Page(items=list(self.pages[index]), next_token=next_token, has_more=next_token is not None)


async def test_iterating_follows_the_cursor_to_the_end():
    server = Server([1, 2], [3], [4, 5])
    assert [item async for item in Paginator(server.fetch)] == [1, 2, 3, 4, 5]
    assert server.requested == [None, "1", "2"]


async def test_nothing_is_sent_before_it_is_iterated():
    server = Server([1])
    Paginator(server.fetch).pages()
    aiter(Paginator(server.fetch))
    assert server.requested == []


async def test_each_iteration_starts_again():
    server = Server([1], [2])
    paginator = Paginator(server.fetch)
    assert await paginator.collect() == await paginator.collect() == [1, 2]
    assert len(server.requested) == 4


async def test_it_can_start_at_a_cursor():
    server = Server([1], [2], [3])
    assert await Paginator(server.fetch, token="1").collect() == [2, 3]


async def test_an_empty_page_with_a_cursor_goes_on():
    server = Server([], [1], [], [2], [])
    assert await Paginator(server.fetch).collect() == [1, 2]
    assert [len(page.items) async for page in Paginator(server.fetch).pages()] == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("items", [0, 1, 250])
async def test_a_list_of_empty_pages_ends_in_an_error(items):
    server = Server(*[[number] for number in range(items)], *[[] for _ in range(200)])
    with pytest.raises(UnexpectedResponse, match="100 pages in a row have no items"):
        await Paginator(server.fetch).collect()
    assert len(server.requested) == items + 100


async def test_a_few_empty_pages_between_others_are_none():
    server = Server(*[[], []] * 49, [], [1], *[[], []] * 49, [], [2])
    assert await Paginator(server.fetch).collect() == [1, 2]


@pytest.mark.parametrize("token", [None, ""])
async def test_more_pages_without_a_cursor_are_an_error_after_the_items(token):
    async def fetch(_token):
        return Page(items=[1, 2], next_token=token, has_more=True)

    items = aiter(Paginator(fetch))
    assert [await anext(items) for _ in range(2)] == [1, 2]
    for _ in range(2):
        with pytest.raises(UnexpectedResponse, match="there are more pages, but no cursor"):
            await anext(items)
    assert await Paginator(fetch).first() == 1


@pytest.mark.parametrize("token", ["1", "2"])
async def test_a_cursor_that_comes_twice_is_an_error_and_not_a_loop(token):
    server = Server([1], [2], [3], last_token=token)
    items = aiter(Paginator(server.fetch))
    assert [await anext(items) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(UnexpectedResponse, match="the same cursor came twice"):
        await anext(items)
    assert len(server.requested) == 3


@pytest.mark.parametrize(
    ("pages", "found", "requests"),
    [
        ([[1, 2], [1, 2]], [1, 2, 1, 2], 2),
        ([[1], [2], [], [2, 1, 2], [3]], [1, 2, 2, 1, 2], 4),
        ([[1], [1]], [1, 1], 2),
    ],
)
async def test_a_page_of_a_list_with_identities_that_has_nothing_new_is_the_last(pages, found, requests):
    server = Server(*pages, last_token="more")
    items = aiter(Paginator(server.fetch, identity=int))
    assert [await anext(items) for _ in found] == found
    for _ in range(2):
        with pytest.raises(UnexpectedResponse, match="only items of pages before it"):
            await anext(items)
    assert len(server.requested) == requests


async def test_a_last_page_that_has_nothing_new_is_no_error():
    assert await Paginator(Server([1, 2], [2]).fetch, identity=int).collect() == [1, 2, 2]
    assert await Paginator(Server([1, 1], [2, 1], [3]).fetch, identity=int).collect() == [1, 1, 2, 1, 3]


async def test_a_long_list_keeps_few_identities():
    pages = Paginator(Server(*([number] for number in range(1500))).fetch, identity=int).pages()
    assert [page.items async for page in pages] == [[number] for number in range(1500)]
    assert len(pages._items) == 1000


async def test_items_without_an_identity_count_as_new():
    server = Server([None], [None], [None])
    assert await Paginator(server.fetch, identity=lambda item: item).collect() == [None] * 3


LISTS = {
    "lipsyncs": lambda heygen: heygen.lipsyncs.list(),
    "assets": lambda heygen: heygen.assets.list(username="u"),
    "endpoints": lambda heygen: heygen.webhooks.list(),
    "events": lambda heygen: heygen.webhooks.events(),
    "items of a batch": lambda heygen: heygen.lipsyncs.batch("bt_1").items(),
}
ITEM = {
    "id": "x_1", "status": "running", "asset_id": "as_1", "endpoint_id": "ep_1", "event_id": "ev_1", "event_type": "e",
    "item_index": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
async def test_every_list_ends_if_the_server_ignores_the_cursor_and_gives_another_one(name):
    sent = []

    async def answer(request):
        sent.append(request)
        page = {"items": [ITEM], "batch_id": "bt_1", "has_more": True, "next_token": f"t{len(sent)}"}
        return web.json_response({"data": page if "batches" in request.path else [ITEM], **page})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server, HeyGenSession("key", base_url=str(server.make_url("/"))) as heygen:
        with pytest.raises(UnexpectedResponse, match="only items of pages before it"):
            await LISTS[name](heygen).collect()
    assert len(sent) == 2


async def test_leaving_early_costs_one_request_and_leaves_nothing_running():
    server = Server([1, 2], [3])
    async for item in Paginator(server.fetch):
        assert item == 1
        break
    assert server.requested == [None]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_first_item_costs_one_request():
    server = Server([1, 2], [3])
    assert await Paginator(server.fetch).first() == 1
    assert server.requested == [None]


async def test_the_first_of_nothing_is_none():
    assert await Paginator(Server([]).fetch).first() is None


@pytest.mark.parametrize(
    ("limit", "found", "requests"), [(1, [1], 1), (2, [1, 2], 1), (3, [1, 2, 3], 2), (9, [1, 2, 3], 2)]
)
async def test_a_limit_fetches_no_page_that_it_does_not_need(limit, found, requests):
    server = Server([1, 2], [3])
    assert await Paginator(server.fetch).collect(limit=limit) == found
    assert len(server.requested) == requests


@pytest.mark.parametrize(("limit", "kind"), [(0, ValueError), (-1, ValueError), ("3", TypeError), (True, TypeError)])
async def test_a_limit_is_a_whole_number(limit, kind):
    with pytest.raises(kind, match="limit must be"):
        await Paginator(Server([1]).fetch).collect(limit=limit)


async def test_a_page_that_could_not_be_fetched_is_fetched_by_the_next_call():
    server = Server([1], [2])
    failures = [TransportError("gone")]

    async def fetch(token):
        if token == "1" and failures:
            raise failures.pop()
        return await server.fetch(token)

    items = aiter(Paginator(fetch))
    assert await anext(items) == 1
    with pytest.raises(TransportError):
        await anext(items)
    assert await anext(items) == 2


@given(st.lists(st.lists(st.integers(), max_size=5), min_size=1, max_size=8))
def test_any_split_into_pages_gives_the_same_items(pages):
    async def collect():
        return await Paginator(Server(*pages).fetch).collect()

    with asyncio.Runner() as runner:
        assert runner.run(collect()) == [item for page in pages for item in page]
