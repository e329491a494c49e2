from __future__ import annotations

import json
import shutil

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake  # type: ignore[import-not-found]
from pyiceberg.catalog.sql import SqlCatalog  # type: ignore[import-not-found]
from pyiceberg.expressions import EqualTo  # type: ignore[import-not-found]
from pyiceberg.types import StringType  # type: ignore[import-not-found]

from esms_source.exceptions import RefIdTableError
from tests.lakes.conftest import named


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path):
    """Where tables are made: a folder of the project, or a bucket."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return "s3://kho"
    (tmp_path / "lake").mkdir()
    return "lake"


def write_delta(path, rows, **options):
    """Append rows to a Delta table."""
    storage = {"allow_http": "true"} if path.startswith("s3") else None
    write_deltalake(path, rows, mode="append", storage_options=storage, **options)


@pytest.fixture
def iceberg(root, tmp_path):
    """An Iceberg table in a catalog, with five messages in two files."""
    place = root if "://" in root else (tmp_path / root).as_uri()
    io = {"py-io-impl": "pyiceberg.io.fsspec.FsspecFileIO"} if "s3" in root else {}
    catalog = SqlCatalog(
        "c", uri=f"sqlite:///{tmp_path}/catalog", warehouse=place, **io
    )
    catalog.create_namespace("n")
    table = catalog.create_table("n.sent", named(1).schema)
    table.append(named(3))
    table.append(named(2, start=3))
    return table


def folder_of(table):
    """Return an Iceberg table's folder."""
    return table.location().removeprefix("file://")


@pytest.mark.parametrize("call", ["delta_scan", "DELTA_SCAN"])
def test_a_delta_table_is_read(call, root, read):
    """Its newest version, wherever it is and however the call is written."""
    write_delta(f"{root}/sent", named(3), partition_by=["oa_id"])
    write_delta(f"{root}/sent", named(2, start=3, oa_id="other"))
    query = f"""
        -- delta_scan('what a comment says')
        WITH sent AS (SELECT * FROM {call}( '{root}/sent' ) AS "Bảng gửi 😀")
        SELECT sent.* FROM sent JOIN sent AS same USING (ref_id)
        WHERE sent.ref_id <> 'delta_scan(''not this'')' AND sent.oa_id = 'oa';
    """
    assert read(query) == ["r0", "r1", "r2"]


def test_a_delta_table_whose_columns_were_renamed_is_read(read, tmp_path):
    """Its files call them otherwise; deltalake's datasets refuse them."""
    log = tmp_path / "renamed" / "_delta_log"
    log.mkdir(parents=True)
    rows = named(3).rename_columns(["col-1", "col-2", "col-3"])
    pq.write_table(rows, tmp_path / "renamed" / "a.parquet")
    fields = [
        {
            "name": name,
            "type": kind,
            "nullable": True,
            "metadata": {
                "delta.columnMapping.id": number,
                "delta.columnMapping.physicalName": f"col-{number}",
            },
        }
        for number, (name, kind) in enumerate(
            {"ref_id": "string", "oa_id": "string", "sent_at": "timestamp"}.items(), 1
        )
    ]
    feature = {"readerFeatures": ["columnMapping"], "writerFeatures": ["columnMapping"]}
    actions = [
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **feature}},
        {
            "metaData": {
                "id": "a",
                "format": {"provider": "parquet", "options": {}},
                "schemaString": json.dumps({"type": "struct", "fields": fields}),
                "partitionColumns": [],
                "configuration": {
                    "delta.columnMapping.mode": "name",
                    "delta.columnMapping.maxColumnId": "3",
                },
            }
        },
        {
            "add": {
                "path": "a.parquet",
                "partitionValues": {},
                "size": (tmp_path / "renamed" / "a.parquet").stat().st_size,
                "modificationTime": 0,
                "dataChange": True,
            }
        },
    ]
    (log / f"{0:020}.json").write_text("\n".join(map(json.dumps, actions)))
    assert read("SELECT * FROM delta_scan('renamed')") == ["r0", "r1", "r2"]


def test_an_iceberg_table_is_read_by_its_folder(iceberg, read):
    """The newest metadata file counts, and deleted rows are gone."""
    iceberg.delete(EqualTo("ref_id", "r1"))
    query = f"SELECT * FROM iceberg_scan('{folder_of(iceberg)}/')"
    assert read(query) == ["r0", "r2", "r3", "r4"]


def test_an_iceberg_table_is_read_by_its_metadata(iceberg, read):
    """What a catalog calls its metadata location."""
    before = iceberg.metadata_location
    iceberg.append(named(1, start=5))
    assert len(read(f"FROM iceberg_scan('{before}')")) == 5
    assert len(read(f"FROM iceberg_scan('{iceberg.metadata_location}')")) == 6


