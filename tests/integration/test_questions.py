from __future__ import annotations

import re
from pathlib import Path

import dlt
import duckdb
import pytest

from esms_source import sync
from esms_source.cli.demo import World
from esms_source.simulator import Behaviour, Simulator

PAGE = Path(__file__).parents[2] / "docs" / "questions.md"
QUESTION = re.compile(r"^## (.+)\n\n```sql\n([^`]+)```\n\n((?:\|.+\n)+)", re.MULTILINE)
QUESTIONS = QUESTION.findall(PAGE.read_text("utf-8"))


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
        settings = world.settings(simulator.url) | {"repoll_after": 0.0}
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


def test_there_are_fifteen_questions():
    """The page is read as a whole."""
    assert len(QUESTIONS) == PAGE.read_text("utf-8").count("\n## ") == 15


@pytest.mark.parametrize(
    ("sql", "expected"),
    [question[1:] for question in QUESTIONS],
    ids=[question[0] for question in QUESTIONS],
)
def test_the_answer_is_the_one_on_the_page(answers: Path, sql: str, expected: str):
    """Each query gives what its table shows."""
    assert answer(answers, sql) == expected


def test_the_five_queries_of_the_readme_have_an_answer(answers):
    """What the README tells an analyst to try works on real data."""
    readme = (PAGE.parents[1] / "README.md").read_text("utf-8")
    queries = re.search(r"```sql\n([^`]+)```", readme)
    assert queries
    statements = [text for text in queries[1].split(";\n") if text.strip()]
    assert len(statements) == 5
    with duckdb.connect(answers, read_only=True) as connection:
        for statement in statements:
            assert connection.execute(statement).fetchall(), statement
