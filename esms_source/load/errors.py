"""Why a load failed, by what the server said: refused for good, or not possible now."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import duckdb
from dlt.destinations.exceptions import DatabaseException

from esms_source.databases import is_busy, sql_state
from esms_source.databases.alchemy import is_misspelt
from esms_source.exceptions import causes
from esms_source.redaction import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator

REFUSING_STATES: Final = ("0A", "21", "22", "23", "2F", "42", "44", "54")
"""Classes of SQLSTATE that the same rows meet again.

Source: appendix A of PostgreSQL's documentation.
"""

REFUSING_ERRORS: Final = frozenset(
    {
        "DataError",
        "IntegrityError",
        "NotSupportedError",
        "OutOfMemoryException",
        "ProgrammingError",
        "TypeError",
        "ValueError",
    }
)
"""Names of errors that the same rows meet again, in any driver.

Source: PEP 249, Python's database API; Arrow's own are ValueError and TypeError. DuckDB
runs out of the memory that it is given here over single values of megabytes.
"""

_NO_MEMORY: Final = re.compile(r"failed to (?:pin block|allocate data) of size")
_JOB: Final = re.compile(r"(?P<table>\w+?)\.\w+\.\w+")


class Failure(NamedTuple):
    """Why a load failed.

    Attributes:
        said: What the server said, masked, in one line.
        refused: Whether it will say so again.
        table: The table that the failing job filled, where one is known.
    """

    said: str
    refused: bool
    table: str | None


def read_failure(exc: BaseException) -> Failure:
    """Say why a load failed.

    dlt calls errors terminal or transient by their classes: a NUL that PostgreSQL can't
    store is transient to it, and would be tried without end.
    """
    chain = list(_all_causes(exc))
    said = _said(chain)
    refused = not is_busy(exc) and _is_refusal(said)
    return Failure(first_line(said), refused, _table(chain))


def is_out_of_memory(exc: BaseException) -> bool:
    """Tell whether DuckDB ran out of the memory that it may take."""
    said = _said(list(_all_causes(exc)))
    # A commit that ran out of it is called a transaction's error.
    return isinstance(said, duckdb.OutOfMemoryException) or (
        isinstance(said, duckdb.Error) and _NO_MEMORY.search(str(said)) is not None
    )


def _all_causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield an error, what it came from, and what dlt keeps beside it."""
    for link in causes(exc):
        yield link
        beside = getattr(link, "client_exception", None)
        if isinstance(beside, BaseException):
            yield from _all_causes(beside)


def _said(chain: list[BaseException]) -> BaseException:
    """Return the driver's own error, which dlt wraps."""
    for link in reversed(chain):
        original: Any = getattr(link, "dbapi_exception", None)
        if isinstance(link, DatabaseException) and isinstance(original, Exception):
            # SQLAlchemy quotes the statement beside what its driver said.
            return getattr(original, "orig", None) or original
    return chain[-1]


def _is_refusal(exc: BaseException) -> bool:
    if state := sql_state(exc):
        return state.startswith(REFUSING_STATES)
    return is_misspelt(exc) or not REFUSING_ERRORS.isdisjoint(
        kind.__name__ for kind in type(exc).__mro__
    )


def _table(chain: list[BaseException]) -> str | None:
    for link in chain:
        match = _JOB.fullmatch(str(getattr(link, "job_id", "")))
        if match:
            return match["table"]
    return None
