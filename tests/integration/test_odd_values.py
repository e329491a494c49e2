"""Arbitrary answers the whole way: from the wire into DuckDB and PostgreSQL."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

import duckdb
import psycopg2
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esms_source.api.endpoints import CallbackClient
from esms_source.api.fields import COLUMN_OF
from esms_source.api.request import Request
from esms_source.ledger import WORK
from esms_source.rows.recorder import Recorder
from esms_source.runtime import Counts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esms_source.config import Settings
    from tests.conftest import Hostile, Output, Warehouse
    from tests.integration.conftest import Esms

HALF = rb"\ud83d"
CESU = b"\xed\xa0\xbd\xed\xb8\x80"
DEEP = b"[" * 900 + b"]" * 900
DEEPER = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
ERROR = rb'"{\"error\":-5,\"message\":\"m\",\"data\":%s}"'

JSON_COLUMNS: Final = {"extra", "error_data", "row"}

ODD: Final[tuple[bytes, ...]] = (
    ERROR % rb"{\"note\":\"\ud83d\"}",
    ERROR % rb"{\"note\":\"\\ud83d\"}",
    ERROR % rb"{\"\\ud83d\":1,\"\\\\ud83d\":2}",
    ERROR % rb"{\"a\\u0000\":\"\\u0000\"}",
    ERROR % (b"[" * 900 + b"]" * 900),
    ERROR % b"1E400",
    ERROR % (b"9" * 5_000),
    ERROR % b"NaN",
    rb'"%7B%22error%22:-5,%22message%22:%22%00%22,%22data%22:%22%ED%A0%BD%22%7D"',
    b'"%257B%2522error%2522:%2522%2500%2522%257D"',
    b'"' + HALF + b'"',
    b'"' + CESU + b'"',
    rb'"\u0000"',
    b'"\x00\x01\x1f\x7f"',
    b'"\xe9\xff"',
    "\ufeff\ufffe\uffff\u202e😀".encode().join([b'"', b'"']),
    DEEP,
    DEEPER,
    b'{"a":1,"a":2,"a":{"b":1,"b":null}}',
    rb'{"a\u0000":1,"a\\u0000":2,"\ud83d":3,"\\ud83d":4}',
    b"1E400",
    b"-1E-99999",
    b"1E+999999999999999999999",
    b"9" * 5_000,
    b"-0.0",
    b"200.30000000000001",
    b"99999999999999.99999",
    b"9223372036854775808",
    b"NaN",
    b"-Infinity",
    b"true",
    b"[]",
    b"{}",
    b'"1_000"',
    '"٣"'.encode(),
    '"\N{FULLWIDTH DIGIT FIVE}"'.encode(),
    b'"NaN"',
    b'"1E400"',
    b'" 5 "',
    b'""',
)
"""Values as they stand in an answer; each may stand in any field."""

FIELDS = (*COLUMN_OF, "ErrorInfo", "OAId", "New", "SMSID", "sent\\u0000", "\\ud83d")

any_json: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.text(alphabet='{}[]":,\\%0dDu8error-', max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=6,
)
odd_values = st.sampled_from(ODD) | any_json.map(
    lambda value: json.dumps(value).encode()
)
odd_members = st.tuples(st.sampled_from(FIELDS), odd_values)
odd_rows = st.lists(odd_members, max_size=4)


Members = list[tuple[str, bytes]]


def row(ref_id: str, members: Members) -> bytes:
    """Return a row of an answer, whose members may stand there twice."""
    sound = {"SendStatus": b"5", "SendSuccess": b"1", "SendFailed": b"0"}
    sound = {name: value for name, value in sound.items() if name not in dict(members)}
    all_of_them = [*members, *sound.items(), ("SMSID", json.dumps(ref_id).encode())]
    parts = [b'"%s":%s' % (name.encode(), value) for name, value in all_of_them]
    return b"{" + b",".join(parts) + b"}"


def answer(rows: list[bytes]) -> bytes:
    """Return an answer of some rows."""
    return b'{"Code":100,"Data_callback":[' + b",".join(rows) + b"]}"


class Databases:
    """What takes texts and JSON as dlt puts them there."""

    def __init__(self, url: str) -> None:
        self._duckdb = duckdb.connect()
        self._postgres = psycopg2.connect(url)
        self._postgres.autocommit = True

    def close(self) -> None:
        """Close both."""
        self._duckdb.close()
        self._postgres.close()

    def take(self, table: pa.Table) -> None:
        """Store all texts of a table, JSON as JSON, and compare what is there then."""
        for field in table.schema:
            if not pa.types.is_string(field.type):
                continue
            values = table[field.name].to_pylist()
            kind = "json" if field.name in JSON_COLUMNS else "text"
            in_duckdb = self._duckdb.execute(f"SELECT $1::{kind}[]", [values])
            assert in_duckdb.fetchall() == [(values,)]
            with self._postgres.cursor() as cursor:
                cursor.execute(
                    f"SELECT %s::{kind}{'b' * (kind == 'json')}[]", (values,)
                )
                in_postgres = cursor.fetchall()
            assert kind == "json" or in_postgres == [(values,)]


@pytest.fixture(scope="module")
def databases(postgres: str) -> Iterator[Databases]:
    """Both databases."""
    made = Databases(postgres)
    yield made
    made.close()


Way = Callable[[list[str], bytes], dict[str, pa.Table]]


@pytest.fixture
def way(
    make_settings: Callable[..., Settings], hostile: Callable[..., Hostile]
) -> Iterator[Way]:
    """Ask for RefIds, get an answer, make rows of it: the way to the load."""
    server = hostile(lambda *_: b"")
    made = make_settings(base_url=server.url)
    client = CallbackClient(made)

    def go(ref_ids: list[str], content: bytes) -> dict[str, pa.Table]:
        server.answer = lambda *_: content
        planned = [{"oa_id": "oa0", "ref_id": ref_id} for ref_id in ref_ids]
        request = Request("oa0", pa.Table.from_pylist(planned, schema=WORK))
        request.started_at = request.polled_at = datetime.now(timezone.utc)
        client.ask(request, lambda: None)
        polled = Recorder(made, "1.0", Counts()).record([request])
        client.release([request])
        return polled

    yield go
    client.close()


@given(data=st.lists(odd_rows, min_size=50, max_size=200))
@settings(
    max_examples=int(os.environ.get("ESMS_TEST_EXAMPLES", "4")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_any_value_costs_at_most_its_own_row(
    data: list[Members], way: Way, databases: Databases
) -> None:
    """Each row finds its RefId, and both databases take what becomes of the values."""
    ref_ids = [f"r{number}" for number in range(len(data))]
    rows = [row(ref_id, members) for ref_id, members in zip(ref_ids, data, strict=True)]
    polled = way(ref_ids, answer(rows))
    assert polled["callbacks"]["ref_id"].to_pylist() == ref_ids
    assert not polled["rejected_rows"].num_rows
    for table in polled.values():
        databases.take(table)


@given(rows=st.lists(odd_values, min_size=50, max_size=200))
@settings(
    max_examples=int(os.environ.get("ESMS_TEST_EXAMPLES", "4")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_what_is_no_row_is_rejected_and_stored(
    rows: list[bytes], way: Way, databases: Databases
) -> None:
    """A sound row beside them is loaded."""
    polled = way(["r0"], answer([*rows, row("r0", [])]))
    assert polled["callbacks"]["ref_id"].to_pylist() == ["r0"]
    assert polled["rejected_rows"].num_rows == len(rows)
    for table in polled.values():
        databases.take(table)


@pytest.mark.parametrize("place", range(len(ODD)))
@pytest.mark.parametrize("field", ["ErrorInfo", "TotalPrice", "SMSID", "New"])
def test_an_odd_value_is_kept_beside_sound_rows(
    field: str, place: int, way: Way, databases: Databases
) -> None:
    """Each of those that were seen or thought of, alone."""
    polled = way(
        ["r0", "r1"], answer([row("r0", [(field, ODD[place])]), row("r1", [])])
    )
    first, second = polled["callbacks"].to_pylist()
    assert (first["ref_id"], second["ref_id"]) == ("r0", "r1")
    kept = (first["extra"], first["error_info"], first["total_price"])
    assert any(part is not None for part in kept)
    assert second["extra"] is None
    for table in polled.values():
        databases.take(table)


def test_members_with_one_name_are_all_kept(way: Way) -> None:
    """The last one counts, as for most readers of JSON; the others are in ``extra``."""
    twice = [("SendStatus", b"1"), ("SendStatus", b"4"), ("SendStatus", b'"2"')]
    polled = way(["r0"], answer([row("r0", twice)]))
    (only,) = polled["callbacks"].to_pylist()
    assert only["send_status"] == 2
    assert json.loads(only["extra"]) == {"SendStatus (2)": 4, "SendStatus (3)": 1}


def test_what_comes_is_loaded_by_a_run(
    esms: Esms, warehouse: Warehouse, hostile: Callable[..., Hostile], output: Output
) -> None:
    """All odd values at once, each in a row of its own, cost no row and no run."""
    warehouse.fill(len(ODD))
    server = hostile(
        lambda _, ref_ids: answer(
            [
                row(ref_id, [("ErrorInfo", value), ("New", value)])
                for ref_id, value in zip(ref_ids, ODD, strict=True)
            ]
        )
    )
    ended = esms(base_url=server.url)
    assert (ended.status, ended.report["answered"]) == (0, len(ODD)), ended.err
    assert output.rows("SELECT count(*) FROM callbacks WHERE json_valid(extra)") == [
        len(ODD)
    ]
