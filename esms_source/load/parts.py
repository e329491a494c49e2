"""A load of which some callbacks are refused: in halves, until those stand alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from esms_source.exceptions import DestinationError
from esms_source.ledger import next_poll_at
from esms_source.tables import (
    API_REQUESTS,
    CALLBACKS,
    QUERY,
    REF_IDS,
    REJECTED_ROWS,
    TEXT,
    TIMESTAMP,
)

if TYPE_CHECKING:
    from dlt.extract import DltSource

    from esms_source.config import Settings
    from esms_source.load.errors import Failure
    from esms_source.runtime import Counts
    from esms_source.tables import Table

MOST_LOADS: Final = 64
"""Loads that a run spends on finding what is refused."""

KEY: Final = ("oa_id", "ref_id")

Tables = dict[str, pa.Table]
MakeSource = Callable[[Tables], "DltSource"]
"""Makes a source of some tables; rows without a load_id get that of their load."""

LoadPart = Callable[["DltSource"], "tuple[str, Failure | None]"]
"""Loads a source; returns the load's id, and why it is refused, if it is."""


class _Refused(NamedTuple):
    """A RefId whose callbacks the destination refuses, by themselves."""

    ledger: pa.Table
    failure: Failure


class Parts:
    """Finds the refused part of a load by halving.

    Args:
        settings: How long to wait before what was refused is asked again.
        make_source: Makes a source of tables.
        counts: Corrected by what is refused.
        load: Loads a part.
    """

    def __init__(
        self,
        settings: Settings,
        make_source: MakeSource,
        counts: Counts,
        load: LoadPart,
    ) -> None:
        self._settings = settings
        self._make_source = make_source
        self._counts = counts
        self._load = load
        self._left = MOST_LOADS

    def load(self, tables: Tables, failure: Failure) -> list[str]:
        """Load all of a refused package but what is refused by itself.

        Its requests come first: they tell what was asked, whatever becomes of it.

        Args:
            tables: What the package held.
            failure: Why it was refused.

        Returns:
            The ids of the loads.

        Raises:
            DestinationError: It takes too many loads to find out, or another table
                refuses.
        """
        ledger, callbacks = tables.pop(REF_IDS.name), tables.pop(CALLBACKS.name)
        requests_id, _ = self._spend(tables, failure)
        load_ids = [requests_id]
        refused: list[_Refused] = []
        parts = _halves(ledger)
        while parts:
            part = parts.pop()
            rows = {REF_IDS.name: part, CALLBACKS.name: _of(part, callbacks)}
            load_id, because = self._spend(rows, failure)
            if because is None:
                load_ids.append(load_id)
            elif len(part) > 1:
                parts += _halves(part)
            else:
                refused.append(_Refused(part, because))
        if refused:
            corrected = self._corrected(refused, callbacks, tables, requests_id)
            load_ids.append(self._spend(corrected, failure)[0])
        return load_ids

    def _spend(self, tables: Tables, failure: Failure) -> tuple[str, Failure | None]:
        if not self._left:
            fact = (
                f"the destination refuses more than can be found in {MOST_LOADS} loads"
            )
            raise _refusal(f"{fact}: {failure.said}")
        self._left -= 1
        load_id, because = self._load(self._make_source(tables))
        if because is not None and because.table != CALLBACKS.name:
            raise refused_by(because)
        return load_id, because

    def _corrected(
        self,
        refused: Sequence[_Refused],
        callbacks: pa.Table,
        tables: Tables,
        requests_id: str,
    ) -> Tables:
        """Return what is to be loaded of RefIds that are refused by themselves."""
        requests = tables[API_REQUESTS.name].to_pylist()
        changed: dict[int, dict[str, Any]] = {}
        rejected: list[dict[str, Any]] = []
        for ledger, failure in refused:
            (known,) = ledger.to_pylist()
            request = _request_of(known, requests)
            request["answered"] -= 1
            request["failed"] += 1
            changed[request["request_no"]] = request
            reason = f"the destination refuses it: {failure.said}"
            rows = _of(ledger, callbacks).to_pylist()
            rejected += [_rejected(row, request, reason) for row in rows]
            if request["endpoint"] == QUERY:
                self._counts.found -= 1
            else:
                self._counts.answered -= 1
            self._counts.failed += 1
            self._counts.rejected += len(rows)
            self._counts.problems[reason] += 1
        return {
            REF_IDS.name: pa.concat_tables(self._failed(item) for item in refused),
            API_REQUESTS.name: _stamped(API_REQUESTS, changed.values(), requests_id),
            REJECTED_ROWS.name: _stamped(REJECTED_ROWS, rejected, requests_id),
        }

    def _failed(self, item: _Refused) -> pa.Table:
        """Return a ledger row as it is where its callbacks are refused."""
        ledger = item.ledger
        polled_at = ledger["last_polled_at"]
        was_final = pc.less(ledger["final_at"], polled_at)
        state = pc.if_else(pc.fill_null(was_final, fill_value=False), "final", "failed")
        at_once = pa.array([False] * len(ledger))
        moved = {
            "state": state,
            "next_poll_at": next_poll_at(
                state, ledger["attempts"], polled_at, at_once, self._settings
            ),
            "last_error": pa.array(
                [f"the destination refuses its callbacks: {item.failure.said}"], TEXT
            ),
            "failed_since": pc.coalesce(ledger["failed_since"], polled_at),
            "final_at": pc.if_else(
                pc.equal(state, "final"), ledger["final_at"], pa.scalar(None, TIMESTAMP)
            ),
        }
        for name, column in moved.items():
            place = ledger.schema.get_field_index(name)
            ledger = ledger.set_column(place, ledger.schema.field(place), column)
        return ledger


