from __future__ import annotations

from datetime import datetime, timezone

import duckdb
import pytest

from esms_source.exceptions import ConfigError, RefIdTableError
from esms_source.planning.planner import Choice, make_plan

CREATE = (
    "CREATE TABLE sent AS SELECT 'r' || n AS ref_id, 'oa' AS oa_id FROM range(3) t(n)"
)


@pytest.fixture
def plan(output, make_settings):
    """Return the RefIds that are planned from what the environment names."""

    def one(rows=None, **settings):
        made = make_plan(
            output.pipeline(),
            make_settings(**({"oa_id": "default"} | settings)),
            Choice(),
            datetime.now(timezone.utc),
            rows,
        )
        try:
            return sorted(
                ref_id
                for table in made.pages()
                for ref_id in table["ref_id"].to_pylist()
            )
        finally:
            made.close()

    return one


R3 = ["r0", "r1", "r2"]


@pytest.mark.parametrize(
    "table",
    ["sent", 'my"sent', "Bảng gửi", "select", "a.b", "x'y", "SENT"],
    ids=ascii,
)
def test_any_table_name_is_read(table, warehouse, plan):
    """Quotes, points, spaces and words of SQL are part of a name."""
    quoted = '"' + table.replace('"', '""') + '"'
    warehouse.execute(CREATE.replace("sent", quoted, 1))
    warehouse.use(table)
    assert plan() == R3


@pytest.mark.parametrize(
    "name", ["Ref Id", "select", 'a"b', "Mã tin", "x'y", "ref.id"], ids=ascii
)
def test_any_column_name_is_read(name, warehouse, plan):
    """Names that need quotes."""
    quoted = '"' + name.replace('"', '""') + '"'
    warehouse.execute(CREATE.replace("ref_id", quoted))
    warehouse.use(ref_id_column=name, oa_id_column="oa_id")
    assert plan() == R3


def test_columns_are_found_in_another_letter_case(warehouse, plan):
    """A warehouse may write REF_ID."""
    warehouse.execute(CREATE.replace("ref_id", "REF_ID"))
    warehouse.use(ref_id_column="Ref_Id", oa_id_column="OA_ID")
    assert plan() == R3


def test_a_schema_other_than_main_is_read(warehouse, plan):
    """dataset_name."""
    warehouse.execute('CREATE SCHEMA "Kho dữ"', CREATE.replace("sent", '"Kho dữ".sent'))
    warehouse.use(dataset_name="Kho dữ")
    assert plan() == R3


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM sent WHERE ref_id <> 'r0'",
        "SELECT * FROM sent WHERE ref_id <> 'r0';\n",
        "WITH few AS (FROM sent OFFSET 1) SELECT ref_id FROM few ORDER BY 1",
        "SELECT * FROM sent WHERE ref_id LIKE 'r%' AND ref_id NOT LIKE '%0' -- so",
    ],
    ids=ascii,
)
def test_a_query_may_stand_in_place_of_a_table(query, warehouse, plan):
    """Section 3: query; a comment or a semicolon at its end does no harm."""
    warehouse.execute(CREATE)
    warehouse.use(None, query=query)
    assert plan() == ["r1", "r2"]


def test_a_view_is_read_like_a_table(warehouse, plan):
    """Views are how warehouses are shown."""
    warehouse.execute(CREATE, "CREATE VIEW shown AS SELECT * FROM sent")
    warehouse.use("shown")
    assert plan() == R3


def test_a_view_of_dbt_is_read(warehouse, plan):
    """It names database, schema and table in quotes, and is renamed into its place."""
    warehouse.execute(
        'CREATE SCHEMA "Crm"',
        CREATE.replace("sent", '"Crm"."SENT"').replace("oa_id", '"OA"'),
        "CREATE SCHEMA analytics",
        'CREATE VIEW "warehouse"."analytics"."ZNS_Sent__dbt_tmp" AS'
        ' (SELECT "ref_id" AS "Ref Id", "OA" FROM "warehouse"."Crm"."SENT")',
        'ALTER VIEW "warehouse"."analytics"."ZNS_Sent__dbt_tmp" RENAME TO "ZNS_Sent"',
    )
    columns = {"ref_id_column": "Ref Id", "oa_id_column": "oa"}
    for table in ("ZNS_Sent", "zns_sent"):
        warehouse.use(table, dataset_name="analytics", **columns)
        assert plan() == R3


