"""`heygen-async webhook`: whom HeyGen tells of events, what there was to tell, and listening to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Final

from cyclopts import App, Parameter
from cyclopts.validators import Number

from heygen_async._ids import segment
from heygen_async._wire import Parameter as QueryParameter
from heygen_async.cli.asking import confirmed
from heygen_async.cli.options import Options, Switch, session
from heygen_async.cli.output import Exit, emit, note
from heygen_async.models import JSON, WebhookEvent
from heygen_async.webhooks import WebhookReceiver

_ENDPOINTS: Final = "/v3/webhooks/endpoints"

Limit = Annotated[int, Parameter(validator=Number(gte=1, lte=100))]
EndpointId = Annotated[str, Parameter(name="ID")]
Events = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="", metavar="TYPE...")]

app: Final = App(name="webhook", help="Say whom HeyGen tells of events, and listen to it.")
endpoints: Final = App(name="endpoints", help="Make, list, change and delete the addresses that HeyGen tells.")
app.command(endpoints)


class MissingSecret(ValueError):
    """There is no secret in the environment."""

    hint = "export HEYGEN_WEBHOOK_SECRET=whsec_...   (or take in unsigned deliveries too: --unsigned)"


@app.command
async def listen(
    *,
    port: int = 8000,
    host: str = "127.0.0.1",
    unsigned: Switch = False,
    json: Switch = False,
) -> None:
    """Print events as HeyGen delivers them, until Ctrl-C: as JSON, one in a line.

    It takes them in under any path. What was not signed with the secret in HEYGEN_WEBHOOK_SECRET (several are
    separated by commas) is refused, and what comes again is printed once. It needs no API key.

    Example: heygen-async webhook listen --port 8000

    Args:
        port: The port to listen on.
        host: The address to listen on.
        unsigned: Take in anything that looks like an event, whoever sent it.
        json: Print JSON; the default where the output is not a terminal.
    """
    options = Options(json=json)
    receiver = WebhookReceiver(secret=None if unsigned else _secrets())
    async with _serving(receiver, host, port):
        note(f"listening on http://{host}:{port}", options)
        async for event in receiver:
            emit({"data": _as_delivered(event)}, options)


@endpoints.command
async def create(
    url: Annotated[str, Parameter(name="URL")],
    /,
    *,
    events: Events = None,
    entity_id: str | None = None,
    idempotency_key: str | None = None,
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Have HeyGen tell an address of events. The secret that it prints is told this once.

    Example: heygen-async webhook endpoints create https://app.example.com/heygen --events lipsync.success lipsync.fail

    Args:
        url: The address; https.
        events: What to tell it of; everything without it.
        entity_id: The one thing whose events are wanted.
        idempotency_key: A key of your own: within a day the API answers a used one with the first endpoint.
    """
    body = _said(url=url, events=events, entity_id=entity_id)
    async with session(options) as heygen:
        emit((await heygen.request("POST", _ENDPOINTS, json=body, idempotency_key=idempotency_key)).data, options)
    note("keep the secret, for the receiver; it is not told again", options)


