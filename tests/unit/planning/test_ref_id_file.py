from __future__ import annotations

import tracemalloc
from itertools import chain

import pytest

from esms_source.exceptions import ConfigError
from esms_source.planning.ref_id_file import RefIdFile

TWO = [{"ref_id": "R1", "oa_id": "1"}, {"ref_id": "R2", "oa_id": "2"}]


def read(file, ref_id_column="sms_id"):
    tables = RefIdFile(file, ref_id_column)
    return list(chain.from_iterable(table.to_pylist() for table in tables))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("R1\r\n\r\n  R2 \r\n", [{"ref_id": "R1"}, {"ref_id": "R2"}]),
        ('R1\n"R2\nR3\n', [{"ref_id": "R1"}, {"ref_id": '"R2'}, {"ref_id": "R3"}]),
        ('"R1"\n"R""2"\n', [{"ref_id": "R1"}, {"ref_id": 'R"2'}]),
        ("SMS_ID\nR1\n\n  \nR2\n", [{"ref_id": "R1"}, {"ref_id": "R2"}]),
        (
            'ref_id,campaign\nR1,"Tết,\n\nnăm mới"\n',
            [{"ref_id": "R1", "campaign": "Tết,\n\nnăm mới"}],
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
    assert read(file) == rows


@pytest.mark.parametrize(
    "header", ["SMSID;OAId", "RefId;oa_id", "REFERENCEID;OA ID", "Ref_Id;OAID"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_what_a_spreadsheet_writes_is_read(tmp_path, header, encoding):
    """Headers of the API in any case; semicolons, as Excel writes in Vietnam."""
    file = tmp_path / "ids.csv"
    file.write_bytes(f"{header}\r\nR1;1\r\nR2;2\r\n".encode(encoding))
    assert read(file) == TWO


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\nSMSID;OAId\r\nR1;1\r\nR2;2\r\n",
        '"sep=|"\nSMSID|OAId\nR1|1\nR2|2\n',
        "sep=\t\nSMSID\tOAId\nR1\t1\nR2\t2\n",
        "SMSID\tOAId\nR1\t1\nR2\t2\n",
        '"SMSID","OAId"\n"R1","1"\n"R2","2"\n',
        "SMSID, OAId\nR1, 1\nR2, 2\n",
    ],
    ids=ascii,
)
def test_delimiters_are_found(tmp_path, text):
    """By the first line, or by what Excel says on top of it."""
    file = tmp_path / "ids.csv"
    file.write_text(text)
    assert read(file) == TWO


def test_the_settings_own_name_goes_first(tmp_path):
    """A file may hold both the warehouse's column and one that looks like it."""
    file = tmp_path / "ids.csv"
    file.write_text("RefId,sms_id\nother,R1\n")
    assert read(file) == [{"RefId": "other", "ref_id": "R1"}]


@pytest.mark.parametrize(
    "text", ["phone,name\n1,2\n", "phone;name\n1;2\n", "phone\n0909\n", "Mã tin\nR1\n"]
)
def test_a_header_of_something_else_is_refused(tmp_path, text):
    """Its words aren't asked for as RefIds."""
    file = tmp_path / "ids.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match="ref_id") as caught:
        RefIdFile(file, "sms_id")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"R\xff1\n", b"R1," + b"x" * 200_000])
def test_a_file_that_cant_be_read_is_refused(tmp_path, content):
    """Neither another encoding nor a binary file is asked for."""
    file = tmp_path / "ids"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"can't be read: .*; give a UTF-8 text"):
        RefIdFile(file, "ref_id")


def test_a_large_file_is_read_in_little_memory(tmp_path):
    """A part at a time: a million lines take no more than these."""
    file = tmp_path / "ids.csv"
    lines = (f"4a496110-9fd3-4838-ac8b-bcaa36616{n:06};oa\n" for n in range(200_000))
    file.write_text("SMSID;OAId\n" + "".join(lines))
    tracemalloc.start()
    count = sum(len(table) for table in RefIdFile(file, "ref_id"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 200_000
    assert peak < 40_000_000