@pytest.mark.parametrize("schema", [None, "main"])
def test_a_view_over_another_file_is_told(schema, warehouse, plan, tmp_path):
    """Files that dbt attached have names there that nobody knows here."""
    with duckdb.connect(tmp_path / "raw.duckdb") as connection:
        connection.execute(CREATE)
    warehouse.execute(
        f"ATTACH '{tmp_path / 'raw.duckdb'}' AS raw",
        "CREATE VIEW shown AS SELECT * FROM raw.main.sent",
    )
    warehouse.use("shown", **({"dataset_name": schema} if schema else {}))
    with pytest.raises(RefIdTableError, match="the view 'shown' stands on a table"):
        plan()


@pytest.mark.filterwarnings("ignore:Arrow output")  # dlt's way of reading DuckDB
def test_a_destination_other_than_duckdb_is_copied(plan, tmp_path):
    """Whatever dlt can read with SQL: here a DuckDB behind an open connection."""
    with duckdb.connect(tmp_path / "other.duckdb") as connection:
        connection.execute(CREATE)
        given = {"credentials": connection, "table": "sent"}
        assert plan(ref_ids=given) == R3


@pytest.mark.parametrize(
    ("use", "words"),
    [
        ({"table": "nowhere"}, "no table 'nowhere'"),
        ({"dataset_name": "nowhere"}, "nowhere.sent"),
        ({"ref_id_column": "nope"}, "ref_ids.ref_id_column"),
        ({"oa_id_column": "nope"}, "ref_ids.oa_id_column"),
        ({"sent_at_column": "nope"}, "ref_ids.sent_at_column"),
        ({"carry": ["nope"]}, "ref_ids.carry"),
        ({"table": None, "query": "SELECT * FROM nowhere"}, "ref_ids.query"),
        ({"table": None, "query": "SELEKT"}, "ref_ids.query"),
    ],
    ids=ascii,
)
def test_what_is_not_there_is_told_in_one_line(use, words, warehouse, plan):
    """The setting is named, with the columns that there are."""
    warehouse.execute(CREATE)
    warehouse.use(**use)
    with pytest.raises(RefIdTableError, match=words.replace(".", r"\.")) as caught:
        plan()
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_told(warehouse, plan):
    """It isn't made, either."""
    warehouse.use()
    with pytest.raises((RefIdTableError, ConfigError)):
        plan()
    assert not warehouse.path.exists()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ref_ids": {"table": "sent", "destination": "nodb"}},
        {"ref_ids": {"table": "sent", "destination": "postgres"}},
        {"ref_ids": {"table": "sent", "destination": "filesystem"}},
    ],
    ids=ascii,
)
def test_a_warehouse_that_cannot_be_opened_is_a_setting(settings, plan):
    """In one line that names ref_ids."""
    with pytest.raises((ConfigError, RefIdTableError), match="ref_ids") as caught:
        plan(**settings)
    assert "\n" not in str(caught.value)


def test_rows_that_disagree_in_type_are_told(plan):
    """A column of texts and times is told, not guessed at."""
    now = datetime.now(timezone.utc)
    rows = [{"ref_id": "a", "sent_at": "2026-01-02"}, {"ref_id": "b", "sent_at": now}]
    with pytest.raises(RefIdTableError, match="type"):
        plan(rows)


def test_rows_without_the_column_are_told(plan):
    """With the columns that there are."""
    with pytest.raises(RefIdTableError, match="'id'"):
        plan([{"id": "a"}])


@pytest.mark.parametrize(
    ("rows", "ids"),
    [
        ([{"ref_id": "a"}, {"ref_id": 7}, {"ref_id": None}], ["7", "a"]),
        ([{"ref_id": "a"}, {"ref_id": "b", "oa_id": "x"}], ["a", "b"]),
        (["a", 7, " b "], ["7", "a", "b"]),
        ([], []),
        ([{"REF_ID": "a"}], ["a"]),
    ],
    ids=ascii,
)
def test_rows_of_mixed_forms_are_read(rows, ids, plan):
    """Numbers, nulls and columns that only some rows have."""
    assert plan(rows) == ids


