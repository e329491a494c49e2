"""Files of RefIds: CSV as spreadsheets write it, or one RefId a line."""

from __future__ import annotations

import codecs
import csv
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, Final

import pyarrow as pa

from esms_source.exceptions import ConfigError
from esms_source.planning.database import COPY_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

DELIMITERS: Final = (",", ";", "\t")

NAMES: Final = {
    "refid": "ref_id",
    "smsid": "ref_id",
    "referenceid": "ref_id",
    "oaid": "oa_id",
    "sentat": "sent_at",
}
"""Headers that are understood in any case, with or without _, - and blanks."""

SHOWN: Final = 40


class RefIdFile:
    """A file of RefIds, read as Arrow tables of texts each time it is iterated over.

    It may be UTF-8 or UTF-16 and separated by comma, semicolon or tab; Excel
    writes ``sep=;`` on top of it. Without a header it holds one RefId a line.

    Args:
        path: The file.
        ref_id_column: A further name for the header of its RefIds.

    Raises:
        ConfigError: It can't be read, or its first line names other columns.
    """

    def __init__(self, path: Path, ref_id_column: str) -> None:
        self._path = path
        self._ref_id_column = ref_id_column
        with self._open() as file:
            for _ in self._tables(file, most=1):
                pass

    def __iter__(self) -> Iterator[pa.Table]:
        with self._open() as file:
            yield from self._tables(file)

    def _open(self) -> IO[str]:
        try:
            with self._path.open("rb") as file:
                start = file.read(4)
            return self._path.open(encoding=_encoding(start), newline="")
        except OSError as exc:
            raise self._unreadable(exc) from exc

    def _tables(self, file: IO[str], most: int | None = None) -> Iterator[pa.Table]:
        try:
            yield from islice(self._read(file), most)
        except (OSError, UnicodeError, csv.Error) as exc:
            raise self._unreadable(exc) from exc

    def _read(self, file: IO[str]) -> Iterator[pa.Table]:
        lines = (line for line in file if line.strip())
        first = next(lines, "")
        given = first.rstrip("\r\n").strip('"').lower()
        delimiter = None
        if given.startswith("sep=") and len(given) == len("sep=;"):
            delimiter, first = given[-1], next(lines, "")
        header = self._header(first, delimiter)
        if header is None:
            second = next(lines, "")
            self._require_ref_id(first, second)
            yield from _one_a_line(chain([first, second], lines))
            return
        delimiter, names = header
        # A quoted cell may go over several lines, blank ones too.
        cells = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
        rows = (row for row in cells if len(row) > 1 or any(row))
        while chunk := list(islice(rows, COPY_ROWS)):
            yield _table(names, chunk)

    def _header(self, line: str, given: str | None) -> tuple[str, list[str]] | None:
        """Return the delimiter and the columns that a first line names.

        None where it holds a RefId and nothing else.
        """
        splits: list[tuple[str, list[str]]] = []
        for delimiter in (given,) if given else DELIMITERS:
            reader = csv.reader([line], delimiter=delimiter, skipinitialspace=True)
            names = [name.strip() for name in next(reader, [])]
            splits.append((delimiter, self._understood(names)))
        delimiter, names = max(splits, key=lambda split: len(split[1]))
        known = [split for split in splits if "ref_id" in split[1]]
        if known:
            return max(known, key=lambda split: len(split[1]))
        if len(names) > 1:
            columns = ", ".join(repr(name[:SHOWN]) for name in names[:5])
            fact = f"{self._path} has no column of RefIds in its first line: {columns}"
            raise ConfigError(fact, "name it ref_id there, or give one RefId a line")
        return None

    def _understood(self, names: Sequence[str]) -> list[str]:
        """Return headers by our names; the setting's own name goes first."""
        wanted = self._ref_id_column.lower()
        is_named = any(name.lower() == wanted for name in names)
        understood: list[str] = []
        for name in names:
            plain = name.lower().replace("_", "").replace("-", "").replace(" ", "")
            ours = NAMES.get(plain, name)
            if is_named:
                ours = "ref_id" if name.lower() == wanted else ours
                if ours == "ref_id" and name.lower() != wanted:
                    ours = name
            understood.append(name if ours in understood else ours)
        return understood

    def _require_ref_id(self, first: str, second: str) -> None:
        """Refuse a lone header of something else: words above lines with digits."""
        if first.strip() and not _has_digit(first) and _has_digit(second):
            name = first.strip()[:SHOWN]
            fact = f"the first line of {self._path}, {name!r}, isn't like the next one"
            raise ConfigError(fact, "name the column ref_id, or remove the line")

    def _unreadable(self, exc: Exception) -> ConfigError:
        fact = f"{self._path} can't be read: {str(exc)[:200]}"
        return ConfigError(fact, "give a UTF-8 text")


def _encoding(start: bytes) -> str:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if start[1:2] == b"\0":
        return "utf-16-le"
    return "utf-16-be" if start[:1] == b"\0" else "utf-8-sig"


def _has_digit(text: str) -> bool:
    return any(character.isdigit() for character in text)


def _one_a_line(lines: Iterable[str]) -> Iterator[pa.Table]:
    ref_ids = (_unquoted(line.strip()) for line in lines if line.strip())
    while chunk := list(islice(ref_ids, COPY_ROWS)):
        yield pa.table({"ref_id": chunk})


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1].replace('""', '"') if quoted else text


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> pa.Table:
    """Return rows as a table; a cell behind the last name belongs to no column."""
    return pa.table(
        {
            name: [row[place] if place < len(row) else None for row in rows]
            for place, name in enumerate(names)
            if name
        }
    )
