from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dlt
import psycopg2
import pytest

from esms_source import sync
from esms_source.cli import check
from esms_source.cli.check import checks
from esms_source.exceptions import ConfigError, DestinationError, RefIdTableError
from esms_source.planning import database
from esms_source.planning.planner import Choice, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from esms_source.config import Settings
    from tests.conftest import Output, Warehouse

pytestmark = pytest.mark.slow


NUMBERS = itertools.count()
AS_OF = datetime(2026, 2, 1, tzinfo=timezone.utc)

CRM = """
    CREATE SCHEMA "Crm";
    CREATE TABLE "Crm"."Sent Messages" (
        "OA" text, "Ref Id" text, sent timestamptz, campaign varchar(20), step integer,
        price numeric(12, 3), day date, tags jsonb, never_filled integer
    );
    INSERT INTO "Crm"."Sent Messages"
    SELECT 'oa' || i % 3, md5(i::text) || '07',
        timestamptz '2026-01-05 00:00:00+00' + i * interval '1 minute', 'sale, "11.11"',
        i, i / 4.0, date '2026-01-05', '{"a": [1, null]}', NULL
    FROM generate_series(1, 900) AS t(i)
"""


class Server:
    """A database of a test's own, and what is in it."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = url
        self._monkeypatch = monkeypatch

    def execute(self, *statements: str) -> None:
        """Run SQL."""
        for statement in statements:
            self.rows(statement)

    def rows(self, sql: str) -> list[Any]:
        """Return what a query selects; bare rows of one column."""
        connection = psycopg2.connect(self.url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            rows = cursor.fetchall() if cursor.description else []
        connection.close()
        return [row[0] if len(row) == 1 else row for row in rows]

    def use(self, table: str | None = None, **settings: object) -> None:
        """Let the settings name a table of it."""
        named = {"destination": "postgres", "credentials": self.url} | settings
        for name, value in (named | ({"table": table} if table else {})).items():
            text = value if isinstance(value, str) else json.dumps(value)
            self._monkeypatch.setenv(f"SOURCES__ESMS__REF_IDS__{name.upper()}", text)

    def use_crm(self) -> None:
        """Make the table of a CRM and name it."""
        self.execute(CRM)
        self.use(
            "Sent Messages",
            dataset_name="Crm",
            ref_id_column="Ref Id",
            oa_id_column="OA",
            sent_at_column="sent",
            carry=["campaign", "step", "price", "day", "tags", "never_filled"],
        )

    def pipeline(self, name: str = "esms", role: str = "") -> dlt.Pipeline:
        """Return a pipeline into it, of a role or of the one that may do all."""
        url = self.url.replace("postgres:any@", f"{role}:any@") if role else self.url
        destination = dlt.destinations.postgres(url)
        return dlt.pipeline(name, destination=destination, dataset_name="zalo")


@pytest.fixture
def server(postgres: str, monkeypatch: pytest.MonkeyPatch) -> Server:
    """An empty database."""
    name = f"test_{next(NUMBERS)}"
    Server(postgres, monkeypatch).execute(f"CREATE DATABASE {name}")
    parts = urlsplit(postgres)._replace(path=f"/{name}")
    return Server(parts.geturl(), monkeypatch)


def test_postgres_is_read_and_loaded(server, asking):
    """Each RefId of a foreign schema is asked once, and late ones are found."""
    server.use_crm()
    first = sync(server.pipeline(), **asking)
    again = sync(server.pipeline(), **asking)
    server.execute(
        'INSERT INTO "Crm"."Sent Messages" SELECT "OA", "Ref Id" || \'x\','
        ' sent - interval \'1 hour\' FROM "Crm"."Sent Messages"'
        " WHERE sent >= '2026-01-05 14:30:00+00'"
    )
    late = sync(server.pipeline(), **asking)
    assert (first.asked, again.asked, late.asked) == (900, 0, 31)
    assert first.answered == 900
    assert server.rows("SELECT state, count(*) FROM zalo.ref_ids GROUP BY state") == [
        ("final", 931)
    ]
    assert server.rows(
        "SELECT sum(asked), sum(answered + missing + failed) FROM zalo.api_requests"
    ) == [(931, 931)]


def test_a_view_of_dbt_is_read(server, asking):
    """It names database, schema and table in quotes, over a schema of another owner."""
    server.use_crm()
    database = server.rows("SELECT current_database()")[0]
    view = f'"{database}"."analytics"."ZNS_SENT__dbt_tmp"'
    server.execute(
        "CREATE SCHEMA analytics",
        f'CREATE VIEW {view} AS (SELECT "Ref Id" AS "REF_ID", "OA", sent AS "SENT_AT"'
        f' FROM "{database}"."Crm"."Sent Messages")',
        f'ALTER TABLE {view} RENAME TO "ZNS_SENT"',
        "DROP ROLE IF EXISTS of_views",
        "CREATE ROLE of_views LOGIN",
        "GRANT USAGE ON SCHEMA analytics TO of_views",
        'GRANT SELECT ON analytics."ZNS_SENT" TO of_views',
    )
    server.use(
        "ZNS_SENT",
        credentials=server.url.replace("postgres:any@", "of_views:any@"),
        dataset_name="analytics",
        ref_id_column="ref_id",
        sent_at_column="sent_at",
        carry=[],
    )
    first = sync(server.pipeline(), **asking)
    again = sync(server.pipeline(), **asking)
    assert (first.asked, again.asked) == (900, 0)


def test_carried_columns_keep_their_types(server, asking):
    """What PostgreSQL knows of a column holds in the ledger, also without a value."""
    server.use_crm()
    sync(server.pipeline(), **asking)
    sql = "SELECT campaign, step, price, day, tags, never_filled FROM zalo.ref_ids"
    assert server.rows(f"{sql} WHERE step = 7") == [
        (
            'sale, "11.11"',
            7,
            Decimal("1.750"),
            date(2026, 1, 5),
            '{"a": [1, null]}',
            None,
        )
    ]
    server.execute('UPDATE "Crm"."Sent Messages" SET never_filled = 5')
    sync(server.pipeline(), repoll=["final"], **asking)
    sync(server.pipeline(), ref_ids=[{"ref_id": "by hand", "oa_id": "oa1"}], **asking)
    assert server.rows("SELECT count(*) FROM zalo.ref_ids") == [901]


def test_duckdb_is_loaded_into_postgres(server, warehouse: Warehouse, asking):
    """The warehouse may be a DuckDB file where the destination is PostgreSQL."""
    warehouse.fill(700, oas=2)
    warehouse.use(carry=["campaign"], oa_id_column="oa_id", sent_at_column="sent_at")
    reports = [sync(server.pipeline(), **asking) for _ in range(2)]
    assert [report.asked for report in reports] == [700, 0]
    assert server.rows("SELECT count(DISTINCT campaign) FROM zalo.ref_ids") == [3]


def test_postgres_is_loaded_into_duckdb(server, output: Output, asking):
    """The warehouse may be PostgreSQL where the destination is a DuckDB file."""
    server.use_crm()
    reports = [sync(output.pipeline(), **asking) for _ in range(2)]
    assert [report.asked for report in reports] == [900, 0]
    assert output.rows("SELECT sum(step) FROM ref_ids") == [900 * 901 // 2]


def test_odd_texts_survive_the_copy(server, asking):
    """Whatever a RefId holds, it is asked as it stands; what is none is counted."""
    odd = ['a,"b"', "line\nbreak", "back\\slash", "\\N", "O'Hara", "ẩn số", "%s", '""']
    server.execute("CREATE TABLE sent (ref_id text)")
    values = ", ".join("('" + text.replace("'", "''") + "')" for text in odd)
    server.execute(f"INSERT INTO sent VALUES {values}, (NULL), (''), ('  ')")
    server.use("sent")
    report = sync(server.pipeline(), oa_id="oa", **asking)
    assert sorted(server.rows("SELECT ref_id FROM zalo.ref_ids")) == sorted(odd)
    assert report.skipped.no_ref_id == 3
    assert sync(server.pipeline(), oa_id="oa", **asking).asked == 0


@pytest.mark.parametrize("kind", ["bigint", "numeric", "numeric(30, 0)", "uuid"])
def test_ref_ids_that_are_no_text_are_written_plainly(server, asking, kind):
    """Numbers and UUIDs become the text that PostgreSQL shows."""
    value = "4a496110-9fd3-4838-ac8b-bcaa36616f70" if kind == "uuid" else "123456789012"
    server.execute(f"CREATE TABLE sent AS SELECT CAST('{value}' AS {kind}) AS ref_id")
    server.use("sent")
    sync(server.pipeline(), oa_id="oa", **asking)
    assert server.rows("SELECT ref_id FROM zalo.ref_ids") == [value]


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date", "text"])
def test_windows_are_those_of_duckdb(
    server, output: Output, make_settings: Callable[..., Settings], asking, kind
):
    """Where PostgreSQL leaves out old rows, what is left is exactly what counts."""
    server.execute(
        "CREATE TABLE sent AS SELECT 'oa' || i % 2 AS oa_id, i::text AS ref_id,"
        f" CAST(timestamp '2026-01-01' + i * interval '5 hours' AS {kind}) AS sent_at"
        " FROM generate_series(1, 50) AS t(i)"
    )
    zone = "America/New_York"
    columns = {"oa_id_column": "oa_id", "sent_at_column": "sent_at"}
    server.use("sent", sent_at_timezone=zone, lag=100_000, **columns)
    sync(server.pipeline(), **asking)
    sync(output.pipeline(), **asking)
    server.execute(
        "INSERT INTO sent SELECT oa_id, 'late ' || ref_id, sent_at FROM sent;"
        " INSERT INTO sent SELECT NULL, 'no oa ' || ref_id, sent_at FROM sent;"
        " INSERT INTO sent VALUES ('oa1', 'no moment', NULL)"
    )
    plans = [
        make_plan(pipeline, make_settings(oa_id="oa1"), Choice(), AS_OF)
        for pipeline in (server.pipeline(), output.pipeline())
    ]
    works = [
        [ref_id for page in plan.pages() for ref_id in page["ref_id"].to_pylist()]
        for plan in plans
    ]
    skipped = [plan.skipped.unreadable for plan in plans]
    for plan in plans:
        plan.close()
    assert works[0] == works[1]
    assert len(works[0]) in range(10, 40)
    assert skipped == [1, 1]


def test_a_large_table_is_read_in_little_memory(server, make_settings):
    """What is copied may be larger than the memory that planning has."""
    server.execute(
        "CREATE TABLE sent AS SELECT i::text AS ref_id, repeat('x', 2000) AS text"
        " FROM generate_series(1, 150000) AS t(i)"
    )
    server.use("sent", carry=["text"])
    settings = make_settings(oa_id="oa")
    plan = make_plan(server.pipeline(), settings, Choice(max_ref_ids=7), AS_OF)
    assert plan.total == 7
    plan.close()


def test_infinite_moments_are_none(server, asking):
    """A sent_at of infinity is no moment: the row is asked with none, and counted."""
    server.execute(
        "CREATE TABLE sent AS SELECT i::text AS ref_id, timestamptz 'infinity' AS at"
        " FROM generate_series(1, 3) AS t(i)"
    )
    server.use("sent", sent_at_column="at")
    report = sync(server.pipeline(), oa_id="oa", **asking)
    assert (report.asked, report.skipped.unreadable) == (3, 3)


def test_many_candidates_meet_all_keys(server, asking, monkeypatch):
    """Where too many are at hand for a list, all keys are copied: same outcome."""
    monkeypatch.setattr(database, "POSTGRES_IN_LIST", 10)
    server.use_crm()
    reports = [sync(server.pipeline(), **asking) for _ in range(2)]
    assert [report.asked for report in reports] == [900, 0]


def test_choices_hold_on_postgres(server, asking):
    """Repolls by state and time, single OAs and caps are met in its SQL."""
    server.use_crm()
    capped = sync(server.pipeline(), oa_ids=["oa1"], max_ref_ids=100, **asking)
    rest = sync(server.pipeline(), **asking)
    since = datetime(2026, 1, 5, 14, 0, tzinfo=timezone.utc)
    again = sync(server.pipeline(), repoll=["final"], since=since, **asking)
    assert (capped.asked, rest.asked, again.asked) == (100, 800, 61)
    assert server.rows("SELECT DISTINCT attempts FROM zalo.ref_ids ORDER BY 1") == [
        1,
        2,
    ]


def test_missing_table_is_refused(server, asking):
    """A table that isn't there is named, in one line."""
    server.use("nowhere", dataset_name="Crm")
    with pytest.raises(RefIdTableError, match=r"no table 'Crm.nowhere'") as caught:
        sync(server.pipeline(), **asking)
    assert "\n" not in str(caught.value)


