"""What tests of the client share."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    """A file with a key and a certificate of localhost that it signed itself."""
    path = tmp_path / "localhost.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec"]
    command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "1"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", f"{path}.key", "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    parts = [(tmp_path / f"localhost.pem.{part}") for part in ("key", "crt")]
    path.write_text("".join(part.read_text() for part in parts))
    return str(path)
