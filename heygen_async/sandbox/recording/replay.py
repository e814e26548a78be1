"""Answers from recordings: which recorded exchange answers a request, and what of it is made usable again.

Rule 1: writes are answered in the order in which they were recorded, each recording once; then the sandbox answers.
What a program repeated under its idempotency key got the same job again: that was one write.
Rule 2: reads are answered with the last success that was recorded for them, so a job is in its final state at once.
However a program groups the ids of a status request, each recorded id has its last recorded state. A job whose delete
has been repeated is gone. The list of jobs is as it was before the first write that has not been repeated yet: it shows
no job that is still to be created.
Rule 3: bodies are compared as they are recorded, masked; a source counts only by its type, for assets get new ids.
Rule 4: uploads, assets, endpoints of webhooks and media are always the sandbox's own. A recorded job is none of the
sandbox's: it is not in `Sandbox.jobs`, costs nothing, and has no callback.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias

import orjson
from attrs import evolve, frozen

from heygen_async.sandbox.error_answers import ErrorAnswer
from heygen_async.sandbox.http.calls import Call, CallAnswer, Handler
from heygen_async.sandbox.recording.exchange import Exchange
from heygen_async.sandbox.recording.masking import HOST, ExchangeMask

STATUSES: Final = "GET /v3/lipsyncs/statuses"
_LIST: Final = "GET /v3/lipsyncs"
_ONE: Final = "GET /v3/lipsyncs/{lipsync_id}"
_WRITES: Final = frozenset(
    {"POST /v3/lipsyncs", "POST /v3/lipsyncs/batches"}
    | {"PATCH /v3/lipsyncs/{lipsync_id}", "DELETE /v3/lipsyncs/{lipsync_id}"}
)
_READS: Final = frozenset(
    {_ONE, "GET /v3/lipsyncs/batches/{batch_id}", "GET /v3/webhooks/event-types"}
    | {"GET /v3/webhooks/events", "GET /v3/api_keys/self", "GET /v3/users/me"}
)
_SUCCESSES, _REDIRECTS, _ERRORS, _LAST = 200, 300, 400, 599
_IDS: Final = frozenset({"id", "lipsync_id", "video_id", "batch_id"})
"""The fields that hold the id of a lipsync or a batch."""
_IN_STATUSES: Final = {"pending": "queued", "running": "processing"}
"""The words of a status request for those of a single lipsync."""

Key: TypeAlias = tuple[str, str, bytes, bytes]
Link: TypeAlias = Callable[[str, str], str]


@frozen
class RecordedError(ErrorAnswer):
    """An error that was recorded, with its own body."""

    body: object = None

    def envelope(self) -> dict[str, object]:
        """Return the body as it was recorded, or the sandbox's own if it was no JSON object."""
        return self.body if isinstance(self.body, dict) else super().envelope()


