"""What dlt's clients of SQLAlchemy do differently from all its others, in one place."""

from __future__ import annotations

import re
import sys
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dlt.destinations.sql_client import SqlClientBase

MYSQL: Final = ("mysql", "mariadb")
SQLITE: Final = "sqlite"

SQLITE_TIME: Final = "%Y-%m-%d %H:%M:%S.%f"
"""How SQLAlchemy writes a time into SQLite, which has no type for it."""

LOCKED: Final = (1205, 3572)
"""ER_LOCK_WAIT_TIMEOUT and ER_LOCK_NOWAIT of MySQL's list of errors."""

OF_CLIENT: Final = range(2000, 3000)
"""Numbers of what MySQL's client says, not its server: it quotes host and user."""

LONGEST_IDS: Final = {"ref_id": 160, "oa_id": 64}
"""Characters of the ids that MySQL takes.

Together 900 bytes: a temporary table of MariaDB has no index on more than 1 000, and
without one the views take the square of the time.
"""

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}")


def is_alchemy(client: SqlClientBase[Any]) -> bool:
    """Tell whether a client of dlt goes through SQLAlchemy."""
    return type(client).__name__ == "SqlalchemyClient"


def dialect_of(client: Any) -> str:  # noqa: ANN401  any client of dlt
    """Return SQLAlchemy's name of the database behind a client of it."""
    return str(client.dialect_name)


def longest_ids(client: SqlClientBase[Any]) -> dict[str, int]:
    """Return how many characters ids may have, nothing where that isn't bounded."""
    is_bounded = is_alchemy(client) and dialect_of(client) in MYSQL
    return LONGEST_IDS if is_bounded else {}


def sqlite_file(client: Any) -> Path | None:  # noqa: ANN401  any client of dlt
    """Return the file of a dataset in SQLite, if that is what it is in.

    dlt has one for each dataset, beside the one that the credentials name.
    """
    if not is_alchemy(client) or dialect_of(client) != SQLITE:
        return None
    path = Path(client.credentials.database).resolve()
    return path.with_name(f"{path.stem}__{client.dataset_name}{path.suffix}")


def driver_errors(client: Any) -> tuple[type[Exception], ...]:  # noqa: ANN401  the same
    """Return the errors of a client's driver, which dlt may leave as they are."""
    if is_alchemy(client):
        return alchemy_errors()
    return (client.dbapi.Error,)


def alchemy_errors() -> tuple[type[Exception], ...]:
    """Return SQLAlchemy's errors; none where nothing has imported it."""
    module = sys.modules.get("sqlalchemy.exc")
    return (module.SQLAlchemyError,) if module else ()


def is_held(exc: BaseException) -> bool:
    """Tell whether MySQL or SQLite says that another session holds a lock."""
    text = str(exc)
    is_sqlite = type(exc).__module__ == "sqlite3" and "database is locked" in text
    return is_sqlite or _number(exc) in LOCKED


def is_misspelt(exc: BaseException) -> bool:
    """Tell whether SQLite says that SQL is wrong; it has one error for most things."""
    said = str(exc).startswith(("no such ", "near ", "ambiguous column"))
    return type(exc).__module__ == "sqlite3" and said


def is_of_client(exc: BaseException) -> bool:
    """Tell whether an error comes from reaching a MySQL server."""
    return _number(exc) in OF_CLIENT


def _number(exc: BaseException) -> int | None:
    is_of_driver = hasattr(exc, "args") and type(exc).__module__.startswith(
        ("pymysql", "MySQLdb", "mysql", "mariadb")
    )
    number = exc.args[0] if is_of_driver and exc.args else None
    return number if isinstance(number, int) else None


def names_of(cursor: Any) -> list[str]:  # noqa: ANN401  dlt's, of any client
    """Return the names of the columns that a query has; none where it selects none."""
    if hasattr(cursor, "description"):
        return [column[0] for column in cursor.description or ()]
    return list(cursor.keys()) if cursor.returns_rows else []


def quoting(client: Any) -> Callable[[str], str]:  # noqa: ANN401  any client of dlt
    """Return what quotes the name of a column in a client's own SQL."""
    quote: Callable[[str], str] = (
        client.escape_column_name
        if is_alchemy(client)
        else client.capabilities.escape_identifier
    )
    return quote


def literally(client: SqlClientBase[Any], sql: str) -> str:
    """Return SQL in which a client reads no parameters: a colon begins none."""
    return sql.replace(":", r"\:") if is_alchemy(client) else sql


def taken(client: SqlClientBase[Any], values: Sequence[Any]) -> list[Any]:
    """Return values as a client's driver takes them: times without zone are UTC."""
    return [_taken(client, value) for value in values]


def _taken(client: SqlClientBase[Any], value: Any) -> Any:  # noqa: ANN401  of any column
    if not is_alchemy(client) or not isinstance(value, datetime):
        return value
    plain = value.astimezone(timezone.utc).replace(tzinfo=None)
    return plain.strftime(SQLITE_TIME) if dialect_of(client) == SQLITE else plain


def given(
    client: SqlClientBase[Any], rows: Sequence[Sequence[Any]] | None
) -> Sequence[Sequence[Any]] | None:
    """Return what a client's driver gave, with times in UTC and counts as integers."""
    if rows is None or not is_alchemy(client):
        return rows
    return [tuple(map(_given, row)) for row in rows]


def _given(value: Any) -> Any:  # noqa: ANN401  of any column
    if isinstance(value, str) and _TIME.fullmatch(value):
        value = datetime.strptime(value, SQLITE_TIME)  # noqa: DTZ007  is UTC, below
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=timezone.utc)
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    return value


def type_name(client: Any, kind: Any) -> str:  # noqa: ANN401  dlt's job client, its type
    """Return a column's type as SQL: SQLAlchemy has objects for them."""
    if is_alchemy(client.sql_client):
        return str(kind.compile(dialect=client.sql_client.dialect))
    return str(kind)


def streamed(client: Any, sql: str, rows: int) -> Iterator[Sequence[Sequence[Any]]]:  # noqa: ANN401  dlt's
    """Yield what SQL selects in parts: dlt's own way would hold all of it.

    Args:
        client: dlt's, connected.
        sql: The query.
        rows: How many to fetch at once.
    """
    import sqlalchemy as sa  # noqa: PLC0415  an extra

    query = sa.text(literally(client, sql))
    query = query.execution_options(stream_results=True, max_row_buffer=rows)
    with client.begin_transaction():
        found = client.native_connection.execute(query)
        while part := found.fetchmany(rows):
            yield part


def kinds_of(client: Any, table: str) -> dict[str, Any]:  # noqa: ANN401  dlt's
    """Return the columns of a table with SQLAlchemy's types of them."""
    import sqlalchemy as sa  # noqa: PLC0415  an extra

    with client.begin_transaction():
        inspector = sa.inspect(client.native_connection)
        columns = inspector.get_columns(table, client.dataset_name)
    return {column["name"]: column["type"] for column in columns}
