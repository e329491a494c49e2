from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlglot
from click.testing import CliRunner
from dlt.common.destination.reference import DestinationReference
from sqlglot import exp

import esms_source
from esms_source import databases
from esms_source.cli import main
from esms_source.load.scope import NOTES
from esms_source.planning import database
from esms_source.sql import in_dialect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from esms_source.simulator import Simulator
    from tests.conftest import Warehouse

pytestmark = pytest.mark.slow

DESTINATIONS = (
    *("athena", "bigquery", "clickhouse", "databricks", "motherduck"),
    *("mssql", "postgres", "redshift", "snowflake"),
)
TABLES = {*databases.NAMES_IN_SQL, NOTES, "sent"}

COMMANDS = (
    "run --max-ref-ids 30",
    "run",
    "run --repoll final --since 2026-01-01",
    "plan --all",
    "check",
    "lookup {known}",
    "settle --ref-ids {file}",
    "forget --ref-ids {file}",
    "forget --phone 0909090909",
)


@pytest.fixture
def sent(
    postgres: str,
    warehouse: Warehouse,
    simulate: Callable[..., Simulator],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> set[tuple[str, tuple[str, ...]]]:
    """Every statement that the commands send to a server, with the names in it."""
    said: set[tuple[str, tuple[str, ...]]] = set()

    def record(sql: str, dialect: str | None, relations: Iterable[str] = ()) -> str:
        said.add((sql, tuple(relations)))
        return in_dialect(sql, dialect, relations)

    monkeypatch.setattr(databases, "in_dialect", record)
    monkeypatch.setattr(database, "in_dialect", record)
    warehouse.fill(100, oas=2)
    names = {
        "CREDENTIALS": postgres,
        "DESTINATION": "postgres",
        "TABLE": "sent",
        "OA_ID_COLUMN": "oa_id",
        "SENT_AT_COLUMN": "sent_at",
        "CARRY": '["campaign"]',
    }
    copy_to(postgres, warehouse)
    for name, value in names.items():
        monkeypatch.setenv(f"SOURCES__ESMS__REF_IDS__{name}", value)
    for name, value in {
        "BASE_URL": simulate(plain=False).url,
        "API_KEY": "KEY0of0tests0A1B2C3",
        "SECRET_KEY": "SECRET0of0tests0D4E5F6",
        "REQUESTS_PER_SECOND": "500",
        "KEEP_REQUESTS": "1",
        "ASK_MISSING": "true",
        "SENT_MESSAGES": "true",
    }.items():
        monkeypatch.setenv(f"SOURCES__ESMS__{name}", value)
    monkeypatch.setenv("SOURCES__ESMS__REST_BASE_URL", simulate(plain=False).url)
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres)
    ref_ids = warehouse.rows("SELECT ref_id FROM sent LIMIT 3")
    file = tmp_path / "some.csv"
    with file.open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines).writerows([["ref_id"], *([ref_id] for ref_id in ref_ids)])
    for command in COMMANDS:
        words = command.format(known=ref_ids[0], file=file).split()
        ended = CliRunner().invoke(main, [*words, "--destination", "postgres"])
        assert ended.exit_code in (0, 1), ended.output
    return said


def copy_to(url: str, warehouse: Warehouse) -> None:
    """Copy the table of the warehouse to a server."""
    import psycopg2  # noqa: PLC0415  slow

    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE sent (ref_id text, oa_id text, sent_at timestamptz,"
            " campaign text)"
        )
        rows = warehouse.rows("SELECT ref_id, oa_id, campaign FROM sent")
        # Lately, so that few days are read of what eSMS sent.
        values = "(%s, %s, now() - interval '2 hours', %s)"
        cursor.executemany(f"INSERT INTO sent VALUES {values}", rows)
    connection.close()


def test_every_statement_is_read_in_every_dialect(sent):
    """Names are those that dlt writes there, and sqlglot reads all that is sent."""
    assert len(sent) > 40
    for destination in DESTINATIONS:
        factory: Any = DestinationReference.from_reference(destination)
        capabilities = factory.capabilities()
        dialect = capabilities.sqlglot_dialect
        fold, escape = capabilities.casefold_identifier, capabilities.escape_identifier
        for sql, relations in sent:
            renamed, names = sql, []
            for relation in sorted(relations, key=len, reverse=True):
                parts = relation.replace('"', "").split(".")
                names.append(".".join(escape(fold(part)) for part in parts))
                renamed = renamed.replace(relation, names[-1])
            rendered = in_dialect(renamed, dialect, names)
            (tree,) = sqlglot.parse(rendered, read=dialect)
            assert tree is not None
            tables = {table.name for table in tree.find_all(exp.Table)} - {"copied"}
            assert tables, rendered
            assert tables <= {fold(name) for name in TABLES}, rendered
    # SQLAlchemy's databases name no dialect to dlt, but sqlglot writes theirs as well.
    for dialect in ("mysql", "sqlite"):
        for statement, relations in sent:
            sql, names = statement, [name.replace('"', "") for name in relations]
            for relation, name in zip(relations, names, strict=True):
                sql = sql.replace(relation, name)
            said = in_dialect(sql, dialect, names)
            assert sqlglot.parse_one(said, read=dialect).sql()


def test_sql_of_ours_is_sent_through_one_door():
    """No statement on our tables goes past what renders it."""
    folder = Path(esms_source.__file__).parent
    bare = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if "client.execute_sql(" in path.read_text("utf-8")
        or "client.execute_query(" in path.read_text("utf-8")
    }
    # Views, locks, grants and notes for merges are written for the databases that have
    # them; the page reads one of two databases, ``esms query`` what the user writes.
    assert bare == {
        *("cli/query.py", "databases/__init__.py", "load/alchemy.py"),
        *("load/checks.py", "load/locks.py", "load/scope.py"),
        *("planning/database.py", "report/figures.py", "views/__init__.py"),
    }