class Replay:
    """The recordings that requests are answered from.

    Args:
        exchanges: The recordings, in their order.
        link: Returns a link that works for the extension of a masked one, `.mp4` or `.srt`, and an origin.
    """

    def __init__(self, exchanges: Iterable[Exchange], link: Link) -> None:
        self._link = link
        self._waiting: dict[Key, deque[Exchange]] = {}
        self._reads: dict[Key, Exchange] = {}
        self._lists: dict[Key, list[Exchange]] = {}
        self._states: dict[str, Mapping[str, object]] = {}
        self._created: set[str] = set()
        for exchange in exchanges:
            self._add(exchange)

    def _add(self, exchange: Exchange) -> None:
        if exchange.status is None or not _can_be_repeated(exchange.status, exchange.answer.json):
            return
        self._states.update(_states(exchange))
        key = _key(exchange.method, exchange.path, exchange.query, exchange.request.json)
        if exchange.route in _WRITES:
            created = _created(exchange)
            if created is None or created not in self._created:
                self._waiting.setdefault(key, deque()).append(exchange)
            if created is not None:
                self._created.add(created)
        elif exchange.route == _LIST and exchange.status < _ERRORS:
            self._lists.setdefault(key, []).append(exchange)
        elif exchange.route in _READS and (exchange.status < _ERRORS or key not in self._reads):
            self._reads[key] = exchange

    @property
    def unused(self) -> list[Exchange]:
        """The writes that were recorded and have not been repeated, in their order."""
        return sorted((one for waiting in self._waiting.values() for one in waiting), key=lambda one: one.number)

    def find(self, route: str, path: str, call: Call) -> Exchange | None:
        """Return the recording that answers *call*; a write is used up by it."""
        if not (self._waiting or self._reads or self._lists):
            return None  # most sandboxes have no recordings
        key = _key(route.partition(" ")[0], path, call.query, call.body)
        if route in _WRITES:
            return self._write(key)
        if route == _LIST:
            return self._list(key)
        return self._reads.get(key) if route in _READS else None

    def _write(self, key: Key) -> Exchange | None:
        waiting = self._waiting.get(key)
        if not waiting:
            return None
        exchange = waiting.popleft()
        if exchange.method == "DELETE" and (exchange.status or 0) < _ERRORS:
            self._forget(exchange.path)
        return exchange

    def _forget(self, path: str) -> None:
        """Leave what is asked about a lipsync to the sandbox, which does not have it."""
        self._states.pop(path.rpartition("/")[2], None)
        for key in [key for key in self._reads if key[1] == path]:
            del self._reads[key]

    def _list(self, key: Key) -> Exchange | None:
        unused = self.unused
        end = unused[0].number if unused else math.inf
        return next((one for one in reversed(self._lists.get(key, ())) if one.number < end), None)

    def answer(self, exchange: Exchange, origin: str) -> CallAnswer:
        """Return the recorded answer; *origin* is that of its links.

        Raises:
            RecordedError: If it is an error.
        """
        status, body = exchange.status or 0, self._with_links(exchange.answer.json, origin)
        if status < _ERRORS and isinstance(body, dict):
            return CallAnswer(body, status)
        seconds = exchange.answer.headers.get("retry-after", "")
        delay = float(seconds) if seconds.isdecimal() else None
        raise RecordedError(status, "recorded", "This answer was recorded without its body.", None, delay, body=body)

    def statuses(self, call: Call, handler: Handler) -> CallAnswer:
        """Return the answer to a status request: recorded states, and the sandbox's own for other ids."""
        ids = call.query.get("lipsync_ids", "").split(",")
        rows = [self._states[id_] for id_ in ids if id_ in self._states]
        if not rows:
            return handler(call)
        rest = {**call.query, "lipsync_ids": ",".join(id_ for id_ in ids if id_ not in self._states)}
        if rest["lipsync_ids"] or rest.get("batch_ids"):
            others = handler(evolve(call, query=rest)).payload["data"]
            rows += others if isinstance(others, list) else []
        return CallAnswer({"data": rows, "has_more": False, "next_token": None})

    def _with_links(self, value: object, origin: str) -> object:
        match value:
            case dict():
                return {name: self._with_links(inner, origin) for name, inner in value.items()}
            case list():
                return [self._with_links(inner, origin) for inner in value]
            case str() if value.startswith(f"https://{HOST}/"):
                _, dot, extension = value.partition("?")[0].rpartition("/")[2].partition(".")
                return self._link(f"{dot}{extension}", origin)
            case _:
                return value


def recorded_ids(exchanges: Iterable[Exchange]) -> frozenset[str]:
    """Return the ids of recorded jobs and batches: a new one must not have the id of one that is answered for."""
    return frozenset(found for exchange in exchanges for found in _ids(exchange.answer.json))


def _ids(value: object) -> Iterator[str]:
    match value:
        case dict():
            yield from (inner for name, inner in value.items() if name in _IDS and isinstance(inner, str))
            for inner in value.values():
                yield from _ids(inner)
        case list():
            for inner in value:
                yield from _ids(inner)


def _can_be_repeated(status: int, body: object) -> bool:
    """Return whether an answer is an error, or a success of the API's: the page of a gateway was not recorded."""
    return _ERRORS <= status <= _LAST or (_SUCCESSES <= status < _REDIRECTS and isinstance(body, dict))


def _created(exchange: Exchange) -> str | None:
    """Return the id of the job or the batch that a request has created; `None` if it has created none."""
    match exchange.answer.json if exchange.method == "POST" else None:
        case {"data": {"batch_id": str(created)}} | {"data": {"lipsync_id": str(created)}}:
            return created
    return None


def _states(exchange: Exchange) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the lipsyncs in an answer, by id, as a status request returns them."""
    body = exchange.answer.json
    data = body.get("data") if isinstance(body, dict) else None
    if exchange.route == STATUSES:
        for row in data if isinstance(data, list) else ():
            if isinstance(row, dict) and isinstance(row.get("video_id"), str) and row.get("status") != "not_found":
                yield row["video_id"], row
    elif exchange.route == _ONE and isinstance(data, dict) and isinstance(data.get("id"), str):
        word = str(data.get("status"))
        yield data["id"], {"video_id": data["id"], "status": _IN_STATUSES.get(word, word)}


def _key(method: str, path: str, query: Mapping[str, str], body: object) -> Key:
    mask = ExchangeMask("")
    given = [mask.query(query), _comparable(mask.body(body or None))]
    params, content = (orjson.dumps(value, option=orjson.OPT_SORT_KEYS) for value in given)
    return method, path, params, content


def _comparable(body: object) -> object:
    match body:
        case {"type": "url" | "asset_id" as kind}:
            return {"type": kind}
        case dict():
            return {name: _comparable(value) for name, value in body.items()}
        case list():
            return [_comparable(value) for value in body]
        case _:
            return body
