from __future__ import annotations

import io

import pyarrow.parquet as pq
import pytest
import requests
from deltalake import write_deltalake  # type: ignore[import-not-found]
from pyiceberg.catalog.sql import SqlCatalog  # type: ignore[import-not-found]

from tests.lakes.conftest import AWS_SECRET, named


@pytest.fixture
def bucket(s3):
    """A bucket with messages in two folders."""
    for part in range(2):
        content = io.BytesIO()
        pq.write_table(named(2, start=2 * part), content)
        s3.put(f"sent/day={part}/a.parquet", content.getvalue())
    s3.put("csv/a.csv", b"ref_id,oa_id\nc0,oa\nc1,oa\n")
    return s3


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("FROM read_parquet('s3://kho/sent/*/*.parquet')", ["r0", "r1", "r2", "r3"]),
        ("SELECT * FROM 's3://kho/sent/**/*.parquet' WHERE day = 1", ["r2", "r3"]),
        ("FROM 's3a://kho/csv/a.csv'", ["c0", "c1"]),
        ("SELECT * FROM read_csv('s3://kho/csv/*.csv')", ["c0", "c1"]),
    ],
)
def test_files_in_a_bucket_are_read(query, expected, bucket, read):
    """With AWS's own environment."""
    assert read(query) == expected


def test_local_tables_may_be_joined_with_files_in_a_bucket(bucket, read, tmp_path):
    """Each path says by itself where it is."""
    catalog = SqlCatalog("c", uri="sqlite://", warehouse=tmp_path.as_uri())
    catalog.create_namespace("ice")
    catalog.create_table("ice.sent", named(1).schema).append(named(2, start=3))
    catalog.close()
    write_deltalake("delta", named(3))
    query = """
        SELECT ref_id FROM delta_scan('delta') UNION FROM read_csv('s3://kho/csv/a.csv')
        SELECT ref_id UNION SELECT ref_id FROM iceberg_scan('ice/sent')
    """
    assert read(query) == ["c0", "c1", "r0", "r1", "r2", "r3", "r4"]


def test_a_profile_of_aws_is_used(bucket, read, monkeypatch, tmp_path):
    """AWS_PROFILE, with keys and endpoint in AWS's own files."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "ENDPOINT_URL"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_PROFILE", "kho")
    (tmp_path / "aws_config").write_text(
        f"[profile kho]\nregion = us-east-1\nendpoint_url = {bucket.url}\n"
    )
    keys = f"aws_access_key_id = AKIATESTS\naws_secret_access_key = {AWS_SECRET}\n"
    (tmp_path / "aws_keys").write_text(f"[kho]\n{keys}")
    assert len(read("FROM 's3://kho/sent/*/*.parquet'")) == 4


def test_files_that_came_since_are_seen(bucket, read):
    """One process that runs again and again remembers no listing."""
    query = "SELECT * FROM read_csv('s3://kho/csv/*.csv')"
    assert len(read(query)) == 2
    bucket.put("csv/b.csv", b"ref_id,oa_id\nc2,oa\n")
    assert len(read(query)) == 3


def test_only_what_lies_in_its_window_is_asked(bucket, simulate, run, warehouse):
    """A second run asks what is new, and leaves out what is older than its OA's."""
    warehouse.use(
        None,
        credentials=":memory:",
        query="FROM 's3://kho/sent/*/*.parquet'",
        sent_at_column="sent_at",
        oa_id_column="oa_id",
        lag=60,
    )
    url = simulate().url
    first = run("run", "--json", SOURCES__ESMS__BASE_URL=url)
    assert first.returncode == 0, first.stderr
    for name, start in (("old", -9_000), ("new", 100)):
        content = io.BytesIO()
        pq.write_table(named(5, start=start), content)
        bucket.put(f"sent/day={name}/a.parquet", content.getvalue())
    plan = run("plan", "--json", SOURCES__ESMS__BASE_URL=url)
    assert plan.returncode == 0, plan.stderr
    assert '"new": 5' in plan.stdout
    whole = run("plan", "--json", "--all", SOURCES__ESMS__BASE_URL=url)
    assert '"new": 10' in whole.stdout


def test_check_counts_what_is_in_a_bucket(bucket, simulate, run, warehouse):
    """As with any warehouse."""
    query = "FROM 's3://kho/sent/*/*.parquet'"
    warehouse.use(None, credentials=":memory:", query=query)
    ended = run("check", SOURCES__ESMS__BASE_URL=simulate().url)
    assert ended.returncode == 0, ended.stdout
    assert "4 rows, 4 of them not in the ledger" in ended.stdout


def deny(s3):
    """Let the server take no key that it doesn't know."""
    requests.post(f"{s3.url}/moto-api/reset-auth", data=b"0", timeout=5)


BAD = [
    ("s3://nowhere/sent/*.parquet", {}, "there is no bucket 'nowhere' in S3"),
    ("s3://kho/none/*.parquet", {}, "there is no folder 'kho/none' in S3"),
    ("s3://kho/sent/*.parquet", {}, "No files found"),
    ("s3://kho/bad/a.parquet", {}, "No magic bytes"),
    (
        "s3://kho/sent/*/*.parquet",
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
        "S3 can't be reached",
    ),
    (
        "s3://kho/sent/*/*.parquet",
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
        "no AWS credentials",
    ),
    ("s3://kho/sent/*/*.parquet", {"AWS_PROFILE": "nobody"}, "no AWS credentials"),
]


@pytest.mark.parametrize("command", ["plan", "check"])
@pytest.mark.parametrize(("place", "env", "said"), BAD)
def test_what_cant_be_read_is_told_in_one_line(
    command, place, env, said, bucket, run, warehouse
):
    """With the remedy, and no secret."""
    bucket.put("bad/a.parquet", b"this is no Parquet, but long enough for one")
    warehouse.use(None, credentials=":memory:", query=f"FROM read_parquet('{place}')")
    ended = run(command, **env)
    told = ended.stderr if command == "plan" else ended.stdout
    assert ended.returncode == 2, told
    (line,) = [line for line in told.splitlines() if said in line]
    assert ";" in line
    assert "Traceback" not in told


@pytest.mark.parametrize(
    "query",
    ["FROM 's3://kho/sent/*/*.parquet'", "FROM read_csv('s3://kho/csv/a.csv')"],
)
def test_keys_that_are_refused_are_told(query, bucket, run, warehouse):
    """Access denied, for folders and single files."""
    warehouse.use(None, credentials=":memory:", query=query)
    deny(bucket)
    try:
        ended = run("plan")
    finally:
        requests.post(f"{bucket.url}/moto-api/reset-auth", data=b"inf", timeout=5)
    assert ended.returncode == 2, ended.stderr
    assert "S3 refuses to list" in ended.stderr
    assert "s3:GetObject" in ended.stderr
    assert "Traceback" not in ended.stderr
