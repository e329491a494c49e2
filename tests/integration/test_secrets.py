"""Where key, secret, phone numbers and RefIds may stand, and where never."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

import duckdb
import pytest

from esms_source.simulator import sample_row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from esms_source.simulator import Simulator
    from tests.conftest import Output, Scripted, Warehouse
    from tests.integration.conftest import Ended, Esms

pytestmark = pytest.mark.slow


PHONE = "0909123457"
HASH_KEY = "HASH0of0tests0G7H8I9"
COUNT = 30


def _all_values(path: Path) -> str:
    """Return every value of every table of a DuckDB file as one text."""
    with duckdb.connect(path) as connection:
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables"
        ).fetchall()
        return "\n".join(
            str(connection.execute(f'FROM "{schema}"."{table}"').fetchall())
            for schema, table in tables
        )


def _all_files(folder: Path) -> list[tuple[Path, bytes]]:
    return [(path, path.read_bytes()) for path in folder.rglob("*") if path.is_file()]


class World:
    """Messages whose phone shows up in row, error and RefId; and what leaks."""

    def __init__(
        self, esms: Esms, warehouse: Warehouse, serve: Callable[..., Simulator]
    ) -> None:
        self._serve = serve
        self.esms = esms
        self.ref_ids = [
            hashlib.md5(str(i).encode()).hexdigest() + PHONE  # noqa: S324  no secret
            for i in range(COUNT)
        ]
        warehouse.execute(
            "CREATE TABLE sent AS SELECT 'oa0' AS oa_id,"
            f" md5(i::VARCHAR) || '{PHONE}' AS ref_id FROM range({COUNT}) AS t(i)"
        )
        warehouse.use(oa_id_column="oa_id")
        esms.set(RUNTIME__LOG_LEVEL="DEBUG", repoll_after=0)

    def serve(self, **behaviour: object) -> None:
        """Let a simulator answer from now on."""
        rows = {
            ref_id: [
                sample_row(
                    ref_id,
                    PhoneNumber=PHONE,
                    CallbackUrl="https://me.example/back?token=t0k3n",
                    NewPhone=PHONE,
                ),
                sample_row(f"{ref_id}9", PhoneNumber=PHONE),
            ]
            for ref_id in self.ref_ids
        }
        self._serve(scripted=rows, **behaviour)

    def assert_nothing_said(self, ended: Ended) -> None:
        """Check what a run wrote to stdout and stderr, logs at DEBUG included."""
        said = ended.out + ended.err
        for text in (*self.secrets, PHONE, *self.ref_ids):
            assert text not in said

    def assert_no_secret_kept(self, output: Output) -> None:
        """Check every table, and every file that dlt keeps."""
        tables = _all_values(output.path)
        for secret in self.secrets:
            assert secret not in tables
            for path, content in _all_files(self.esms.folder):
                assert secret.encode() not in content, path

    @property
    def secrets(self) -> tuple[str, ...]:
        """Key, secret and the key of the hash."""
        names = ("API_KEY", "SECRET_KEY", "PHONE_HASH_KEY")
        env = self.esms.env
        return tuple(env[name] for n in names if (name := f"SOURCES__ESMS__{n}") in env)


@pytest.fixture
def world(esms: Esms, warehouse: Warehouse, world: Callable[..., Simulator]) -> World:
    """Messages with phones."""
    return World(esms, warehouse, world)


def test_a_run_at_debug_says_and_keeps_no_secret(world: World, output: Output) -> None:
    """Nor does it say a phone number or a whole RefId."""
    world.serve()
    ended = world.esms("run")
    assert ended.status == 0
    assert "[DEBUG]" in ended.err
    world.assert_nothing_said(ended)
    world.assert_no_secret_kept(output)
    assert output.rows("SELECT DISTINCT callback_url, phone_number FROM callbacks") == [
        ("https://me.example/back", PHONE)
    ]


@pytest.mark.parametrize(
    "faults",
    ["500=1", "drop=1", "html=1", "unknown=1", "redirect=1", "refuse_key=1", "huge=1"],
)
def test_a_failing_run_says_and_keeps_no_secret(
    faults: str, world: World, output: Output
) -> None:
    """Whatever goes wrong on the wire."""
    world.serve(faults=faults)
    ended = world.esms("run", max_attempts=1, batch_size=10)
    assert ended.status == 1
    world.assert_nothing_said(ended)
    world.assert_no_secret_kept(output)


def test_a_crash_keeps_no_secret(world: World, output: Output) -> None:
    """Neither in the load that it leaves pending nor in any state."""
    world.serve()
    for point in (("asking", 2), ("before the load", 1), ("after a merge", 1)):
        world.esms.killed_at(*point)
    world.assert_no_secret_kept(output)


@pytest.mark.parametrize(
    "spoil",
    [
        "ALTER TABLE callbacks ALTER phone_number TYPE DATE",
        "CREATE UNIQUE INDEX one_phone ON callbacks (phone_number)",
        "CREATE UNIQUE INDEX one_row ON rejected_rows (reason)",
        "ALTER TABLE ref_ids ALTER ref_id TYPE UUID",
    ],
)
def test_a_refused_load_is_said_without_the_value(
    spoil: str, world: World, output: Output
) -> None:
    """Databases quote what they can't take; logs, stderr and traces don't."""
    world.serve()
    assert world.esms("run", "--max-ref-ids", "0").status == 0
    assert world.esms("run", "--max-ref-ids", "1").status == 0
    for table in ("callbacks", "ref_ids", "rejected_rows"):
        output.execute(f"CREATE OR REPLACE TABLE {table} AS FROM {table} LIMIT 0")
    output.execute(spoil)
    world.esms.most_loads = 8
    ended = world.esms("run")
    assert ended.status == 1
    assert "Traceback" not in ended.err
    world.assert_nothing_said(ended)
    world.assert_no_secret_kept(output)


def test_a_message_of_the_api_is_masked(world: World, scripted: Scripted) -> None:
    """The API's own texts may name a phone."""
    scripted.say({"Code": "108", "Message": f"The phone number {PHONE} is not valid."})
    world.esms.set(base_url=scripted.url)
    ended = world.esms("run", max_attempts=1)
    assert ended.status == 1
    assert "Code 108 (The phone number 090… is not valid.)" in ended.err
    world.assert_nothing_said(ended)


@pytest.mark.parametrize("policy", ["hash", "drop"])
def test_phone_numbers_are_hidden_in_tables(
    policy: str, world: World, output: Output
) -> None:
    """In the column and in ``extra``; only RefIds stay as they are."""
    world.serve()
    settings = {"phone_number": policy, "phone_hash_key": HASH_KEY}
    world.esms.set(**settings)
    ended = world.esms("run")
    assert ended.status == 0
    hashed = hmac.new(HASH_KEY.encode(), PHONE.encode(), hashlib.sha256).hexdigest()
    assert output.rows("SELECT DISTINCT phone_number FROM callbacks") == [
        hashed if policy == "hash" else None
    ]
    rows = output.rows("SELECT * EXCLUDE (ref_id, load_id) FROM callbacks")
    assert PHONE not in str(rows)
    world.assert_nothing_said(ended)
    world.assert_no_secret_kept(output)


def test_the_query_of_callback_urls_is_kept_on_demand(
    world: World, output: Output
) -> None:
    """``keep_callback_query`` keeps the token in the table, and in no log."""
    world.serve()
    ended = world.esms("run", keep_callback_query="true")
    assert "t0k3n" not in ended.out + ended.err
    assert output.rows("SELECT DISTINCT callback_url FROM callbacks") == [
        "https://me.example/back?token=t0k3n"
    ]
