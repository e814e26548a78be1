"""`heygen-async webhook`: webhook endpoints, the history of events, and a listener."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

from cyclopts import App, Parameter

from heygen_async._arguments import check_callback_url, check_text
from heygen_async._ids import check_key, segment
from heygen_async._wire import Parameter as QueryParameter
from heygen_async.cli.advice import advising_on_doubt, advising_on_output, advising_on_port
from heygen_async.cli.confirm import confirm
from heygen_async.cli.exits import Exit
from heygen_async.cli.number_flags import PageSize, Port
from heygen_async.cli.options import Options, Printing, Switch, session
from heygen_async.cli.output import emit, emit_one_of_many, emit_page, note, to_json
from heygen_async.cli.problems import Problems, check_texts
from heygen_async.cli.streams import check_output, is_output_lost
from heygen_async.models import JSON, WebhookEvent
from heygen_async.sandbox.address import Address
from heygen_async.webhooks import WebhookReceiver

_ENDPOINTS: Final = "/v3/webhooks/endpoints"
_SHUTDOWN_SECONDS: Final = 0.5
"""How long the listener waits for open connections when it ends."""

EndpointId = Annotated[str, Parameter(name="ID")]
Events = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="", metavar="TYPE...")]

app: Final = App(name="webhook", help="Manage webhook endpoints, and listen to events.")
endpoints: Final = App(name="endpoints", help="Create, list, change and delete webhook endpoints.")
app.command(endpoints)


class MissingSecret(ValueError):
    """There is no secret in the environment."""

    hint = "export HEYGEN_WEBHOOK_SECRET=whsec_...   (or accept unsigned deliveries: --unsigned)"


@app.command
async def listen(
    *,
    port: Port = 8000,
    host: str = "127.0.0.1",
    unsigned: Switch = False,
    options: Printing = Printing(),  # noqa: B008 frozen
) -> None:
    """Print events as HeyGen delivers them, until Ctrl-C: as JSON, one per line.

    Any path is accepted. Deliveries that are not signed with a secret in HEYGEN_WEBHOOK_SECRET (several are separated
    by commas) are refused, and repeated deliveries are printed once. It needs no API key.

    Example: heygen-async webhook listen --port 8000

    Args:
        port: The port to listen on.
        host: The address to listen on; 0.0.0.0 is every address of this machine.
        unsigned: Accept deliveries without a signature: anybody can send them.
    """
    _check_host(host)
    lost = asyncio.Event()

    def show(event: WebhookEvent) -> None:
        emit_one_of_many({"data": _as_delivered(event)}, options)
        if is_output_lost():
            lost.set()
        check_output()  # an event that a full disk did not take is delivered again

    receiver = WebhookReceiver(secret=None if unsigned else _secrets(), on_event=show)
    async with _serving(receiver, host, port) as url:
        note(f"listening on {url}", options)
        await lost.wait()


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
    """Create an endpoint that HeyGen delivers events to. Its secret is printed now and never again.

    Example: heygen-async webhook endpoints create https://app.example.com/heygen --events batch.finished

    Args:
        url: The address; https.
        events: The event types to deliver; all without it.
        entity_id: Deliver the events of this entity only.
        idempotency_key: A key of your own: within 24 h the API answers a used key with the first endpoint.
    """
    _check(url, "URL", events, entity_id=entity_id, idempotency_key=idempotency_key)
    body = _given(url=url, events=events, entity_id=entity_id)
    async with session(options) as heygen:
        with advising_on_doubt("it may have been created"):
            answer = await heygen.request("POST", _ENDPOINTS, json=body, idempotency_key=idempotency_key)
        _emit_secret(answer.data, options)


@endpoints.command(name="list")
async def list_(
    *,
    limit: PageSize = 10,
    token: str | None = None,
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Print the webhook endpoints, newest first.

    Example: heygen-async webhook endpoints list

    Args:
        limit: Endpoints in a page, 1 to 100.
        token: The page to start at: the next_token of the page before.
    """
    check_texts(token=token)
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
    """Change the address or the events of an endpoint, and print it.

    Example: heygen-async webhook endpoints update we_1 --events batch.finished

    Args:
        endpoint_id: The endpoint.
        url: The new address; https.
        events: All event types to deliver from now on.
    """
    path, body = _path(endpoint_id), _given(url=url, events=events)
    _check(url, "--url", events)
    if not body:
        raise ValueError("nothing to update: give --url or --events")
    async with session(options) as heygen:
        emit((await heygen.request("PATCH", path, json=body)).data, options)


@endpoints.command
def delete(
    endpoint_id: EndpointId,
    /,
    *,
    force: Annotated[Switch, Parameter(name=("--force", "-f"))] = False,
    options: Options = Options(),  # noqa: B008 frozen
) -> int | Coroutine[Any, Any, int]:
    """Delete an endpoint permanently, after confirmation.

    Example: heygen-async webhook endpoints delete we_1 --force

    Args:
        endpoint_id: The endpoint.
        force: Delete without confirmation; needed where the input is not a terminal.
    """
    path = _path(endpoint_id)
    if not force and not confirm(f"Delete {endpoint_id} permanently?"):
        note("nothing was deleted", options)
        return Exit.FAILED
    return _delete(endpoint_id, path, options)


