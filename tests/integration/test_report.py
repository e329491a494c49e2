from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dlt
import pyarrow as pa
import pytest
from click.testing import CliRunner
from dlt.common.schema import Schema
from dlt.extract import DltSource

from esms_source import report
from esms_source.cli.commands import main
from esms_source.codes import small_tables
from esms_source.exceptions import ConfigError, DestinationError
from esms_source.report import figures, folding, make_page, write_report
from esms_source.tables import API_REQUESTS, CALLBACKS, POLLED, REF_IDS, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from esms_source.config import Settings

SENT_AT = datetime(2026, 1, 5, 18, tzinfo=timezone.utc)
"""In Vietnam it is the 6th already."""
REF_ID = "4a496110-secret-ref-id-"
PHONE = "84901234567"

Rows = dict[Table, list[dict[str, Any]]]


@pytest.fixture(params=["duckdb", pytest.param("postgres", marks=pytest.mark.slow)])
def pipeline(request: pytest.FixtureRequest, tmp_path: Path):
    """An empty dataset on each kind of destination."""
    if request.param == "duckdb":
        destination: Any = dlt.destinations.duckdb(str(tmp_path / "out.duckdb"))
    else:
        destination = dlt.destinations.postgres(request.getfixturevalue("postgres"))
    pipeline = dlt.pipeline(
        "esms",
        destination=destination,
        dataset_name="report_zalo",
        pipelines_dir=str(tmp_path / "pipelines"),
    )
    yield pipeline
    with pipeline.sql_client() as client:
        if client.has_dataset():
            client.drop_dataset()


def load(pipeline: dlt.Pipeline, rows: Rows) -> None:
    """Load rows, and empty tables of the kinds that have none."""
    polled = [
        dlt.resource(
            [pa.Table.from_pylist(rows.get(table, []), schema=table.schema)],
            name=table.name,
            columns=table.to_dlt(),
        )
        for table in POLLED
    ]
    pipeline.run(DltSource(Schema("esms"), "esms", [*polled, *small_tables()]))
    with pipeline.sql_client() as client:
        # The load whose id the rows bear.
        client.execute_sql(
            "INSERT INTO _dlt_loads (load_id, schema_name, status, inserted_at)"
            " VALUES ('1', 'esms', 0, CURRENT_TIMESTAMP)"
        )


def message(number: int, state: str = "final", **values: object) -> dict[str, Any]:
    """Return a row of the ledger."""
    row: dict[str, Any] = {
        "oa_id": f"oa{number % 2}",
        "ref_id": f"{REF_ID}{number}",
        "sent_at": SENT_AT + timedelta(days=number % 3),
        "state": state,
        "attempts": 1,
        "first_polled_at": SENT_AT + timedelta(days=number % 3, hours=2),
        "last_polled_at": SENT_AT + timedelta(days=number % 3, hours=2),
        "last_error": f"no answer for {REF_ID}{number}",
        "load_id": "1",
    }
    return row | values


def callback(number: int, delivery: str = "delivered", **values: Any) -> dict[str, Any]:
    """Return a row of the callbacks."""
    row: dict[str, Any] = {
        "oa_id": f"oa{number % 2}",
        "ref_id": f"{REF_ID}{number}",
        "row_no": number,
        "delivery": delivery,
        "phone_number": PHONE,
        "total_price": Decimal("300.5") if delivery == "delivered" else Decimal(0),
        "telco_id": 1 + number % 2,
        "zns_temp_id": f"template{number % 4}",
        "error_code": -118 if delivery == "failed" else None,
        "error_message": f"{PHONE} is gone",
        "polled_at": SENT_AT + timedelta(hours=2),
        "load_id": "1",
    }
    return row | values


def world() -> Rows:
    """Twelve messages of all outcomes, one with three rows, in one request."""
    ledger = [message(n) for n in range(8)]
    ledger += [message(n, "pending") for n in (8, 9)]
    ledger += [message(10, "missing", sent_at=None), message(11, "failed")]
    callbacks = [callback(n, "failed" if n % 4 == 3 else "delivered") for n in range(8)]
    callbacks += [
        callback(0, "failed", row_no=100),
        callback(0, "partial", row_no=101),
        callback(8, "pending"),
    ]
    request = dict.fromkeys(API_REQUESTS.schema.names, 1) | {
        "oa_id": "oa0",
        "started_at": SENT_AT,
        "api_message": f"said something of {REF_ID}1",
        "outcome": "answered",
        "endpoint": "callback",
        "ended_at": SENT_AT,
        "run_id": "1",
        "load_id": "1",
    }
    return {REF_IDS: ledger, CALLBACKS: callbacks, API_REQUESTS: [request]}


