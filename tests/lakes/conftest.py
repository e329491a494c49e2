from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any

import pytest

from esms_source.planning.planner import Choice, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Output, Warehouse

try:
    for name in ("deltalake", "moto", "pyiceberg", "s3fs"):
        distribution(name)
except PackageNotFoundError:
    # They have an environment of their own: the group "lakes" of pyproject.toml.
    collect_ignore_glob = ["test_*.py"]

BUCKET = "kho"
AWS_SECRET = "SECRET0of0aws0G7H8I9"  # noqa: S105  opens nothing


@dataclass
class S3:
    """A server that speaks S3, with an empty bucket.

    Attributes:
        url: Where it listens.
        client: boto3's client of it.
        log: A file with a line for each request.
    """

    url: str
    client: Any
    log: Path

    def put(self, key: str, body: bytes) -> None:
        """Write a file."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=body)

    def requests(self) -> list[tuple[str, str]]:
        """Return the method and path of every request until now."""
        return re.findall(r"(GET|HEAD|PUT|POST|DELETE) (/\S*)", self.log.read_text())


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: Any) -> Iterator[tuple[str, Path]]:
    """A process that speaks S3, as URL and log: deltalake lets no thread run then."""
    log = tmp_path_factory.mktemp("s3") / "log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as written:
        server = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=written)
    until = time.monotonic() + 30
    while True:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert time.monotonic() < until, "it never listened"
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}", log
    server.terminate()
    server.wait()


@pytest.fixture(autouse=True)
def _no_aws(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test see this machine's AWS."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws_config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws_keys"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def s3(s3_server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> S3:
    """A server that speaks S3, and the environment that names it."""
    import boto3  # type: ignore[import-not-found]  # noqa: PLC0415
    import requests  # noqa: PLC0415

    url, log = s3_server
    requests.post(f"{url}/moto-api/reset", timeout=5).raise_for_status()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS_SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    return S3(url, client, log)


@pytest.fixture
def read(
    output: Output, make_settings: Callable[..., Any], warehouse: Warehouse
) -> Callable[..., list[str]]:
    """Return the RefIds that are planned from a query."""

    def one(query: str, **settings: Any) -> list[str]:
        warehouse.use(None, credentials=":memory:", query=query, **settings)
        made = make_plan(
            output.pipeline(),
            make_settings(oa_id="default"),
            Choice(),
            datetime.now(timezone.utc),
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


@pytest.fixture
def run(
    tmp_path: Any, api_key: str, secret_key: str
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command of ``esms``; its words hold no secret of AWS."""

    def one(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        given = {
            "SOURCES__ESMS__API_KEY": api_key,
            "SOURCES__ESMS__SECRET_KEY": secret_key,
            "SOURCES__ESMS__OA_ID": "default",
            "DESTINATION__DUCKDB__CREDENTIALS": str(tmp_path / "out.duckdb"),
        }
        ended = subprocess.run(
            [sys.executable, "-m", "esms_source", *argv],
            env=os.environ | given | env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert AWS_SECRET not in ended.stdout + ended.stderr
        return ended

    return one


def named(count: int, *, start: int = 0, oa_id: str = "oa") -> Any:
    """Return an Arrow table of messages, a second apart from 2026-01-05 on."""
    import pyarrow as pa  # noqa: PLC0415

    numbers = range(start, start + count)
    at = datetime(2026, 1, 5, tzinfo=timezone.utc).timestamp()
    moments = [int((at + n) * 1e6) for n in numbers]
    return pa.table(
        {
            "ref_id": [f"r{n}" for n in numbers],
            "oa_id": [oa_id] * count,
            "sent_at": pa.array(moments, pa.timestamp("us", "UTC")),
        }
    )