def refused_by(failure: Failure) -> DestinationError:
    """Return the error of a table that takes no row as it is."""
    where = f" in its table {failure.table!r}" if failure.table else ""
    return _refusal(f"the destination refuses the load{where}: {failure.said}")


def read_files(files: Mapping[str, Sequence[str]]) -> Tables:
    """Read a package's Parquet files by table, without ``load_id``.

    Raises:
        pa.ArrowInvalid: A file is damaged.
    """
    return {
        name: pa.concat_tables(
            [parquet.read_table(path) for path in paths], promote_options="default"
        ).drop_columns(["load_id"])
        for name, paths in files.items()
    }


def _refusal(fact: str) -> DestinationError:
    return DestinationError(fact, "correct its tables; the load's RefIds are due again")


def _halves(ledger: pa.Table) -> list[pa.Table]:
    middle = (len(ledger) + 1) // 2
    return [
        half for half in (ledger.slice(middle), ledger.slice(0, middle)) if len(half)
    ]


def _of(ledger: pa.Table, callbacks: pa.Table) -> pa.Table:
    """Return the callbacks of some RefIds."""
    return callbacks.join(ledger.select(KEY), KEY, join_type="left semi")


def _request_of(
    ledger: dict[str, Any], requests: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the request that a row of the ledger came with.

    GetCallback's ended when its RefIds were polled; queries share a row, which spans
    the moments at which theirs were.
    """
    at = ledger["last_polled_at"]
    of_oa = [row for row in requests if row["oa_id"] == ledger["oa_id"]]
    exact = [row for row in of_oa if row["ended_at"] == at]
    around = [row for row in of_oa if row["started_at"] <= at <= row["ended_at"]]
    return (exact or around)[0]


def _rejected(
    callback: dict[str, Any], request: dict[str, Any], reason: str
) -> dict[str, Any]:
    row = {name: value for name, value in callback.items() if value is not None}
    return {
        "request_no": request["request_no"],
        "row_no": callback["row_no"],
        "reason": reason,
        "row": json.dumps(row, ensure_ascii=False, default=str),
        "polled_at": callback["polled_at"],
        "run_id": request["run_id"],
    }


def _stamped(table: Table, rows: Iterable[dict[str, Any]], load_id: str) -> pa.Table:
    rows = [{**row, "load_id": load_id} for row in rows]
    return pa.Table.from_pylist(rows, schema=table.schema)