def embedded(page: str) -> dict[str, Any]:
    """Return the figures that a page holds."""
    text = re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)
    assert text
    found: dict[str, Any] = json.loads(text[1])
    return found


def query(pipeline: dlt.Pipeline, sql: str) -> Sequence[Any]:
    """Return what a query selects in the dataset."""
    with pipeline.sql_client() as client:
        return client.execute_sql(sql) or ()


def test_figures_are_those_of_the_views_also_with_several_rows_per_ref_id(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
) -> None:
    """Counts, cost, reasons and days agree with the views that analysts read."""
    load(pipeline, world())
    found = figures.read_figures(pipeline, make_settings())
    cells, days = found["delivery"], found["days"]
    names = (*folding.OUTCOMES, "cost")
    seen = sorted(
        (days[day], found["oas"][oa], *(float(cells[name][n]) for name in names))
        for n, (day, oa) in enumerate(zip(cells["day"], cells["oa"], strict=True))
    )
    columns = ", ".join(names)
    expected = query(
        pipeline,
        f"SELECT sent_day, oa_id, {columns} FROM delivery_daily",
    )
    assert seen == sorted(
        (str(day), oa, *map(float, values)) for day, oa, *values in expected
    )
    reasons = query(pipeline, "SELECT sum(messages) FROM failure_reasons")
    assert sum(found["reasons"]["messages"]) == reasons[0][0] == 3
    assert days[0] == "2026-01-06"


def test_maturity_counts_as_its_view_does(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
) -> None:
    """Shares by day are those of the view, and a message without a time has none."""
    load(pipeline, world())
    found = figures.read_figures(pipeline, make_settings())
    cells = found["maturity"]
    finals = [sum(cells[f"final_{age}"]) for age in folding.AGES]
    assert finals == [0, 8, 8, 8]
    assert sum(cells["timed"]) == 11
    shares = query(
        pipeline,
        "SELECT sum(share_final_1h * sent), sum(share_final_6h * sent) FROM maturity",
    )
    assert [round(share) for share in shares[0]] == finals[:2]


def test_a_ref_id_under_two_oas_is_two_messages(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
) -> None:
    """Callbacks of the one don't count for the other."""
    twin = {"oa_id": "oa1"}
    load(
        pipeline,
        {
            REF_IDS: [message(0), message(0, **twin)],
            CALLBACKS: [callback(0), callback(0, "failed", **twin)],
        },
    )
    found = figures.read_figures(pipeline, make_settings())
    assert found["oas"] == ["oa0", "oa1"]
    assert found["delivery"]["delivered"] == [1, 0]
    assert found["delivery"]["failed"] == [0, 1]


def test_carried_columns_are_told_apart_but_nobody_by_them(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
) -> None:
    """Values of few messages are folded, and hours count in the time zone of days."""
    load(pipeline, world())
    with pipeline.sql_client() as client:
        for column in ("campaign", "telco_id"):
            client.execute_sql(f"ALTER TABLE ref_ids ADD COLUMN {column} VARCHAR(9)")
        client.execute_sql(
            "UPDATE ref_ids SET campaign = CASE WHEN oa_id = 'oa0' THEN 'sale' END,"
            f" telco_id = CASE WHEN ref_id = '{REF_ID}3' THEN 'Mrs An' ELSE 'all' END"
        )
    found = figures.read_figures(pipeline, make_settings())
    assert found["carried"] == ["campaign", "carried_telco_id"]
    assert found["values"] == [["", "=sale"], ["=all", "other"]]
    assert sum(found["hours"]["messages"]) == 11
    assert set(found["hours"]["hour"]) == {1}