def test_what_a_carried_column_does_not_take_is_loaded_beside_it(
    esms, warehouse, simulate, output
):
    """A column that changes its type costs no value and no run; messages shows both."""
    esms.set(base_url=simulate().url, ref_ids__carry='["campaign"]')
    sent = "SELECT 'r{0}' AS ref_id, 'oa' AS oa_id, {1} AS campaign"
    warehouse.execute(f"CREATE TABLE sent AS {sent.format(1, 7)}")
    warehouse.use(oa_id_column="oa_id")
    assert esms().status == 0
    for number, value in ((2, "'tet'"), (3, "'sale'"), (4, "8")):
        warehouse.execute(
            f"CREATE OR REPLACE TABLE sent AS {sent.format(number, value)}"
        )
        assert esms().report["answered"] == 1
    assert esms("run", "--json", "--repoll", "final").report["asked"] == 4
    sql = "SELECT ref_id, campaign, campaign__v_text FROM ref_ids ORDER BY 1"
    assert output.rows(sql) == [
        ("r1", 7, None),
        ("r2", None, "tet"),
        ("r3", None, "sale"),
        ("r4", 8, None),
    ]
    sql = "SELECT campaign FROM messages ORDER BY ref_id"
    assert output.rows(sql) == ["7", "tet", "sale", "8"]
    assert "campaign__v_text" not in output.rows(
        "SELECT column_name FROM duckdb_columns() WHERE table_name = 'messages'"
    )


FILES = {
    "credentials": ":memory:",
    "query": "SELECT * FROM 'sent/*.parquet' UNION ALL FROM 'sent/*.csv' -- all;",
    "oa_id_column": "oa_id",
    "sent_at_column": "sent_at",
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A project with a Parquet and a CSV file."""
    folder = tmp_path / "project" / "sent"
    folder.mkdir(parents=True)
    for name, first in (("a.parquet", 0), ("b.csv", 100)):
        duckdb.sql(
            "COPY (SELECT 'r' || i AS ref_id, 'oa1' AS oa_id,"
            " TIMESTAMPTZ '2026-01-05 00:00:00+00' + to_minutes(i) AS sent_at"
            f" FROM range({first}, {first} + 2) AS t(i)) TO '{folder / name}'"
        )
    monkeypatch.setenv("DLT_PROJECT_DIR", str(folder.parent))


def test_a_query_over_files_is_read(files, plan):
    """No database is needed; relative paths count from the project's folder."""
    assert plan(ref_ids=FILES) == ["r0", "r1", "r100", "r101"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("FROM 'none/*.parquet'", "No files found"),
        ("FROM sent", "does not exist"),
        (None, "as in SELECT"),
    ],
)
def test_files_that_are_not_there_are_told(files, plan, query, said):
    """A pattern without files, and tables, which no file holds, are refused."""
    table = {"table": "sent"} if query is None else {}
    with pytest.raises((ConfigError, RefIdTableError), match=said):
        plan(ref_ids=FILES | {"query": query} | table)


def test_a_table_of_another_schema_is_found(warehouse, plan):
    """Who forgot the schema, or misspelt the table, is told what is there."""
    warehouse.execute("CREATE SCHEMA crm", "CREATE TABLE crm.zns_log (ref_id TEXT)")
    warehouse.use("zns_log")
    with pytest.raises(RefIdTableError, match=r"in schema 'crm'; set ref_ids\.dataset"):
        plan()
    warehouse.use("zns_lag")
    with pytest.raises(RefIdTableError, match="; there is 'zns_log'"):
        plan()


def test_a_postgresql_url_without_its_destination_is_told(plan):
    """Who gives the URL alone learns which setting goes with it."""
    table = {"table": "sent", "credentials": "postgresql://u:pw@localhost/crm"}
    with pytest.raises(ConfigError, match="name postgres as the destination"):
        plan(ref_ids=table)
