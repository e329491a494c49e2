from __future__ import annotations

import pytest

from esms_source.exceptions import ConfigError
from esms_source.planning.given_rows import read_file


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("R1\r\n\r\n  R2 \r\n", [{"ref_id": "R1"}, {"ref_id": "R2"}]),
        ('R1\n"R2\nR3\n', [{"ref_id": "R1"}, {"ref_id": '"R2'}, {"ref_id": "R3"}]),
        ("SMS_ID\nR1\n\n  \nR2\n", [{"SMS_ID": "R1"}, {"SMS_ID": "R2"}]),
        (
            'ref_id,campaign\nR1,"Tết,\nnăm mới"\n',
            [{"ref_id": "R1", "campaign": "Tết,\nnăm mới"}],
        ),
        ("ref_id,oa_id\n,oa5\n", [{"ref_id": "", "oa_id": "oa5"}]),
        ("ref_id\n", []),
        ("", []),
    ],
)
def test_a_file_is_a_csv_or_one_ref_id_a_line(tmp_path, text, rows):
    """A first line that names the column makes it a CSV."""
    file = tmp_path / "ids"
    file.write_bytes(text.encode())
    assert read_file(file, "sms_id") == rows


@pytest.mark.parametrize("content", [b"\xff\xfe", b"R1," + b"x" * 200_000])
def test_a_file_that_cant_be_read_is_refused(tmp_path, content):
    """Neither another encoding nor a binary file is asked for."""
    file = tmp_path / "ids"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"can't be read: .*; give a UTF-8 text"):
        read_file(file, "ref_id")
