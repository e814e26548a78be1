"""`session.account` against a server that answers as the API does."""

from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from heygen_async import HeyGenSession, NotFound, PermissionDenied
from heygen_async.sandbox import Sandbox

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


@pytest.mark.parametrize("billing", ["wallet", "subscription", "usage_based"])
async def test_the_sandbox_bills_in_every_way(billing):
    settings = {"billing": billing, "currency": "credits", "balance": 50.0, "key_seconds": 3600}
    async with Sandbox(**settings) as sandbox, HeyGenSession(sandbox.api_key, base_url=sandbox.url) as heygen:
        account, key = await heygen.account.me(), await heygen.account.key()

    left = {
        "wallet": lambda: account.wallet.remaining_balance,
        "subscription": lambda: account.subscription.credits.premium_credits.remaining,
        "usage_based": lambda: account.usage_based.remaining_credits,
    }
    assert account.billing_type == billing
    assert left[billing]() == 50.0
    assert [getattr(account, other) for other in left if other != billing] == [None, None]
    assert key.has_scope("lipsync:write")
    assert key.expires_at > key.created_at
    assert 0 < key.expires_in_seconds <= 3600


async def test_a_key_that_may_only_dub_has_that_scope_alone():
    async with (
        Sandbox(scopes=["lipsync:write"]) as sandbox,
        HeyGenSession(sandbox.api_key, base_url=sandbox.url) as heygen,
    ):
        key = await heygen.account.key()
        with pytest.raises(PermissionDenied):
            await heygen.account.me()

    assert (key.has_scope("lipsync:write"), key.has_scope("account:read")) == (True, False)
