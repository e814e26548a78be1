"""Models returned by the endpoints of a FastAPI application."""

import pytest

pytest.importorskip("fastapi")

import fastapi
import httpx
import pydantic

from heygen_async import Account, Lipsync, LipsyncStatus, Secret, Wallet, WebhookEndpoint

LIPSYNC = Lipsync(id="ls_1", status=LipsyncStatus.RUNNING, video_url="https://files/v.mp4?sig=1", extra={"new": [1]})
ENDPOINT = WebhookEndpoint(id="we_1", secret=Secret("whsec_1"))
ACCOUNT = Account(username="u", wallet=Wallet(currency="credits", remaining_balance=1.5))

app = fastapi.FastAPI()


class Page(pydantic.BaseModel):
    items: list[Lipsync]
    account: Account | None = None


@app.get("/bare/lipsync")
async def bare_lipsync():
    return LIPSYNC


@app.get("/bare/list")
async def bare_list():
    return {"items": [LIPSYNC], "endpoint": ENDPOINT}


@app.get("/dict")
async def as_dict():
    return LIPSYNC.to_dict()


@app.get("/typed/lipsync")
async def typed_lipsync() -> Lipsync:
    return LIPSYNC


@app.get("/typed/list")
async def typed_list() -> list[Lipsync]:
    return [LIPSYNC]


@app.get("/typed/endpoint", response_model=WebhookEndpoint)
async def typed_endpoint():
    return ENDPOINT


@app.get("/typed/page")
async def typed_page() -> Page:
    return Page(items=[LIPSYNC], account=ACCOUNT)


async def get(path, application=app):
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        answer = await client.get(path)
    assert answer.status_code == 200
    return answer.json()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/bare/lipsync", LIPSYNC.to_dict()),
        ("/bare/list", {"items": [LIPSYNC.to_dict()], "endpoint": ENDPOINT.to_dict()}),
        ("/dict", LIPSYNC.to_dict()),
        ("/typed/lipsync", LIPSYNC.to_dict()),
        ("/typed/list", [LIPSYNC.to_dict()]),
        ("/typed/endpoint", ENDPOINT.to_dict()),
        ("/typed/page", {"items": [LIPSYNC.to_dict()], "account": ACCOUNT.to_dict()}),
    ],
)
async def test_an_endpoint_can_return_a_model(path, expected):
    assert await get(path) == expected


async def test_the_documentation_of_an_application_knows_the_models():
    schema = await get("/openapi.json")

    answer = schema["paths"]["/typed/lipsync"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer["type"] == "object"
    items = schema["components"]["schemas"]["Page"]["properties"]["items"]["items"]
    assert items == {"title": "Lipsync", "type": "object"}


async def test_an_endpoint_can_return_a_job_of_the_api(heygen):
    application = fastapi.FastAPI()

    @application.get("/jobs/{lipsync_id}")
    async def job(lipsync_id: str) -> Lipsync:
        return await heygen.lipsyncs.get(lipsync_id)

    created = await heygen.lipsyncs.create(video="https://example.com/v.mp4", audio="https://example.com/a.mp3")
    returned = await get(f"/jobs/{created.id}", application)

    assert returned["id"] == created.id
    assert returned["created_at"].endswith("+00:00")


def test_a_pydantic_model_refuses_what_is_not_the_model():
    with pytest.raises(pydantic.ValidationError):
        Page(items=[{"id": "ls_1"}])