def test_a_carried_column_of_many_values_is_left_out(
    pipeline: dlt.Pipeline,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An id or a name is nothing to filter by."""
    load(pipeline, world())
    monkeypatch.setattr(figures, "MAX_VALUES", 2)
    with pipeline.sql_client() as client:
        client.execute_sql("ALTER TABLE ref_ids ADD COLUMN buyer VARCHAR(90)")
        client.execute_sql("UPDATE ref_ids SET buyer = ref_id")
    assert figures.read_figures(pipeline, make_settings())["carried"] == []


def test_a_dataset_of_an_earlier_version_is_refused_with_the_remedy(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
) -> None:
    """Its tables get their new columns by the next run."""
    load(pipeline, world())
    with pipeline.sql_client() as client:
        client.execute_sql("ALTER TABLE ref_ids DROP COLUMN final_at")
    with pytest.raises(DestinationError, match=r"earlier version.*esms run"):
        figures.read_figures(pipeline, make_settings())


def test_the_page_holds_nobody_and_no_secret(
    pipeline: dlt.Pipeline,
    make_settings: Callable[..., Settings],
    api_key: str,
    secret_key: str,
    tmp_path: Path,
) -> None:
    """No RefId, no phone number, no text of an answer and no key is in the file."""
    load(pipeline, world())
    path = write_report(pipeline, make_settings(), tmp_path / "page.html")
    page = path.read_text("utf-8")
    for text in (REF_ID, PHONE, "is gone", api_key, secret_key):
        assert text not in page
    assert len(page) < 500_000


def test_an_empty_dataset_gives_a_page(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """Tables without rows are no error: the page says that there is nothing."""
    load(pipeline, {})
    path = write_report(pipeline, make_settings(), tmp_path / "page.html")
    found = embedded(path.read_text("utf-8"))
    assert (found["days"], found["runs"]) == ([], [])
    assert found["delivery"]["day"] == []


def test_a_dataset_without_tables_is_refused_with_the_remedy(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """The error is one line that names the dataset and what to do."""
    with pytest.raises(DestinationError, match=r"report_zalo.*no tables.*esms run$"):
        write_report(pipeline, make_settings(), tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_json_cannot_end_its_script_element() -> None:
    """What came from outside stays text, whatever it looks like."""
    texts = ["</script><script>alert(1)</script>", "<!--", "{{script}}", r"\1 \u003c"]
    page = make_page({"oas": texts})
    assert embedded(page) == {"oas": texts}
    assert "<!--" not in page.partition('id="figures">')[2].partition("</script>")[0]
    assert page.count("</script>") == 3


def test_the_page_loads_nothing_from_elsewhere() -> None:
    """No element names an address, and the page's own policy would forbid it."""
    page = make_page({})
    tags = re.findall(r"<(?:link|img|script|iframe)\b[^>]*>", page)
    assert not [tag for tag in tags if "//" in tag or "src=" in tag]
    assert "default-src 'none'" in page
    assert "sourceMappingURL" not in page


def test_many_templates_are_folded_into_other(
    pipeline: dlt.Pipeline,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A page that would be too large keeps its sums and tells less apart."""
    load(pipeline, world())
    monkeypatch.setattr(folding, "MAX_BYTES", 1)
    monkeypatch.setattr(folding, "DETAILS", (folding.Detail("month", 1, 1),))
    found = figures.read_figures(pipeline, make_settings())
    assert found["unit"] == "month"
    assert "2026-01-01" in found["days"]
    assert found["templates"] == ["", "=template0", "other"]
    counts = [sum(found["delivery"][name]) for name in folding.OUTCOMES]
    assert sum(counts) == 12


def test_a_file_that_cannot_be_written_is_said(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """The error names the file and the option."""
    load(pipeline, {})
    with pytest.raises(ConfigError, match=r"can't be written.*--output"):
        write_report(pipeline, make_settings(), tmp_path / "none" / "page.html")


def test_codes_have_meanings_in_both_languages(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
) -> None:
    """A known code brings its row of error_codes, an unknown one only itself."""
    rows = world()
    rows[CALLBACKS][3]["error_code"] = -31337
    load(pipeline, rows)
    codes = {
        row["code"]: row
        for row in figures.read_figures(pipeline, make_settings())["codes"]
    }
    assert {"meaning_en", "meaning_vi", "who_can_fix"} <= codes[-118].keys()
    assert codes[-31337] == {"code": -31337}


def test_texts_exist_in_both_languages() -> None:
    """English and Vietnamese have the same keys, and the page asks for no other."""
    folder = Path(report.__file__).parent
    texts = (folder / "texts.js").read_text("utf-8")
    english, vietnamese = (
        set(
            re.findall(
                r"(\w+): \"",
                texts.partition(f"  {name}: {{")[2].partition("\n  },")[0],
            )
        )
        for name in ("en", "vi")
    )
    assert english == vietnamese
    script = "".join((folder / name).read_text("utf-8") for name in report.SCRIPTS)
    template = (folder / "template.html").read_text("utf-8")
    used = re.findall(r'data-t="(\w+)"', template) + re.findall(r'\bt\("(\w+)"', script)
    assert set(used) <= english
    named = re.findall(r'"(\w+)"', script) + used + list(folding.OUTCOMES)
    assert english <= set(named)


def test_the_command_writes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command prints the path; without data it ends with one line and status 1."""
    path = tmp_path / "out.duckdb"
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", str(path))
    ended = CliRunner().invoke(main, ["report"])
    assert ended.exit_code == 1
    assert ended.stderr.count("\n") == 1
    load(dlt.pipeline("esms", destination="duckdb", dataset_name="zalo"), world())
    ended = CliRunner().invoke(main, ["report"])
    assert ended.exit_code == 0, ended.stderr
    assert ended.stdout.strip() == str(tmp_path / "esms-report.html")
    assert embedded((tmp_path / "esms-report.html").read_text("utf-8"))["days"]
