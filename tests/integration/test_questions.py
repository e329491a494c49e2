from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dlt
import duckdb
import pytest

from esms_source import sync
from esms_source.cli.demo import World
from esms_source.simulator import Behaviour, Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Warehouse

pytestmark = pytest.mark.slow

PAGE: Final = Path(__file__).parents[2] / "docs" / "questions.md"
README: Final = PAGE.parents[1] / "README.md"
OTHERS: Final = ("alerts.md", "debug-a-run.md", "vi/bat-dau.md")
"""Pages with further queries."""

VARYING: Final = ("load_id", "pipeline_name")
"""Columns whose values differ from database to database, where they come first."""

SECTION: Final = re.compile(r"([^\n]+)\n\n(.*?)```sql\n([^`]+)```\n\n(.+)", re.DOTALL)
QUESTIONS: Final = [
    match.groups()
    for section in PAGE.read_text("utf-8").split("\n## ")[1:]
    if (match := SECTION.fullmatch(section.strip() + "\n"))
]
"""Of each question: its title, a note, its SQL and the answer on the page."""

CARRIED: Final = ("campaign", "template")


def readme_queries() -> list[str]:
    """Return what the README tells an analyst to try."""
    block = re.search(r"```sql\n([^`]+)```", README.read_text("utf-8"))
    assert block
    return [text for text in block[1].split(";\n") if text.strip()]


def other_queries() -> list[str]:
    """Return the queries of other pages."""
    blocks = [
        block
        for name in OTHERS
        for block in re.findall(
            r"```sql\n([^`]+)```", (PAGE.parent / name).read_text("utf-8")
        )
    ]
    return [text for block in blocks for text in block.split(";\n") if text.strip()]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's data after two runs, the first message sent on 5 January 2026."""
    world = World(tmp_path_factory.mktemp("demo"))
    world.make()
    with duckdb.connect(world.warehouse) as connection:
        connection.execute(
            "UPDATE zns_messages SET sent_at = TIMESTAMPTZ '2026-01-05 00:00:00+07'"
            " + (sent_at - (SELECT min(sent_at) FROM zns_messages))"
        )
    pipeline = dlt.pipeline(
        "questions",
        destination=dlt.destinations.duckdb(str(world.result)),
        dataset_name="zalo",
        pipelines_dir=str(world.pipelines),
    )
    with Simulator(Behaviour(seed=7, rate=None)) as simulator:
        settings = world.settings(simulator.url)
        # What stays missing is among the answers.
        settings |= {"repoll_after": 0.0, "ask_missing": False}
        for _ in range(2):
            sync(pipeline, **settings, requests_per_second=1_000)
    return world.result


def answer(path: Path, sql: str) -> str:
    """Return what a query selects, as the page writes it."""
    with duckdb.connect(path, read_only=True) as connection:
        connection.execute("USE zalo")
        cursor = connection.execute(sql)
        names = [column[0] for column in cursor.description or ()]
        rows = [names, ["---"] * len(names), *cursor.fetchall()]
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


def test_there_are_seventeen_questions():
    """The page is read as a whole."""
    assert len(QUESTIONS) == PAGE.read_text("utf-8").count("\n## ") == 17


@pytest.mark.parametrize(
    ("sql", "expected"),
    [question[2:] for question in QUESTIONS],
    ids=[question[0] for question in QUESTIONS],
)
def test_the_answer_is_the_one_on_the_page(answers: Path, sql: str, expected: str):
    """Each query gives what its table shows."""
    assert answer(answers, sql) == expected


def test_a_question_says_which_carried_column_it_needs():
    """Not everybody has the demo's columns."""
    for title, note, sql, _ in QUESTIONS:
        for column in CARRIED:
            needed = re.search(rf"\b{column}\b", sql) is not None
            assert (f'carry = ["{column}"]' in note) == needed, title


@pytest.fixture
def two_databases(
    postgres: str,
    tmp_path: Path,
    warehouse: Warehouse,
    simulate: Callable[..., Simulator],
    api_key: str,
    secret_key: str,
) -> Iterator[dict[str, dlt.Pipeline]]:
    """The same answers in DuckDB and PostgreSQL, with campaigns that reach nobody."""
    warehouse.execute(
        "CREATE TABLE sent AS SELECT 'oa' || n % 2 AS oa_id, md5(n::VARCHAR) AS ref_id,"
        " TIMESTAMPTZ '2026-01-05 00:00:00+00' + to_hours(n) AS sent_at,"
        " 'c' || n % 4 AS campaign, 't' || n % 3 AS template FROM range(400) AS t(n)"
    )
    columns = {"oa_id_column": "oa_id", "sent_at_column": "sent_at"}
    warehouse.use(carry=list(CARRIED), **columns)
    destinations: dict[str, Any] = {
        "duckdb": dlt.destinations.duckdb(str(tmp_path / "out.duckdb")),
        "postgres": dlt.destinations.postgres(postgres),
    }
    pipelines = {}
    for name, destination in destinations.items():
        pipeline = dlt.pipeline(
            name,
            destination=destination,
            dataset_name="zalo",
            pipelines_dir=str(tmp_path / "pipelines"),
        )
        sync(
            pipeline,
            api_key=api_key,
            secret_key=secret_key,
            base_url=simulate(plain=False).url,
            requests_per_second=1_000,
        )
        with pipeline.sql_client() as client:
            client.execute_sql(
                "UPDATE callbacks SET delivery = 'failed', send_success = 0,"
                " send_failed = 1 WHERE ref_id IN"
                " (SELECT ref_id FROM ref_ids WHERE campaign = 'c0')"
            )
            client.execute_sql(
                "DELETE FROM callbacks WHERE ref_id IN"
                " (SELECT ref_id FROM ref_ids WHERE campaign = 'c1')"
            )
        pipelines[name] = pipeline
    yield pipelines
    with pipelines["postgres"].sql_client() as client:
        client.drop_dataset()


def plain(value: object) -> object:
    """Return a value as it is in every database, of numbers seven digits."""
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return f"{float(value):.7g}"
    return value


def test_all_published_queries_run_on_duckdb_and_postgresql(
    two_databases: dict[str, dlt.Pipeline],
):
    """Both give the same answer, also where a campaign has no delivered message."""
    asked = [question[2] for question in QUESTIONS]
    for sql in [*asked, *readme_queries(), *other_queries()]:
        results = []
        for pipeline in two_databases.values():
            with pipeline.sql_client() as client:
                rows = client.execute_sql(sql) or ()
            results.append(sorted([repr(tuple(map(plain, row))) for row in rows]))
        if re.search(rf"SELECT ({'|'.join(VARYING)})\b", sql):
            assert len(results[0]) == len(results[1]), sql
        else:
            assert results[0] == results[1], sql


def test_the_five_queries_of_the_readme_have_an_answer(answers: Path):
    """What the README tells an analyst to try works on real data."""
    statements = readme_queries()
    assert len(statements) == 5
    with duckdb.connect(answers, read_only=True) as connection:
        for statement in statements:
            assert connection.execute(statement).fetchall(), statement
