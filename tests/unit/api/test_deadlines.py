"""Whatever a server sends, an attempt ends in time."""

from __future__ import annotations

import json
import ssl
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from esms_source.api.deadlines import MAX_HEAD_BYTES
from esms_source.api.endpoints import CallbackClient
from esms_source.api.request import Request
from esms_source.exceptions import TransportError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from esms_source.config import Settings
    from tests.conftest import RawServer

CONNECT, READ = 0.2, 0.3
BOUND = CONNECT + 2 * READ
SLACK = 0.35

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ANSWER = json.dumps({"Code": 100, "Data_callback": []}).encode()
SOUND = HEAD + b"Content-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER

DRIPS = {
    "nothing": (b"", b""),
    "the status line": (b"", b"H"),
    "a header": (HEAD + b"X: ", b"x"),
    "headers": (HEAD, b"X: x\r\n"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body": (HEAD + b"Content-Length: 9999\r\n\r\n", b" "),
    "a body without length": (HEAD + b"\r\n", b" "),
    "a body before the connection closes": (HEAD + b"Connection: close\r\n\r\n", b" "),
    "a chunk's size": (CHUNKED, b"0"),
    "a chunk's extension": (CHUNKED + b"1;", b"x"),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "trailers": (CHUNKED + b"0\r\n", b"X: x\r\n"),
    "a gzip header": (
        HEAD + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x08\0\0\0\0\0\0",
        b"x",
    ),
    "a gzip stream": (
        HEAD + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\0\0",
        b"\x00\x00\x00\xff\xff",
    ),
}
"""What comes at once, and what drips then."""


def ignore() -> None:
    """Take no note of when a request has left."""


def ask_in_vain(client: CallbackClient, match: str = "time-out") -> float:
    """Ask once; return how long it took."""
    began = time.monotonic()
    with pytest.raises(TransportError, match=match):
        client.ask(Request("oa", pa.table({"ref_id": ["a"]})), ignore)
    return time.monotonic() - began


@pytest.fixture
def impatient(
    make_settings: Callable[..., Settings],
) -> Iterator[Callable[[str], CallbackClient]]:
    """Make clients that wait only for fractions of a second."""
    made: list[CallbackClient] = []

    def one(url: str) -> CallbackClient:
        timeouts = {"connect_timeout": CONNECT, "read_timeout": READ}
        made.append(CallbackClient(make_settings(base_url=url, **timeouts)))
        return made[-1]

    yield one
    for client in made:
        client.close()


@pytest.fixture
def ask(impatient: Callable[[str], CallbackClient]) -> Callable[..., float]:
    """Ask a URL once, in vain; return how long it took."""
    return lambda url, **match: ask_in_vain(impatient(url), **match)


def test_a_server_that_drips_is_a_time_out(
    impatient: Callable[[str], CallbackClient],
    raw_server: Callable[..., RawServer],
) -> None:
    """After ``connect_timeout`` and twice ``read_timeout``: contract, section 6.4."""

    def client(first: bytes, piece: bytes) -> CallbackClient:
        def act(server: RawServer, connection: socket.socket) -> None:
            if server.take(connection):
                connection.sendall(first)
                server.drip(connection, piece)

        return impatient(raw_server(act).url)

    # All of them at once: each waits for the whole second that it may take.
    clients = [client(*drip) for drip in DRIPS.values()]
    with ThreadPoolExecutor(len(DRIPS)) as pool:
        took = dict(zip(DRIPS, pool.map(ask_in_vain, clients), strict=True))
    assert all(READ <= seconds < BOUND + SLACK for seconds in took.values()), took


@pytest.mark.parametrize("piece", [b"HTTP/1.1 100 Continue\r\n\r\n", b"X: x\r\n"])
def test_a_head_without_end_is_refused_at_once(
    piece: bytes, ask: Callable[..., float], raw_server: Callable[..., RawServer]
) -> None:
    """However fast it comes, it takes little memory."""
    sent = []

    def act(server: RawServer, connection: socket.socket) -> None:
        if server.take(connection):
            connection.sendall(HEAD if piece[:1] == b"X" else b"")
            while not server.ended.is_set():
                connection.sendall(piece * 1_000)
                sent.append(1_000 * len(piece))

    assert ask(raw_server(act).url, match="connection broken") < BOUND
    assert sum(sent) < 100 * MAX_HEAD_BYTES


@pytest.mark.parametrize("size", [100, 65_600])
def test_too_many_or_too_long_headers_are_a_broken_connection(
    size: int, ask: Callable[..., float], raw_server: Callable[..., RawServer]
) -> None:
    """101 of them, or a line above 64 KiB."""
    headers = b"X: x\r\n" * 101 if size == 100 else b"X: " + b"x" * size + b"\r\n"

    def act(server: RawServer, connection: socket.socket) -> None:
        if server.take(connection):
            connection.sendall(HEAD + headers + b"\r\n")

    ask(raw_server(act).url, match="connection broken")


@pytest.mark.parametrize("piece", [b"", b"\x16", b"\x16\x03\x03\x00\x01\x01"])
def test_a_handshake_that_drips_is_a_time_out(
    piece: bytes, ask: Callable[..., float], raw_server: Callable[..., RawServer]
) -> None:
    """Nothing, or some bytes of TLS, after the client's hello."""

    def act(server: RawServer, connection: socket.socket) -> None:
        connection.recv(65_536)
        server.drip(connection, piece)

    port = raw_server(act).port
    took = ask(f"https://127.0.0.1:{port}", match="time-out|connection|certificate")
    assert took < BOUND + SLACK


def test_an_encrypted_answer_that_drips_is_a_time_out(
    ask: Callable[..., float],
    raw_server: Callable[..., RawServer],
    certificate: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TLS changes nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def act(server: RawServer, connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as encrypted:
            if server.take(encrypted):
                encrypted.sendall(HEAD)
                server.drip(encrypted, b"X: x\r\n")

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    server = raw_server(act)
    took = ask(f"https://localhost:{server.port}")
    assert server.requests == 1
    assert READ <= took < BOUND + SLACK


def test_a_proxy_that_drips_is_a_time_out(
    ask: Callable[..., float],
    raw_server: Callable[..., RawServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its answer to CONNECT belongs to the attempt."""

    def act(server: RawServer, connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        server.drip(connection, b"X: x\r\n")

    monkeypatch.setenv("https_proxy", raw_server(act).url)
    took = ask("https://status.example", match="time-out|connection")
    assert took < BOUND + SLACK


def test_a_server_that_takes_no_body_is_a_time_out(
    make_settings: Callable[..., Settings], raw_server: Callable[..., RawServer]
) -> None:
    """Sending is bounded too."""

    def act(server: RawServer, connection: socket.socket) -> None:
        server.ended.wait()

    timeouts = {"connect_timeout": CONNECT, "read_timeout": READ}
    client = CallbackClient(make_settings(base_url=raw_server(act).url, **timeouts))
    long = [f"{number:0100000}" for number in range(100)]
    began = time.monotonic()
    with pytest.raises(TransportError):
        client.ask(Request("oa", pa.table({"ref_id": long})), ignore)
    assert time.monotonic() - began < BOUND + SLACK
    client.close()


def test_a_broken_off_attempt_leaves_other_connections_alone(
    make_settings: Callable[..., Settings], raw_server: Callable[..., RawServer]
) -> None:
    """Every third answer drips; all others are whole, on kept connections."""
    turn = threading.Lock()
    connections = []

    def act(server: RawServer, connection: socket.socket) -> None:
        connections.append(connection)
        connection.settimeout(5)
        while True:
            with turn:
                if not server.take(connection):
                    return
                number = server.requests
            if number % 3 == 0:
                connection.sendall(HEAD)
                server.drip(connection, b"X: x\r\n")
            connection.sendall(SOUND)

    server = raw_server(act)
    timeouts = {"connect_timeout": CONNECT, "read_timeout": READ}
    client = CallbackClient(make_settings(base_url=server.url, **timeouts))

    def one(number: int) -> str:
        request = Request("oa", pa.table({"ref_id": [str(number)]}))
        try:
            client.ask(request, ignore)
        except TransportError as exc:
            return str(exc)
        return str(request.code)

    with ThreadPoolExecutor(1) as pool:
        said = list(pool.map(one, range(9)))
    client.close()
    assert said == ["100", "100", "time-out while waiting for the answer"] * 3
    assert len(connections) == 3


def test_an_attempt_may_take_as_long_as_it_is_allowed(
    make_settings: Callable[..., Settings], raw_server: Callable[..., RawServer]
) -> None:
    """An answer that comes slowly, but in time, is read."""

    def act(server: RawServer, connection: socket.socket) -> None:
        if server.take(connection):
            packed = zlib.compress(ANSWER)
            connection.sendall(HEAD + b"Content-Encoding: deflate\r\n")
            connection.sendall(b"Content-Length: %d\r\n\r\n" % len(packed))
            for place in range(len(packed)):
                server.ended.wait(0.5 / len(packed))
                connection.sendall(packed[place : place + 1])

    timeouts = {"connect_timeout": CONNECT, "read_timeout": READ}
    client = CallbackClient(make_settings(base_url=raw_server(act).url, **timeouts))
    request = Request("oa", pa.table({"ref_id": ["a"]}))
    client.ask(request, ignore)
    client.close()
    assert request.code == 100
