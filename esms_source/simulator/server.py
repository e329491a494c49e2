"""The HTTP side: connections, timing, starting and stopping."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from esms_source.simulator.behaviour import Behaviour
from esms_source.simulator.faults import Reply, json_reply
from esms_source.simulator.handler import Case, Desk
from esms_source.simulator.rest import PATHS, QUERY, RestDesk
from esms_source.simulator.traffic import Arrivals

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

GET_CALLBACK_PATH = "/ZaloCallback/GetCallback"
"""Where the API answers. Source: the GetCallback page of eSMS's API docs."""

REDIRECT_PATH = "/elsewhere"
"""Where redirects lead: the same port under another host name, to see who follows."""

_BACKLOG = 512
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class _Opening(Protocol):
    """Reads a request and decides which fault it gets."""

    def __call__(self, number: int, body: bytes, *, refused: bool) -> Case: ...


class _Replying(Protocol):
    """Makes a reply."""

    def __call__(self, case: Case) -> Reply: ...


_Desks: TypeAlias = dict[tuple[str, str], tuple[Arrivals, _Opening, _Replying]]
"""By method and path: where arrivals are noted, and who answers."""


class Simulator:
    """eSMS's API on loopback, in a thread of its own.

    Used as a context manager, or with ``start`` and ``stop``. ``arrivals`` holds
    what GetCallback saw, ``others`` what the other endpoints did, by name; from
    another process ``GET /stats`` and ``GET /arrivals`` tell it, and ``POST /reset``
    clears it.

    Args:
        behaviour: How to behave; by default 20 requests a second, no faults.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
    """

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.behaviour = behaviour or Behaviour()
        self.arrivals = Arrivals(
            self.behaviour.rate, record_ref_ids=self.behaviour.record_ref_ids
        )
        limits = {QUERY: self.behaviour.query_rate}
        self.others = {
            name: Arrivals(limits.get(name), record_ref_ids=True)
            for name in PATHS.values()
        }
        self._address = host, port
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] | None = None

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        host, port = self._address
        return f"http://{host}:{port}"

    def start(self) -> None:
        """Listen and return once requests are answered.

        Raises:
            OSError: The address is taken or not of this machine.
        """
        listener = socket.create_server(self._address, backlog=_BACKLOG)
        host, port = self._address = listener.getsockname()[:2]
        name = "127.0.0.1" if host == "localhost" else "localhost"
        desk = Desk(
            self.behaviour, self.arrivals, f"http://{name}:{port}{REDIRECT_PATH}"
        )
        rest = RestDesk(self.behaviour, self.others, self.arrivals)
        desks: _Desks = {
            ("POST", GET_CALLBACK_PATH): (self.arrivals, desk.open, desk.reply)
        }
        for path, endpoint in PATHS.items():
            opening = partial(rest.open, endpoint), partial(rest.reply, endpoint)
            desks["POST", path] = (self.others[endpoint], *opening)
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener, desks, ready)),
            name="esms-simulator",
            daemon=True,
        )
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Close every connection, answered or not, and free the port."""
        if self._thread is not None and self._stop is not None:
            self._stop()
            self._thread.join()
            self._thread = self._stop = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def _serve(
        self, listener: socket.socket, desks: _Desks, ready: threading.Event
    ) -> None:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stopping.set)
        connections: set[_Connection] = set()
        server = await loop.create_server(
            lambda: _Connection(self, desks, connections),
            sock=listener,
            backlog=_BACKLOG,
        )
        ready.set()
        await stopping.wait()
        server.close()
        for connection in list(connections):
            connection.abort()
        # One turn of the loop, in which the sockets are closed.
        await asyncio.sleep(0)


def serve(
    behaviour: Behaviour,
    host: str = "127.0.0.1",
    port: int = 8080,
    announce: Callable[[str], object] = bool,
) -> None:
    """Answer until interrupted (Ctrl-C).

    Args:
        behaviour: How to behave.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        announce: Called with the base URL once requests are answered.

    Raises:
        OSError: The address is taken or not of this machine.
    """
    with (
        suppress(KeyboardInterrupt),
        Simulator(behaviour, host=host, port=port) as simulator,
    ):
        announce(simulator.url)
        threading.Event().wait()


class _Connection(asyncio.Protocol):
    """One keep-alive connection; answers its requests one after the other."""

    _transport: asyncio.Transport

    def __init__(
        self, simulator: Simulator, desks: _Desks, connections: set[_Connection]
    ) -> None:
        self._simulator = simulator
        self._arrivals = simulator.arrivals
        self._desks = desks
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._began: float | None = None
        self._head: _Head | None = None
        self._arrived: tuple[int, bool] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._finish()

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._began is None:
            self._began = time.monotonic()
        self._buffer += data
        self._advance()

    def _advance(self) -> None:
        """Go on with the request under way as far as the bytes allow."""
        if self._timer is not None or self._began is None:
            return
        if self._head is None:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            self._head, self._buffer = _Head(head), rest
            if desk := self._desks.get(self._head.target):
                self._arrived = desk[0].arrive(self._began)
        if len(self._buffer) < self._head.length:
            return
        body = self._buffer[: self._head.length]
        self._buffer = self._buffer[self._head.length :]
        self._take(body, self._head, self._began)

    def _take(self, body: bytes, head: _Head, began: float) -> None:
        if self._arrived is None:
            self._send(self._tell(head))
            return
        number, refused = self._arrived
        _, opening, replying = self._desks[head.target]
        case = opening(number, body, refused=refused)
        behaviour = self._simulator.behaviour
        slow = case.fault == "slow"
        wait = behaviour.slow_seconds if slow else behaviour.latency
        # The loop's clock is the monotonic one that arrivals are taken from.
        self._timer = self._loop.call_at(
            began + wait, lambda: self._send(replying(case))
        )

    def _tell(self, head: _Head) -> Reply:
        """Answer what asks for no data."""
        if head.target == ("GET", "/stats"):
            others = self._simulator.others.items()
            counts = {name: arrivals.requests for name, arrivals in others}
            return json_reply(self._arrivals.stats() | {"other_requests": counts})
        if head.target == ("GET", "/arrivals"):
            return json_reply(self._arrivals.times)
        if head.target == ("POST", "/reset"):
            self._arrivals.reset()
            for arrivals in self._simulator.others.values():
                arrivals.reset()
            return json_reply({})
        if head.target[1] == REDIRECT_PATH:
            self._arrivals.note_redirect_followed()
        return Reply(b"Not Found", 404, ("Content-Type: text/plain",))

    def _send(self, reply: Reply) -> None:
        close = reply.hang_up or reply.missing_bytes or (self._head and self._head.last)
        self._finish()
        if not reply.hang_up:
            self._transport.write(_on_the_wire(reply))
        if close:
            self._transport.close()
            return
        self._head = self._timer = None
        self._began = time.monotonic() if self._buffer else None
        self._advance()

    def _finish(self) -> None:
        if self._arrived is not None and self._head is not None:
            self._arrived = None
            self._desks[self._head.target][0].leave()


class _Head:
    """What matters of a request's head."""

    def __init__(self, text: bytes) -> None:
        method, target = [*text.decode("latin-1").split(" ", 2), ""][:2]
        length = _CONTENT_LENGTH.search(text)
        self.target = method, target
        self.length = int(length[1]) if length else 0
        self.last = bool(_CLOSE.search(text))


def _on_the_wire(reply: Reply) -> bytes:
    head = (
        f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}",
        f"Content-Length: {len(reply.body) + reply.missing_bytes}",
        *reply.headers,
        "\r\n",
    )
    return "\r\n".join(head).encode() + reply.body