async def _delete(endpoint_id: str, path: str, options: Options) -> Exit:
    async with session(options) as heygen:
        answer = (await heygen.request("DELETE", path)).data
    emit({"data": {"endpoint_id": endpoint_id}} if answer is None else answer, options)
    note(f"deleted {endpoint_id}", options)
    return Exit.DONE


@endpoints.command
async def rotate(
    endpoint_id: EndpointId,
    /,
    *,
    idempotency_key: str | None = None,
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Replace the secret of an endpoint. The new secret is printed now and never again.

    Repeated deliveries may still be signed with the old secret: let the receiver accept both for a day.

    Example: heygen-async webhook endpoints rotate we_1

    Args:
        endpoint_id: The endpoint.
        idempotency_key: A key of your own, to run it again after an error without rotating twice.
    """
    path = f"{_path(endpoint_id)}/rotate-secret"
    _check(None, "", None, idempotency_key=idempotency_key)
    async with session(options) as heygen:
        with advising_on_doubt("the secret may have been replaced"):
            answer = await heygen.request("POST", path, idempotency_key=idempotency_key)
        _emit_secret(answer.data, options)


@app.command
async def event_types(*, options: Options = Options()) -> None:  # noqa: B008 frozen
    """Print the event types that the API has.

    Example: heygen-async webhook event-types
    """
    await _page("/v3/webhooks/event-types", {}, options)


@app.command
async def events(
    *,
    event_type: str | None = None,
    entity_id: str | None = None,
    limit: PageSize = 10,
    token: str | None = None,
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Print the history of events, newest first, delivered or not.

    Example: heygen-async webhook events --event-type batch.finished

    Args:
        event_type: Only events of this type.
        entity_id: Only events of this entity, such as a lipsync.
        limit: Events in a page, 1 to 100.
        token: The page to start at: the next_token of the page before.
    """
    check_texts(event_type=event_type, entity_id=entity_id, token=token)
    params: dict[str, QueryParameter] = {"event_type": event_type, "entity_id": entity_id}
    await _page("/v3/webhooks/events", {**params, "limit": limit, "token": token}, options)


def _check_host(host: str) -> None:
    """Check the address to listen on: an empty one would be every address.

    Raises:
        BadArguments: If it is wrong.
    """
    problems = Problems()
    with problems.at("--host"):
        check_text("host", host)
    problems.check()


def _check(
    url: str | None,
    place: str,
    events: Sequence[str] | None,
    *,
    entity_id: str | None = None,
    idempotency_key: str | None = None,
) -> None:
    """Check what is sent of an endpoint as the library does.

    Raises:
        BadArguments: If something of it is wrong.
    """
    problems = Problems()
    with problems.at(place):
        check_callback_url("url", url)
    if events is not None and not events:
        problems.add("--events", "needs a value")
    with problems.at("--events"):
        for event in events or ():
            check_text("events", event)
    with problems.at("--entity-id"):
        check_text("entity_id", entity_id)
    if idempotency_key is not None:
        with problems.at("--idempotency-key"):
            check_key(idempotency_key)
    problems.check()


def _emit_secret(answer: JSON, options: Options) -> None:
    """Print an *answer* with a secret; where the output cannot be written, it is in the hint of the error."""
    with advising_on_output(f"store the secret for your receiver, it is not shown again: {to_json(answer)}"):
        emit(answer, options)
    note("store the secret for your receiver: it is not shown again", options)


async def _page(path: str, params: Mapping[str, QueryParameter], options: Options) -> None:
    async with session(options) as heygen:
        page = (await heygen.request("GET", path, params=params)).data
    emit_page(page, options)


def _path(endpoint_id: str) -> str:
    return f"{_ENDPOINTS}/{segment('endpoint_id', endpoint_id)}"


def _given(**fields: JSON) -> dict[str, JSON]:
    return {name: value for name, value in fields.items() if value is not None}


def _secrets() -> list[str]:
    given = os.environ.get("HEYGEN_WEBHOOK_SECRET", "")
    if not (secrets := [secret.strip() for secret in given.split(",") if secret.strip()]):
        raise MissingSecret("there is no secret: set the environment variable HEYGEN_WEBHOOK_SECRET")
    return secrets


def _as_delivered(event: WebhookEvent) -> dict[str, JSON]:
    when = None if event.created_at is None else event.created_at.isoformat()
    return {
        "event_id": event.event_id,
        "event_type": event.event_type,
        "event_data": event.data,
        **_given(created_at=when),
        **event.extra,
    }


@asynccontextmanager
async def _serving(receiver: WebhookReceiver, host: str, port: int) -> AsyncIterator[str]:
    """Serve the receiver while the body runs; yields its URL for this machine."""
    from aiohttp import web  # noqa: PLC0415 only the listener needs a server

    serving = web.AppRunner(web.Application(), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    serving.app.router.add_route("*", "/{path:.*}", receiver.handle)
    await serving.setup()
    try:
        with advising_on_port(port, host):
            await web.TCPSite(serving, host, port).start()
        yield Address.of(serving.addresses[0]).url
    finally:
        await serving.cleanup()