def test_missing_grant_is_told(server, asking):
    """A schema or table that may not be read says which grant it takes."""
    server.use_crm()
    reader = f"reader_{next(NUMBERS)}"
    server.execute(f"CREATE ROLE {reader} LOGIN")
    server.use(credentials=server.url.replace("postgres:any@", f"{reader}:any@"))
    grants = (
        f'GRANT USAGE ON SCHEMA "Crm" TO "{reader}"',
        f'GRANT SELECT ON "Crm"."Sent Messages" TO "{reader}"',
    )
    for grant in grants:
        with pytest.raises(RefIdTableError, match="permission denied") as caught:
            sync(server.pipeline(), **asking)
        assert str(caught.value).endswith(f"; {grant}")
        assert "\n" not in str(caught.value)
        server.execute(grant)
    assert sync(server.pipeline(), max_ref_ids=5, **asking).asked == 5


def test_unreachable_warehouse_is_told(server, asking, tmp_path: Path):
    """A warehouse that doesn't answer is an error of one line."""
    nowhere = f"postgresql://u:pw@localhost/db?host={tmp_path}"
    server.use("sent", credentials=nowhere)
    with pytest.raises(RefIdTableError, match="the warehouse can't be read") as caught:
        sync(server.pipeline(), **asking)
    assert "\n" not in str(caught.value)