@endpoints.command(name="list")
async def list_(
    *,
    limit: Limit = 10,
    token: str | None = None,
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Print the addresses that HeyGen tells, newest first.

    Example: heygen-async webhook endpoints list

    Args:
        limit: How many, 1 to 100.
        token: Where to start: the next_token of the page before.
    """
    await _page(_ENDPOINTS, {"limit": limit, "token": token}, options)


@endpoints.command
async def update(
    endpoint_id: EndpointId,
    /,
    *,
    url: str | None = None,
    events: Events = None,
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Change an address, or what it is told of, and print it.

    Example: heygen-async webhook endpoints update we_1 --events lipsync.fail

    Args:
        endpoint_id: The endpoint.
        url: The new address; https.
        events: All that it is to be told of from now on.
    """
    path, body = _path(endpoint_id), _said(url=url, events=events)
    if not body:
        raise ValueError("there is nothing to update: give --url or --events")
    async with session(options) as heygen:
        emit((await heygen.request("PATCH", path, json=body)).data, options)


@endpoints.command
def delete(
    endpoint_id: EndpointId,
    /,
    *,
    force: Annotated[Switch, Parameter(name=("--force", "-f"))] = False,
    options: Options = Options(),  # noqa: B008 frozen
) -> int:
    """Delete an endpoint: it is told of nothing any more. It asks first.

    Example: heygen-async webhook endpoints delete we_1 --force

    Args:
        endpoint_id: The endpoint.
        force: Do not ask; needed where nobody can answer.
    """
    path = _path(endpoint_id)
    if not force and not confirmed(f"Delete {endpoint_id} for good?"):
        note("nothing was deleted", options)
        return Exit.FAILED
    return asyncio.run(_delete(endpoint_id, path, options))


async def _delete(endpoint_id: str, path: str, options: Options) -> Exit:
    async with session(options) as heygen:
        answer = (await heygen.request("DELETE", path)).data
    emit({"data": {"endpoint_id": endpoint_id}} if answer is None else answer, options)
    return Exit.DONE


@endpoints.command
async def rotate(
    endpoint_id: EndpointId,
    /,
    *,
    idempotency_key: str | None = None,
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Give an endpoint another secret, and print it this once.

    What is delivered again may still be signed with the old one: let the receiver take both for a day.

    Example: heygen-async webhook endpoints rotate we_1

    Args:
        endpoint_id: The endpoint.
        idempotency_key: A key of your own, for running it again after an error without rotating twice.
    """
    path = f"{_path(endpoint_id)}/rotate-secret"
    async with session(options) as heygen:
        emit((await heygen.request("POST", path, idempotency_key=idempotency_key)).data, options)
    note("keep the secret, for the receiver; it is not told again", options)


@app.command
async def event_types(*, options: Options = Options()) -> None:  # noqa: B008 frozen
    """Print the kinds of events that there are.

    Example: heygen-async webhook event-types
    """
    await _page("/v3/webhooks/event-types", {}, options)


@app.command
async def events(
    *,
    event_type: str | None = None,
    entity_id: str | None = None,
    limit: Limit = 10,
    token: str | None = None,
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Print what has happened, newest first, delivered or not.

    Example: heygen-async webhook events --event-type lipsync.fail

    Args:
        event_type: Only events of this type.
        entity_id: Only events of this thing, such as a lipsync.
        limit: How many, 1 to 100.
        token: Where to start: the next_token of the page before.
    """
    told: dict[str, QueryParameter] = {"event_type": event_type, "entity_id": entity_id}
    await _page("/v3/webhooks/events", {**told, "limit": limit, "token": token}, options)


async def _page(path: str, params: Mapping[str, QueryParameter], options: Options) -> None:
    async with session(options) as heygen:
        page = (await heygen.request("GET", path, params=params)).data
    emit(page, options)
    if isinstance(page, Mapping) and (following := page.get("next_token")):
        note(f"there are more: --token {following}", options)


def _path(endpoint_id: str) -> str:
    return f"{_ENDPOINTS}/{segment('endpoint_id', endpoint_id)}"


def _said(**fields: JSON) -> dict[str, JSON]:
    return {name: value for name, value in fields.items() if value is not None}


def _secrets() -> list[str]:
    told = os.environ.get("HEYGEN_WEBHOOK_SECRET", "")
    if not (secrets := [secret.strip() for secret in told.split(",") if secret.strip()]):
        raise MissingSecret("there is no secret: set the environment variable HEYGEN_WEBHOOK_SECRET")
    return secrets


def _as_delivered(event: WebhookEvent) -> dict[str, JSON]:
    when = None if event.created_at is None else event.created_at.isoformat()
    return {
        "event_id": event.event_id,
        "event_type": event.event_type,
        "event_data": event.data,
        **_said(created_at=when),
        **event.extra,
    }


@asynccontextmanager
async def _serving(receiver: WebhookReceiver, host: str, port: int) -> AsyncIterator[None]:
    from aiohttp import web  # noqa: PLC0415 only who listens needs a server

    serving = web.AppRunner(web.Application(), access_log=None)
    serving.app.router.add_route("*", "/{path:.*}", receiver.handle)
    await serving.setup()
    try:
        await web.TCPSite(serving, host, port).start()
        yield
    finally:
        await serving.cleanup()