def test_a_column_that_was_added_and_renamed_is_read(iceberg, read):
    """Old files lack the one and have the other by its old name."""
    with iceberg.update_schema() as schema:
        schema.rename_column("ref_id", "ma_tin")
        schema.add_column("extra", StringType())
    query = f"SELECT ma_tin AS ref_id, extra FROM iceberg_scan('{folder_of(iceberg)}')"
    assert len(read(query)) == 5


def test_a_version_hint_is_followed(tmp_path, monkeypatch, read):
    """Who writes without a catalog keeps the valid version in the table's folder."""
    (tmp_path / "lake").mkdir()
    catalog = SqlCatalog("c", uri="sqlite://", warehouse=(tmp_path / "lake").as_uri())
    catalog.create_namespace("n")
    table = catalog.create_table("n.sent", named(1).schema)
    table.append(named(1))
    before = table.metadata_location.rpartition("/")[2]
    table.append(named(1, start=1))
    hint = tmp_path / "lake" / "n" / "sent" / "metadata" / "version-hint.text"
    hint.write_text(before)
    assert read("FROM iceberg_scan('lake/n/sent')") == ["r0"]
    catalog.close()


def test_two_newest_versions_are_refused(iceberg, read, root, tmp_path):
    """One of two writers lost, and only the catalog knows which."""
    if root == "s3://kho":
        pytest.skip("the same code lists both")
    newest = iceberg.metadata_location.removeprefix("file://")
    number = newest.rpartition("/")[2].partition("-")[0]
    shutil.copy(newest, newest.replace(number, f"{number}-a"))
    with pytest.raises(RefIdTableError, match="holds 2 metadata files of version 2"):
        read(f"FROM iceberg_scan('{folder_of(iceberg)}')")


def test_two_tables_in_one_query(iceberg, root, read):
    """Each is a view of its own."""
    write_delta(f"{root}/delta", named(2))
    query = f"""SELECT * FROM iceberg_scan('{folder_of(iceberg)}') AS a
        SEMI JOIN delta_scan('{root}/delta') AS b USING (ref_id)"""
    assert read(query) == ["r0", "r1"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("FROM delta_scan('none')", "as a Delta table"),
        ("FROM iceberg_scan('none')", "as an Iceberg table"),
        ("FROM delta_scan('empty')", "as a Delta table"),
        ("FROM iceberg_scan('empty')", "no metadata files"),
        ("FROM iceberg_scan('bad.metadata.json')", "Iceberg"),
        ("FROM delta_scan('un", "ref_ids.query"),
        ("FROM delta_scan", "ref_ids.query"),
    ],
)
def test_what_is_no_table_is_told_in_one_line(query, said, read, tmp_path):
    """With the remedy."""
    (tmp_path / "empty" / "metadata").mkdir(parents=True)
    (tmp_path / "bad.metadata.json").write_text("{}")
    with pytest.raises(RefIdTableError, match=said) as caught:
        read(query)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


@pytest.mark.parametrize("call", ["delta_scan", "iceberg_scan"])
@pytest.mark.parametrize(
    ("bucket", "said"), [("nowhere", "no bucket 'nowhere'"), ("kho", "no folder")]
)
def test_what_is_not_in_s3_is_told_in_one_line(call, bucket, said, s3, run, warehouse):
    """Whoever reads it, S3 is asked why."""
    query = f"FROM {call}('s3://{bucket}/a/sent')"
    warehouse.use(None, credentials=":memory:", query=query)
    ended = run("plan")
    assert ended.returncode == 2, ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_data_file_that_is_gone_is_told(root, iceberg, read, tmp_path):
    """In one line, whichever package reads it."""
    if root == "s3://kho":
        pytest.skip("local files suffice")
    write_delta("lake/delta", named(2))
    for path in (tmp_path / "lake").rglob("*.parquet"):
        path.unlink()
    for place in ("delta_scan('lake/delta')", f"iceberg_scan('{folder_of(iceberg)}')"):
        with pytest.raises(RefIdTableError, match=r"No such file|not found") as caught:
            read(f"FROM {place}")
        assert "\n" not in str(caught.value)


def test_rows_that_were_deleted_are_gone(read, tmp_path):
    """Their old files still stand in the folder."""
    write_delta("lake", named(5))
    DeltaTable("lake").delete("ref_id = 'r2'")
    assert read("FROM delta_scan('lake')") == ["r0", "r1", "r3", "r4"]