def test_unreachable_destination_is_told(server, asking, tmp_path: Path):
    """A destination that doesn't answer is an error of one line."""
    server.use_crm()
    nowhere = f"postgresql://u:pw@localhost/db?host={tmp_path}"
    destination = dlt.destinations.postgres(nowhere)
    pipeline = dlt.pipeline("esms", destination=destination, dataset_name="zalo")
    with pytest.raises((DestinationError, ConfigError)) as caught:
        sync(pipeline, **asking)
    assert "\n" not in str(caught.value)


def test_check_knows_postgres(server, asking, monkeypatch):
    """Warehouse and ledger are counted, also before the first run."""
    server.use_crm()
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", server.url)
    for name, value in asking.items():
        monkeypatch.setenv(f"SOURCES__ESMS__{name.upper()}", str(value))
    found = {o.name: o.said for o in checks("esms", "zalo", "postgres")}
    assert str(found["warehouse"]).startswith("900 rows")
    assert "0 RefIds in the ledger" in str(found["destination"])


def test_user_who_may_not_load_is_refused(server, asking, simulate):
    """Before anything is asked, the grant that is missing is named."""
    server.use_crm()
    simulator = simulate()
    name = f"nobody_{next(NUMBERS)}"
    server.execute(f"CREATE ROLE {name} LOGIN")
    pipeline = server.pipeline(role=name)
    with pytest.raises(DestinationError, match="GRANT CREATE ON DATABASE"):
        sync(pipeline, **asking | {"base_url": simulator.url})
    assert simulator.arrivals.requests == 0
    server.execute(
        f"CREATE SCHEMA zalo AUTHORIZATION {name}",
        f"CREATE SCHEMA zalo_staging_esms AUTHORIZATION {name}",
    )
    assert sync(pipeline, **asking).asked == 900


