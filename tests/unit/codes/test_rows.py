from __future__ import annotations

import csv
import unicodedata
from pathlib import Path

import pytest

import esms_source.codes

CODES = Path(esms_source.codes.__file__).parent
SMALL_TABLES = {
    "send_statuses": {0, 1, 2, 4, 5, 7},
    "message_types": {1, 2, 3, 4, 6, 7, 8, 13, 23, 24, 25, 26, 27},
    "telcos": {1, 2, 3, 4, 5, 6, 7, 9},
}
ESMS_CODES = {
    *(99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 110, 115, 117, 118, 119),
    *(120, 124, 131, 132, 140, 143, 146, 160, 161, 162, 163, 171, 177, 199),
    *(201, 204, 210, 300, 301, 687, 788, 789, 790, 791, 799, 801, 802),
    *(851, 852, 853, 854, 1001),
}
ZNS_CODES = {
    *(0, -100, -101, -102, -103, -104, -105, -106, -107, -108, -109, -1091),
    *(
        -110,
        -111,
        -112,
        -1121,
        -1122,
        -1123,
        -1124,
        -113,
        -1131,
        -1132,
        -114,
        -115,
        -116,
    ),
    *(-117, -118, -119, -120, -1201, -1202, -121, -122, -123, -124, -1241, -125),
    *(-126, -127, -128, -129, -130, -131, -132, -133, -134, -135, -1351, -136),
    *(-137, -138, -1381, -139, -140, -141, -142, -143, -144, -1441, -145, -146),
    *(-147, -1471, -1472, -148, -149, -1491, -150, -151, -152, -153, -158, -159),
    *(-160, -161, -162, -249),
}
OA_MESSAGE_CODES = {
    *(-32, -200, -201, -202, -204, -205, -209, -210, -211, -212, -213, -214, -215),
    *(-216, -217, -222, -305, -311),
    *(-218, -219, -220, -221, -223, -224, -227, -230, -232, -233, -234, -235, -237),
    *(-238, -240, -241, -242, -244, -248, -320, -321, -403),
}
CATEGORIES = {
    *("success", "recipient", "content", "template", "quota", "balance"),
    *("permission", "credentials", "schedule", "request", "system"),
}
WHO_CAN_FIX = {
    *("nobody", "recipient", "sender", "oa_admin", "developer", "esms", "zalo"),
}
PASSING_CATEGORIES = {"quota", "balance", "schedule", "system"}


def read(name: str) -> list[dict[str, str]]:
    with (CODES / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def codes_of(source: str) -> set[int]:
    return {int(row["code"]) for row in read("error_codes") if row["source"] == source}


@pytest.mark.parametrize("name", [*SMALL_TABLES, "error_codes"])
def test_every_cell_is_filled(name):
    """No cell is blank, padded or without its column, and letters are composed."""
    for row in read(name):
        for cell in row.values():
            assert cell
            assert cell == unicodedata.normalize("NFC", cell.strip())


@pytest.mark.parametrize(("name", "ids"), SMALL_TABLES.items())
def test_small_table_names_each_documented_id_once(name, ids):
    """A small table holds the documented ids, each once, in two languages."""
    rows = read(name)

    assert list(rows[0]) == ["id", "name_en", "name_vi"]
    assert sorted(int(row["id"]) for row in rows) == sorted(ids)


def test_error_codes_have_the_promised_columns():
    """The columns of error codes are those that the tables promise."""
    assert list(read("error_codes")[0]) == [
        *("code", "source", "meaning_en", "meaning_vi"),
        *("category", "retryable", "who_can_fix"),
    ]


def test_each_code_of_a_source_stands_once():
    """Code and source together are the key."""
    keys = [(row["code"], row["source"]) for row in read("error_codes")]

    assert len(keys) == len(set(keys))


def test_every_esms_code_is_explained():
    """Each code that eSMS documents is there, and no other."""
    assert codes_of("esms") == ESMS_CODES


def test_every_zalo_code_is_explained():
    """Each code of Zalo's ZNS and OA messages is there, and no other."""
    assert codes_of("zalo") == ZNS_CODES | OA_MESSAGE_CODES


def test_no_code_belongs_to_two_sources():
    """A code alone tells its source, so a join on it doubles no message."""
    assert not codes_of("esms") & codes_of("zalo")


def test_code_of_oa_messages_says_so():
    """Codes that only OA messages have are marked in both languages."""
    rows = [row for row in read("error_codes") if row["source"] == "zalo"]

    marked = {int(r["code"]) for r in rows if r["meaning_en"].endswith("(OA message)")}
    assert marked == OA_MESSAGE_CODES
    assert marked == {
        int(row["code"]) for row in rows if row["meaning_vi"].endswith("(tin OA)")
    }


@pytest.mark.parametrize(
    ("column", "allowed"),
    [
        ("source", {"esms", "zalo"}),
        ("category", CATEGORIES),
        ("retryable", {"true", "false"}),
        ("who_can_fix", WHO_CAN_FIX),
    ],
)
def test_column_holds_its_closed_set(column, allowed):
    """Analysts can rely on the values of a labelled column: all used, no other."""
    assert {row[column] for row in read("error_codes")} == allowed


def test_what_passes_is_retryable():
    """What passes with time or money lets the same message through later."""
    rows = [r for r in read("error_codes") if r["category"] in PASSING_CATEGORIES]

    assert {row["retryable"] for row in rows} == {"true"}


def test_success_asks_for_nothing():
    """Only success codes are of the category success, and nobody has to act."""
    rows = [row for row in read("error_codes") if row["category"] == "success"]

    assert {(row["code"], row["source"]) for row in rows} == {
        ("0", "zalo"),
        ("100", "esms"),
    }
    assert {(row["retryable"], row["who_can_fix"]) for row in rows} == {
        ("false", "nobody")
    }
