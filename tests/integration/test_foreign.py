from __future__ import annotations

import itertools
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from esms_source import sync
from esms_source.cli.check import checks
from esms_source.exceptions import ConfigError, PipelineBusyError, RefIdTableError
from esms_source.planning import foreign
from esms_source.planning.planner import Choice, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Output

pytestmark = pytest.mark.slow

NUMBERS = itertools.count()
OA = 1090257973118325189

CARRIED = (
    *("campaign", "price", "big", "flag", "day", "tags", "kind"),
    *("half", "at", "raw", "never", "moment"),
)

SENT = f"""
    CREATE TABLE Sent (
        RefId VARCHAR(64) CHARACTER SET utf8mb4, OA BIGINT, sent DATETIME,
        moment TIMESTAMP NULL, campaign VARCHAR(50) CHARACTER SET utf8mb4,
        price DECIMAL(12, 3), big BIGINT UNSIGNED, flag TINYINT(1), day DATE,
        tags JSON, kind ENUM('otp', 'promo'), half DOUBLE, at TIME, raw VARBINARY(9),
        never INT
    );
    INSERT INTO Sent
    SELECT concat(md5(seq), '07'), {OA}, '2026-01-05 07:00:00' + interval seq minute,
        '2026-01-05 00:00:00' + interval seq minute, 'Tết 🎉', seq / 4.0,
        18446744073709551615, 1, '2026-01-05', '{{"a": [1, null]}}', 'otp', 0.1,
        '12:00:01', x'00ff', NULL
    FROM seq_1_to_900
"""