def test_user_who_may_only_read_is_refused(server, asking, simulate):
    """Tables that another role made need grants of their own: told before asking."""
    server.use_crm()
    sync(server.pipeline(), max_ref_ids=10, **asking)
    simulator = simulate()
    name = f"viewer_{next(NUMBERS)}"
    server.execute(
        f"CREATE ROLE {name} LOGIN",
        f"GRANT CREATE ON DATABASE {urlsplit(server.url).path[1:]} TO {name}",
        f"GRANT USAGE ON SCHEMA zalo TO {name}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA zalo TO {name}",
    )
    pipeline = server.pipeline("viewer", name)
    with pytest.raises(DestinationError, match="GRANT SELECT, INSERT, UPDATE, DELETE"):
        sync(pipeline, **asking | {"base_url": simulator.url})
    assert simulator.arrivals.requests == 0


def test_check_names_the_index_of_a_large_ledger(server, asking, monkeypatch):
    """Where the ledger is large and has none, and not once it is made as told."""
    server.use_crm()
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", server.url)
    for name, value in asking.items():
        monkeypatch.setenv(f"SOURCES__ESMS__{name.upper()}", str(value))
    sync(server.pipeline(), max_ref_ids=10, **asking)

    def told() -> str:
        outcomes = checks("esms", "zalo", "postgres")
        return next(o.said for o in outcomes if o.name == "destination")

    assert told().endswith("10 RefIds in the ledger")
    monkeypatch.setattr(check, "LARGE_LEDGER", 10)
    index = 'CREATE UNIQUE INDEX CONCURRENTLY ON "zalo"."ref_ids" (ref_id, oa_id)'
    assert told().endswith(f"merges are faster with {index}")
    server.execute(index)
    assert told().endswith("10 RefIds in the ledger")
    assert sync(server.pipeline(), **asking).asked == 890


