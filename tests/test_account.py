"""`session.account` against a server that answers as the API does."""

from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from heygen_async import HeyGenSession, NotFound, PermissionDenied

KEY = {"key_id": "key_1", "status": "active", "scopes": ["lipsync:*"], "expires_at": "2027-01-01T00:00:00Z"}
ME = {"username": "u", "billing_type": "wallet", "wallet": {"currency": "credits", "remaining_balance": 12}}
FORBIDDEN = {"error": {"code": "forbidden", "message": "scope account:read is missing"}}


@pytest.fixture
async def session():
    """Return a function that opens a session on a server with these answers, by path."""

    async def start(answers):
        async def answer(request):
            status, body = answers.get(request.path, (404, {"error": {"code": "not_found", "message": "no such call"}}))
            return web.json_response(body, status=status)

        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        server = await stack.enter_async_context(TestServer(app))
        return await stack.enter_async_context(HeyGenSession("key-of-a-test", base_url=str(server.make_url(""))))

    async with AsyncExitStack() as stack:
        yield start


async def test_the_key_of_the_session_has_scopes_and_an_end(session):
    heygen = await session({"/v3/api_keys/self": (200, {"data": KEY})})

    key = await heygen.account.key()

    assert (key.key_id, key.status, key.expires_at.year) == ("key_1", "active", 2027)
    assert key.has_scope("lipsync:write")
    assert not key.has_scope("account:read")


async def test_a_key_without_the_scope_may_not_read_the_account(session):
    heygen = await session({"/v3/users/me": (403, FORBIDDEN), "/v3/api_keys/self": (200, {"data": KEY})})

    with pytest.raises(PermissionDenied, match="account:read"):
        await heygen.account.me()
    assert (await heygen.account.key()).key_id == "key_1"


async def test_an_account_may_not_have_the_call_for_its_key(session):
    heygen = await session({"/v3/users/me": (200, {"data": ME})})

    with pytest.raises(NotFound):
        await heygen.account.key()
    assert (await heygen.account.me()).wallet.currency == "credits"


async def test_the_repr_shows_what_can_be_called_and_no_key(session):
    heygen = await session({})

    assert repr(heygen.account) == "<Accounts: me(), key()>"
    assert "key-of-a-test" not in repr(heygen.webhooks)