class Server:
    """A database of a test's own on a MariaDB server."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = url
        self._monkeypatch = monkeypatch

    def execute(self, statements: str) -> list[Any]:
        """Run SQL; return what the last statement selects."""
        engine = sa.create_engine(self.url)
        with (
            engine.begin() as connection,
            closing(connection.connection.cursor()) as it,
        ):
            for statement in statements.split(";"):
                it.execute(statement)
            rows = list(it.fetchall()) if it.description else []
        engine.dispose()
        return rows

    def use(self, table: str | None = "Sent", **settings: Any) -> None:
        """Let the settings name a table of it."""
        named = {"credentials": self.url, "ref_id_column": "refid"} | settings
        for name, value in (named | ({"table": table} if table else {})).items():
            text = value if isinstance(value, str) else json.dumps(value)
            self._monkeypatch.setenv(f"SOURCES__ESMS__REF_IDS__{name.upper()}", text)

    def use_sent(self, **settings: Any) -> None:
        """Make a table of messages and name it, and all of its columns."""
        self.execute(SENT)
        self.use(
            **{
                "oa_id_column": "oa",
                "sent_at_column": "sent",
                "sent_at_timezone": "Asia/Ho_Chi_Minh",
                "carry": CARRIED,
            }
            | settings
        )


@pytest.fixture(scope="module")
def mariadb() -> Iterator[str]:
    """A MariaDB server of this process's own, on a socket, as a URL."""
    if shutil.which("mariadbd") is None:
        pytest.skip("there is no MariaDB here: install mariadb-server")
    with TemporaryDirectory(prefix="esms-maria-") as folder:
        data, socket = f"{folder}/data", f"{folder}/socket"
        own = ["--no-defaults", f"--datadir={data}", "--user=root"]
        subprocess.run(
            [
                shutil.which("mariadb-install-db") or "",
                *own,
                "--auth-root-authentication-method=normal",
            ],
            check=True,
            capture_output=True,
        )
        server = subprocess.Popen(
            [
                shutil.which("mariadbd") or "",
                *own,
                f"--socket={socket}",
                "--skip-networking",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"mysql+pymysql://root@localhost/?unix_socket={quote(socket)}"
        try:
            wait_for(Path(socket))
            yield url
        finally:
            server.terminate()
            server.wait(30)


def wait_for(socket: Path) -> None:
    """Wait until a server listens, a minute at most."""
    for _ in range(600):
        if socket.exists():
            return
        time.sleep(0.1)
    raise TimeoutError(socket)


@pytest.fixture
def server(mariadb: str, monkeypatch: pytest.MonkeyPatch) -> Server:
    """An empty database."""
    name = f"crm_{next(NUMBERS)}"
    Server(mariadb, monkeypatch).execute(f"CREATE DATABASE {name}")
    return Server(mariadb.replace("localhost/", f"localhost/{name}"), monkeypatch)


def test_mariadb_is_read(server, output: Output, asking):
    """Each RefId is asked once; only what lies within the window is read again."""
    server.use_sent()
    first = sync(output.pipeline(), **asking)
    server.execute(
        "INSERT INTO Sent (RefId, OA, sent) SELECT concat(RefId, 'x'), OA,"
        " sent - interval 1 hour FROM Sent WHERE sent >= '2026-01-05 21:30:00'"
    )
    late = sync(output.pipeline(), **asking)
    assert (first.asked, first.answered, late.asked) == (900, 900, 31)
    assert output.rows(
        "SELECT count(*), count(DISTINCT oa_id), min(sent_at)::VARCHAR FROM ref_ids"
    ) == [(931, 1, "2026-01-05 00:01:00+00")]
    assert output.rows("SELECT min(oa_id) FROM ref_ids") == [(str(OA))]


def test_what_is_carried_from_mariadb_is_exact(server, output: Output, asking):
    """Emoji, decimals, unsigned numbers, moments: nothing is rounded or moved."""
    server.use_sent()
    sync(output.pipeline(), max_ref_ids=3, **asking)
    server.execute("UPDATE Sent SET never = 5")
    sync(output.pipeline(), **asking)
    rows = output.rows(
        'SELECT campaign, price, big, flag, day::VARCHAR, tags, kind, half, "at", raw,'
        " moment::VARCHAR FROM ref_ids WHERE price = 1.75"
    )
    assert rows == [
        (
            "Tết 🎉",
            Decimal("1.750"),
            Decimal(18446744073709551615),
            1,
            "2026-01-05",
            '{"a": [1, null]}',
            "otp",
            0.1,
            "12:00:01",
            r"\x00ff",
            "2026-01-05 00:07:00+00",
        )
    ]
    assert output.rows("SELECT sum(never) FROM ref_ids") == [897 * 5]


def test_a_window_leaves_rows_in_mariadb(server, output: Output, asking, scratch_rows):
    """Rows that lie before their OA's window don't leave the server."""
    server.use_sent(lag=3600)
    sync(output.pipeline(), **asking)
    read = scratch_rows(output)
    assert 60 <= read < 900 / 2 + 60 * 26  # a day of slack, and the hour
    server.use(sent_at_column="moment")
    assert 60 <= scratch_rows(output) <= 62


@pytest.fixture
def scratch_rows(monkeypatch: pytest.MonkeyPatch) -> Callable[[Output], int]:
    """Plan, and tell how many rows were read from the warehouse."""
    from esms_source.config import resolve_settings  # noqa: PLC0415

    def rows(output: Output) -> int:
        settings = resolve_settings()
        as_of = output.rows("SELECT max(last_polled_at) + INTERVAL 1 DAY FROM ref_ids")[
            0
        ]
        plan = make_plan(output.pipeline(), settings, Choice(), as_of)
        plan.close()
        return plan.skipped.rows

    return rows


def test_a_query_and_a_view_of_mariadb_are_read(server, output: Output, asking):
    """What is selected may hold colons, per cents, comments, and stand in a view."""
    server.execute(SENT)
    query = (
        "SELECT RefId AS ref_id, moment, 'a:b %s' AS note FROM Sent"
        " WHERE campaign LIKE 'T%' -- all of them;"
    )
    server.use(
        None,
        query=query,
        ref_id_column="ref_id",
        sent_at_column="moment",
        carry=["note"],
    )
    assert sync(output.pipeline(), oa_id="oa", max_ref_ids=10, **asking).asked == 10
    assert output.rows("SELECT DISTINCT note FROM ref_ids") == ["a:b %s"]
    assert output.rows("SELECT max(sent_at)::VARCHAR FROM ref_ids") == [
        "2026-01-05 00:10:00+00"
    ]


def test_a_view_of_mariadb_is_read(server, output: Output, asking):
    """A view is as good as a table."""
    server.execute(f"{SENT}; CREATE VIEW offered AS SELECT * FROM Sent LIMIT 7")
    server.use("offered", oa_id_column="OA", sent_at_column="sent")
    assert sync(output.pipeline(), **asking).asked == 7


def test_mariadb_says_what_is_missing(server, output: Output, asking, capsys):
    """Tables, columns and grants are named, in one line without the statement."""
    server.use("nowhere")
    with pytest.raises(RefIdTableError, match="no table 'nowhere'"):
        sync(output.pipeline(), **asking)
    server.use_sent(carry=["none"])
    with pytest.raises(RefIdTableError, match="no column 'none'"):
        sync(output.pipeline(), **asking)
    reader = f"reader_{next(NUMBERS)}"
    name = server.execute("SELECT database()")[0][0]
    server.execute(
        f"CREATE TABLE other AS SELECT 1 AS a; CREATE USER {reader}@localhost;"
        f"GRANT SELECT ON {name}.other TO {reader}@localhost;"
        f"GRANT INSERT ON {name}.Sent TO {reader}@localhost"
    )
    server.use(credentials=server.url.replace("root@", f"{reader}@"), carry=[])
    with pytest.raises(RefIdTableError, match="GRANT SELECT ON") as caught:
        sync(output.pipeline(), **asking)
    assert "\n" not in str(caught.value)
    server.execute(f"GRANT SELECT ON {name}.Sent TO {reader}@localhost")
    assert sync(output.pipeline(), max_ref_ids=5, **asking).asked == 5


def test_a_locked_table_is_waited_for_within_bounds(
    server, output: Output, asking, monkeypatch: pytest.MonkeyPatch
):
    """MySQL would wait a day for a lock; a run says who is waited for, and ends."""
    server.use_sent()
    monkeypatch.setattr("esms_source.databases.PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(foreign, "LOCK_SECONDS", 1)
    engine = sa.create_engine(server.url)
    with engine.connect() as other:
        other.exec_driver_sql("LOCK TABLES Sent WRITE")
        with pytest.raises(PipelineBusyError, match="lock on"):
            sync(output.pipeline(), **asking)
        other.exec_driver_sql("UNLOCK TABLES")
    engine.dispose()


def test_check_and_plan_read_mariadb(server, capsys, asking, monkeypatch, tmp_path):
    """The command line says of MariaDB what it says of PostgreSQL."""
    server.use_sent()
    for name in ("api_key", "secret_key", "base_url"):
        monkeypatch.setenv(f"SOURCES__ESMS__{name.upper()}", asking[name])
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", str(tmp_path / "out.duckdb"))
    found = {outcome.name: outcome for outcome in checks("esms", "zalo", "duckdb")}
    assert found["warehouse"].status == "ok"
    assert found["warehouse"].said.startswith("900 rows, 900 of them not in the ledger")
    assert found["API key"].status == "ok"


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sqlite3.Connection:
    """A SQLite file that the settings name, its path relative to the project."""
    connection = sqlite3.connect(tmp_path / "crm.db")
    monkeypatch.setenv("SOURCES__ESMS__REF_IDS__CREDENTIALS", "sqlite:///crm.db")
    monkeypatch.setenv("SOURCES__ESMS__REF_IDS__TABLE", "sent")
    monkeypatch.setenv("DLT_PROJECT_DIR", str(tmp_path))
    return connection


def test_sqlite_is_read(sqlite, output: Output, asking, monkeypatch):
    """Values of any type stand in any column of it: each is read as what it is."""
    sqlite.executescript(
        "CREATE TABLE sent (ref_id, oa_id INTEGER, sent_at TEXT, step INTEGER);"
        f"INSERT INTO sent VALUES ('a', {OA}, '2026-01-05 07:00:00', 1),"
        f"(12, {OA}, '05/01/2026 08:00', 1.5), (X'6263', {OA}, 1767600000, 'x')"
    )
    sqlite.commit()
    names = {"OA_ID_COLUMN": "oa_id", "SENT_AT_COLUMN": "sent_at", "CARRY": '["step"]'}
    for name, value in names.items():
        monkeypatch.setenv(f"SOURCES__ESMS__REF_IDS__{name}", value)
    assert sync(output.pipeline(), **asking).asked == 3
    assert output.rows(
        "SELECT ref_id, sent_at::VARCHAR, step FROM ref_ids ORDER BY 1"
    ) == [
        ("12", "2026-01-05 08:00:00+00", "1.5"),
        ("a", "2026-01-05 07:00:00+00", "1"),
        ("bc", "2026-01-05 08:00:00+00", "x"),
    ]
    assert sync(output.pipeline(), **asking).asked == 0


def test_rounded_ids_of_sqlite_are_refused(sqlite, output: Output, asking):
    """A REAL can't tell such ids apart, also where most rows hold whole numbers."""
    sqlite.executescript(
        f"CREATE TABLE sent (ref_id); INSERT INTO sent VALUES (1), ({float(OA)})"
    )
    sqlite.commit()
    with pytest.raises(RefIdTableError, match="numbers with a point"):
        sync(output.pipeline(), oa_id="oa", **asking)


def test_a_missing_sqlite_file_is_not_made(
    output: Output, asking, tmp_path, monkeypatch
):
    """Reading a file that isn't there says so, with its full path."""
    monkeypatch.setenv("SOURCES__ESMS__REF_IDS__CREDENTIALS", "sqlite:///none.db")
    monkeypatch.setenv("SOURCES__ESMS__REF_IDS__TABLE", "sent")
    monkeypatch.setenv("DLT_PROJECT_DIR", str(tmp_path))
    with pytest.raises(RefIdTableError, match=str(tmp_path / "none.db")):
        sync(output.pipeline(), **asking)
    assert not (tmp_path / "none.db").exists()


def test_a_held_sqlite_file_is_waited_for(
    sqlite, output: Output, asking, monkeypatch: pytest.MonkeyPatch
):
    """Somebody who writes holds it for a while; waiting ends and says so."""
    sqlite.executescript("CREATE TABLE sent (ref_id); INSERT INTO sent VALUES (1)")
    sqlite.commit()
    sqlite.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr("esms_source.databases.PATIENCE_SECONDS", 1.0)
    with pytest.raises(PipelineBusyError, match="SQLite"):
        sync(output.pipeline(), oa_id="oa", **asking)
    sqlite.rollback()
    assert sync(output.pipeline(), oa_id="oa", **asking).asked == 1


PASSWORD = "hunter2secret"  # noqa: S105  opens nothing
WRONG = [
    f"mysql+pymysql://u:{PASSWORD}@localhost:{PASSWORD}/crm",
    f"mysql+pymysql://u:x@{PASSWORD}@@host/crm",
    f"mysql+pymysql://u:{PASSWORD}",
    f"mysql+pymysql://u:[{PASSWORD}@host/crm",
    f"mysql+{PASSWORD}://u:{PASSWORD}@localhost/crm",
    f"mysql+pymysql://u:%zz{PASSWORD}@localhost:1/crm",
    f"mysql+pymysql://u@localhost:1/@{PASSWORD}",
    f"mysql://u:{PASSWORD}@localhost/crm",
]


@pytest.mark.parametrize("url", WRONG)
def test_no_error_shows_a_part_of_a_wrong_url(
    output: Output, asking, url, monkeypatch: pytest.MonkeyPatch
):
    """Whatever is wrong with a URL, nothing of it is shown."""
    monkeypatch.setenv("SOURCES__ESMS__REF_IDS__CREDENTIALS", url)
    monkeypatch.setenv("SOURCES__ESMS__REF_IDS__TABLE", "sent")
    with pytest.raises((ConfigError, RefIdTableError)) as caught:
        sync(output.pipeline(), **asking)
    assert PASSWORD not in str(caught.value)
    assert caught.value.__cause__ is None or PASSWORD not in str(caught.value.__cause__)


def test_without_sqlalchemy_the_extra_is_named(output: Output, asking, monkeypatch):
    """Who lacks the package learns what to install."""
    monkeypatch.setenv("SOURCES__ESMS__REF_IDS__CREDENTIALS", "mysql+pymysql://h/crm")
    monkeypatch.setenv("SOURCES__ESMS__REF_IDS__TABLE", "sent")
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(ConfigError, match=r"pip install esms-source\[sqlalchemy\]"):
        sync(output.pipeline(), **asking)