def test_workers_side_by_side_lose_nothing(
    server, asking, monkeypatch, simulate, tmp_path: Path
):
    """Three workers make and fill one dataset at once, each staging for itself."""
    server.use_crm()
    simulator = simulate()
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", server.url)
    store = f"sqlite:///{tmp_path / 'budget.sqlite'}"
    asking |= {"rate_limit_store": store, "requests_per_second": 20}
    asking |= {"slice_ref_ids": 200, "batch_size": 50, "base_url": simulator.url}
    for name, value in asking.items():
        monkeypatch.setenv(f"SOURCES__ESMS__{name.upper()}", str(value))
    command = ["run", "--json", "--destination", "postgres", "--pipeline"]
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "esms_source",
                *command,
                f"worker_{oa_id}",
                "--oa-id",
                oa_id,
            ],
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for oa_id in ("oa0", "oa1", "oa2")
    ]
    outs = [worker.communicate(timeout=60) for worker in workers]
    errors = [error for _, error in outs]
    assert [worker.returncode for worker in workers] == [0, 0, 0], errors
    assert [json.loads(out)["asked"] for out, _ in outs] == [300, 300, 300]
    sums = "SELECT sum(asked), sum(answered), sum(rows) FROM zalo.api_requests"
    assert server.rows(sums) == [(900, 900, 900)]
    assert server.rows(
        "SELECT count(*), count(DISTINCT ref_id) FROM zalo.callbacks"
    ) == [(900, 900)]
    assert server.rows(
        "SELECT oa_id, count(*) FROM zalo.ref_ids GROUP BY 1 ORDER BY 1"
    ) == [
        ("oa0", 300),
        ("oa1", 300),
        ("oa2", 300),
    ]
    assert simulator.arrivals.most_in_one_second <= 20
