from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pytest

from esms_source.config.ref_id_table import RefIdTable
from esms_source.exceptions import ConfigError, RefIdTableError
from esms_source.planning import lakes
from esms_source.planning.candidates import Columns
from esms_source.planning.file_warehouse import FileWarehouse
from esms_source.planning.scratch import Scratch

SENT = pa.table({"ref_id": ["a", "b"], "oa_id": ["oa", "oa"]})


@pytest.fixture
def read(monkeypatch):
    """Return the first column of a query, and which tables were opened for it."""
    opened = []

    def stream(name):
        def open_table(path, store):
            opened.append((name, path))
            return lakes.Stream(SENT.to_reader)

        return open_table

    for name in lakes.OPENED_BY:
        monkeypatch.setitem(lakes.OPENED_BY, name, stream(name))

    def one(query):
        opened.clear()
        with Scratch("UTC", 128) as scratch:
            warehouse = FileWarehouse(RefIdTable(query=query), scratch)
            columns = Columns("ref_id", None, None, {})
            relation, _ = warehouse.read(columns, {})
            rows = [row[0] for row in scratch.rows(f"SELECT * FROM {relation}")]
        return rows, list(opened)

    return one


@pytest.mark.parametrize(
    "call",
    ["delta_scan('sent')", "DELTA_SCAN\n(\n'sent' )", "Delta_Scan('sent') AS bảng"],
)
def test_a_call_is_found_however_it_is_written(call, read):
    """A relative path counts from the project's folder."""
    rows, opened = read(f"SELECT 'é😀' AS odd, * FROM {call};")
    assert rows == ["a", "b"]
    assert opened == [("delta_scan", str(Path("sent").resolve()))]


def test_texts_comments_and_names_are_no_calls(read):
    """Only what DuckDB would call."""
    query = """
        -- delta_scan('no')
        SELECT 'a' AS ref_id, 'iceberg_scan(''no'')' AS delta_scan
        /* delta_scan('no') */
    """
    assert read(query) == (["a"], [])


def test_rows_that_are_read_twice_come_twice(read):
    """DuckDB scans a stream anew for each place it is named in."""
    rows, opened = read(
        "SELECT a.ref_id FROM delta_scan('/x') AS a, iceberg_scan('file:///y') AS b"
        " UNION ALL SELECT ref_id FROM delta_scan('/x')"
    )
    assert sorted(rows) == ["a"] * 3 + ["b"] * 3
    assert sorted(opened) == [
        ("delta_scan", "/x"),
        ("delta_scan", "/x"),
        ("iceberg_scan", "/y"),
    ]


@pytest.mark.parametrize(
    "call", ["(file)", "('a', version => 1)", "()", "('a' || 'b')", "("]
)
def test_other_arguments_are_refused(call, read):
    """A path in quotes is all that can be told."""
    with pytest.raises(ConfigError, match=r"write delta_scan\('path'\)"):
        read(f"FROM delta_scan{call}")


@pytest.mark.parametrize(
    ("package", "query", "extra"),
    [
        ("deltalake", "FROM delta_scan('a')", "delta"),
        ("pyiceberg", "FROM iceberg_scan('a')", "iceberg"),
        ("s3fs", "FROM 's3://kho/a.parquet'", "s3"),
    ],
)
def test_a_missing_package_is_named(package, query, extra, monkeypatch):
    """With the command that installs it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    said = rf"{package}.*pip install esms-source\[{extra}\]"
    with Scratch("UTC", 128) as scratch, pytest.raises(ConfigError, match=said):
        FileWarehouse(RefIdTable(query=query), scratch)


@pytest.mark.parametrize(
    ("names", "newest"),
    [
        (["00000-a.metadata.json", "00010-b.metadata.json"], "00010-b.metadata.json"),
        (["v9.metadata.json", "v10.metadata.json", "a.avro"], "v10.metadata.json"),
        (["v1.gz.metadata.json", "x.metadata.json"], "v1.gz.metadata.json"),
        (["v1.metadata.json", "version-hint.text"], None),
    ],
)
def test_the_highest_version_is_the_newest(names, newest, tmp_path):
    """By its number, not by its letters; with a hint pyiceberg finds it."""
    folder = tmp_path / "metadata"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    expected = str(folder / newest) if newest else str(tmp_path)
    assert lakes.newest_metadata(str(tmp_path), None) == expected


def test_no_version_or_two_newest_are_refused(tmp_path):
    """Only a catalog knows which of two is valid."""
    folder = tmp_path / "metadata"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="no metadata files"):
        lakes.newest_metadata(str(tmp_path), None)
    for name in ("00001-a", "00001-b"):
        (folder / f"{name}.metadata.json").touch()
    with pytest.raises(RefIdTableError, match="2 metadata files of version 1"):
        lakes.newest_metadata(str(tmp_path), None)
