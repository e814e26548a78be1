"""A network in memory: a connector for aiohttp whose connections lead to a simulated server.

This is the lowest seam that aiohttp offers: everything of the client down to the bytes on a connection is real. Between
the two ends a request or an answer can be lost, late, doubled, cut or replaced; requests that have left arrive even if
the client dies meanwhile.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from attrs import field, frozen

from .universe import Universe

PIECE = 700
"""Bytes of a body that arrive at once."""


@frozen
class HttpRequest:
    """A request, as the server received it."""

    method: str
    target: str
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes = field(repr=False)
    host: str = ""
    """Where it was sent."""

    @property
    def name(self) -> tuple[str, str, str | None]:
        """What it has in common with its repetitions."""
        return self.method, self.target, self.headers.get("idempotency-key")

    life: object = None
    """Whose connection it came on."""


@frozen
class HttpAnswer:
    """An answer, as the server sends it."""

    status: int
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(factory=dict)

    def encode(self) -> bytes:
        """Return its bytes."""
        headers = {"Content-Length": str(len(self.body)), **self.headers}
        lines = [f"HTTP/1.1 {self.status} -", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


Reply = Callable[[HttpAnswer], None]


class Server(Protocol):
    """What is at the other end."""

    def route(self, request: HttpRequest) -> str:
        """Return the name of the route of a request, for faults."""
        ...

    def handle(self, request: HttpRequest, reply: Reply) -> None:
        """Work on a request, and call *reply* at some time."""
        ...


@frozen
class Mishap:
    """What goes wrong with one request."""

    effect: str
    """See `Line.arrive`."""
    value: float = 0.0


class Network:
    """All connections of one life.

    Args:
        universe: Where it is.
        server: The server.
        mishaps: What goes wrong, by route and number of the request on that route, from 1.
        life: Told to the server with each request.
        disturb: Called with a request during which people change files, and how.
    """

    def __init__(
        self,
        universe: Universe,
        server: Server,
        mishaps: Mapping[tuple[str, int], Mishap],
        *,
        life: object,
        disturb: Callable[[HttpRequest, str], None],
    ) -> None:
        self.universe = universe
        self.server = server
        self.life = life
        self.disturb = disturb
        self.counts: Counter[str] = Counter()
        self.not_before: dict[object, float] = {}
        """Until when the service has asked the client to wait with each request."""
        self.is_shared = False
        """Whether several processes use it."""
        self.refused: set[object] = set()
        """The names of requests that were refused."""
        self.excused: set[str] = set()
        """The keys of rows that another process has taken over: it does not know how long to wait with them."""
        self.problems: list[str] = []
        """Requests that came too early."""
        self.lines: list[Line] = []
        self.outages: dict[str, Mishap] = {}
        """What goes wrong with all requests on a route, for a while; the route "" is all of them."""
        self.during_outages: list[tuple[str, float]] = []
        """The requests during outages: the route of each, and when it was sent."""
        self._mishaps = mishaps

    def seconds(self) -> float:
        """Return how long something is on its way."""
        return 0.01 + 0.1 * self.universe.random.random() ** 3

    def mishap(self, route: str) -> Mishap | None:
        """Return what goes wrong with the next request on *route*."""
        self.counts[route] += 1
        outage = self.outages.get(route) or self.outages.get("")
        if outage is not None and route != "connection":
            self.during_outages.append((route, self.universe.now))
            return outage
        return self._mishaps.get((route, self.counts[route]))

    def cut(self) -> None:
        """Break all connections, as when the machine wakes up in another network."""
        for line in self.lines:
            line.fail()

    def die(self) -> None:
        """Forget the client: what it has sent is still on its way."""
        for line in self.lines:
            line.die()
        self.lines.clear()

    def leftovers(self) -> list[str]:
        """Return the connections that are open."""
        return [f"a connection to {line.host}" for line in self.lines if not line.is_closing()]

    def connector(self) -> "MemoryConnector":
        """Return a connector for `aiohttp.ClientSession`."""
        return MemoryConnector(self)


class MemoryConnector(aiohttp.BaseConnector):
    """Connections that are in memory."""

    def __init__(self, network: Network) -> None:
        super().__init__(limit=0)
        self.is_down = False
        """Whether nothing gets through."""
        self._network = network

    async def _create_connection(self, req: ClientRequest, traces: object, timeout: object) -> Any:
        network = self._network
        suspended = network.universe.suspended
        await asyncio.sleep(network.seconds())
        mishap = network.mishap("connection")
        # No server waits for hours for the rest of a handshake.
        if self.is_down or mishap is not None or network.universe.suspended > suspended:
            network.universe.note(f"no connection to {req.url.host}:{req.url.port}")
            raise aiohttp.ClientConnectorError(req.connection_key, ConnectionRefusedError(111, "refused"))
        protocol = self._factory()
        protocol.connection_made(Line(network, protocol, f"{req.url.host}:{req.url.port}", client=self))
        return protocol


class Line(asyncio.Transport):
    """One connection, and what is on its way there and back."""

    def __init__(self, network: Network, protocol: asyncio.Protocol, host: str, *, client: MemoryConnector) -> None:
        super().__init__()
        self._client: MemoryConnector | None = client
        self._network = network
        self._universe = network.universe
        self._protocol: asyncio.Protocol | None = protocol
        self.host = host
        self._received = bytearray()
        self._expected: int | None = None
        self._is_closing = False
        self._is_paused = False
        self._held: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        network.lines.append(self)

    # The client's side

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 443) if name == "peername" else default

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        held, self._held = self._held, []
        for data in held:
            self._loop.call_soon(self._deliver, data)

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self._is_closing:
            self._end(None)

    def fail(self) -> None:
        """Break it."""
        if not self._is_closing:
            self._end(ConnectionResetError(104, "Connection reset by peer"))

    def die(self) -> None:
        """Have no client any more."""
        self._is_closing, self._protocol, self._client = True, None, None

    def _is_down(self) -> bool:
        return self._client is None or self._client.is_down

    def _end(self, error: Exception | None) -> None:
        self._is_closing = True
        if not self._loop.is_closed():
            self._loop.call_soon(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(error)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing or self._is_down():
            return
        self._received += data
        if self._expected is None:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._expected = end + 4 + _length(bytes(self._received[:end]))
        if len(self._received) >= self._expected:
            content = bytes(self._received[: self._expected])
            del self._received[: self._expected]
            self._expected = None
            self._leave(_parsed(content, self.host, self._network.life))

    # On the way

    def _leave(self, request: HttpRequest) -> None:
        """Let a complete request leave, or what the next mishap makes of it."""
        network, universe = self._network, self._universe
        route = network.server.route(request)
        if (
            universe.now < network.not_before.get((self._client, request.name), 0.0) - 0.01
            and (request.name[2] or "").rpartition(".")[0] not in network.excused
        ):
            network.problems.append(f"{route} was sent again before its time")
        mishap = network.mishap(route)
        if universe.is_traced:
            number = network.counts[route]
            universe.note(f"-> {route} {number} {request.target} {_shown(request.headers.get('idempotency-key'))}")
            if mishap is not None:
                universe.note(f"   mishap of {route} {number}: {mishap.effect} {mishap.value:g}")
        effect, value = (mishap.effect, mishap.value) if mishap is not None else ("none", 0.0)
        delay = network.seconds() + (value if effect == "late" else 0.0)
        arrive = partial(self._arrive, request, effect, value)
        match effect:
            case "request lost":
                universe.after(delay, self.fail)
            case "request and connection silent":
                pass
            case "refused":
                universe.after(delay, partial(self._answer, request, refusal(int(value)), "none", 0.0))
            case _:
                universe.after(delay, arrive)
        if effect in {"a foreign file appears", "sources change"}:
            network.disturb(request, effect)
        if effect == "doubled":
            universe.after(delay + value, partial(self._repeat, request))

    def _repeat(self, request: HttpRequest) -> None:
        """Let a request arrive again, as a proxy does it, unless the first one was refused meanwhile."""
        if request.name not in self._network.refused:
            self._network.server.handle(request, lambda _: None)

    def _arrive(self, request: HttpRequest, effect: str, value: float) -> None:
        self._network.server.handle(request, partial(self._answer, request, effect=effect, value=value))

    def _answer(self, request: HttpRequest, answer: HttpAnswer, effect: str, value: float) -> None:
        network, universe = self._network, self._universe
        if answer.status >= 400:
            network.refused.add(request.name)
        if universe.is_traced:
            shown = (
                answer.body[:160].decode(errors="replace")
                if answer.headers.get("Content-Type", "").endswith("json")
                else ""
            )
            universe.note(f"<- {answer.status} {len(answer.body)} bytes {shown}")
        delay = network.seconds() + (value if effect == "answer late" else 0.0)
        content = answer.encode()
        match effect:
            case "answer lost":
                universe.after(delay, self.fail)
            case "answer silent":
                pass
            case "answer replaced":
                universe.after(delay, partial(self._deliver, refusal(int(value)).encode()))
            case "answer truncated":
                universe.after(delay, partial(self._deliver, content[: len(content) - len(answer.body) // 2 - 1]))
                universe.after(delay + 0.01, self.fail)
            case "cut":
                head = len(content) - len(answer.body)
                self._deliver_in_pieces(content[: head + min(int(value), len(answer.body) - 1)], delay)
                universe.after(delay + 1.0, self.fail)
            case _:
                self._deliver_in_pieces(content, delay)
                if "Retry-After" in answer.headers:
                    universe.after(delay + 0.5, partial(self._wait_for, request, float(answer.headers["Retry-After"])))

    def _wait_for(self, request: HttpRequest, seconds: float) -> None:
        """Note that the client must wait with a request; it has the answer by now."""
        is_of_a_row = request.name[2] is not None  # others may be made again by a scheduler that is new
        if not self._is_closing and (is_of_a_row or not self._network.is_shared):
            self._network.not_before[self._client, request.name] = self._universe.now - 1.0 + seconds

    def _deliver_in_pieces(self, content: bytes, delay: float) -> None:
        for start in range(0, len(content), PIECE):
            self._universe.after(delay, partial(self._deliver, content[start : start + PIECE]))
            delay += 0.02

    def _deliver(self, data: bytes) -> None:
        if self._is_closing or self._protocol is None or self._is_down() or self._loop.is_closed():
            return
        if self._is_paused:
            self._held.append(data)
        else:
            self._loop.call_soon(self._protocol.data_received, data)


_PAGES = {
    200: (b"<!DOCTYPE html><html>a page of a gateway</html>", {"Content-Type": "text/html"}),
    401: (b'{"error":{"code":"unauthorized","message":"wrong key"}}', {"Content-Type": "application/json"}),
    402: (b'{"error":{"code":"insufficient_credit","message":"no credit"}}', {"Content-Type": "application/json"}),
    403: (b"<html>403</html>", {"Content-Type": "text/html"}),
    404: (b"<html>404</html>", {"Content-Type": "text/html"}),
    408: (b"", {}),
    429: (
        b'{"error":{"code":"rate_limit_exceeded","message":"slow down"}}',
        {"Content-Type": "application/json", "Retry-After": "7"},
    ),
    500: (b'{"error":{"code":"internal_error","message":"oops"}}', {"Content-Type": "application/json"}),
    502: (b"<html>502</html>", {"Content-Type": "text/html"}),
    503: (b"", {"Retry-After": "3"}),
}


def refusal(status: int) -> HttpAnswer:
    """Return what something between the client and the API answers."""
    body, headers = _PAGES[status]
    return HttpAnswer(status, body, headers)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _parsed(content: bytes, host: str, life: object) -> HttpRequest:
    head, _, body = content.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return HttpRequest(method, target, headers, body, host, life)


def _shown(key: str | None) -> str:
    return "" if key is None else f"(key {key})"
