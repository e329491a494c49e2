"""Columns of MySQL and SQLite that hold what is loaded exactly, and their indexes."""

from __future__ import annotations

import warnings
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from esms_source.databases.alchemy import LONGEST_IDS, MYSQL, dialect_of
from esms_source.tables import TABLES

if TYPE_CHECKING:
    import sqlalchemy as sa

LOCK_SECONDS: Final = 2
"""How long MySQL lets a statement wait for a lock; ``Patience`` tries again."""

CONNECT_SECONDS: Final = 10
"""How long MySQL's driver waits for the server to take a connection."""

SESSION: Final = (
    f"SET SESSION time_zone = '+00:00', lock_wait_timeout = {LOCK_SECONDS},"
    f" innodb_lock_wait_timeout = {LOCK_SECONDS}"
)

KEYS: Final = {table.name: table.key for table in TABLES}
KEY_CHARACTERS: Final = 191
"""Characters of other texts in a key, which are dlt's and ours."""


def index_of(table: str) -> tuple[str, ...]:
    """Return the columns of a table's unique index: RefIds tell most rows apart."""
    return tuple(sorted(KEYS.get(table, ()), key=lambda name: name != "ref_id"))


def set_up(destination: Any, config: Any, client: Any) -> None:  # noqa: ANN401  dlt's
    """Let a destination of SQLAlchemy have our types, and wait for no lock for long.

    Args:
        destination: dlt's, changed in place.
        config: Its configuration, resolved.
        client: A client of it.
    """
    # dlt 1.31 writes the merge of the small tables so that SQLAlchemy warns.
    warnings.filterwarnings("ignore", "implicitly coercing SELECT object")
    destination.caps_params.update(capabilities(dialect_of(client)))
    # What a statement was given holds phones, and dlt logs errors.
    options = {"hide_parameters": True, **(config.engine_kwargs or {})}
    if dialect_of(client) in MYSQL:
        given = options.get("connect_args") or {}
        bounds = {"init_command": SESSION, "connect_timeout": CONNECT_SECONDS}
        options["connect_args"] = bounds | given
    destination.config_params["engine_kwargs"] = options


def capabilities(dialect: str) -> dict[str, Any]:
    """Return what dlt's capabilities must be for a dialect of SQLAlchemy.

    A merge is one transaction, each table has a unique index on its key, by which a
    merge finds the rows, and JSON, which comes as text, is stored as it is.
    """
    import sqlalchemy as sa  # noqa: PLC0415  an extra
    from dlt.destinations.impl.sqlalchemy import (  # noqa: PLC0415
        dialect as dialects,
        type_mapper,
    )
    from sqlalchemy.dialects import mysql  # noqa: PLC0415

    class Json(sa.TypeDecorator[Any]):
        """JSON that comes as text."""

        impl = sa.JSON
        cache_ok = True

        def bind_processor(self, dialect: Any) -> Any:  # noqa: ANN401, ARG002
            return None

    class Exact(sa.TypeDecorator[Any]):
        """A decimal in SQLite, which has none: refused where it would be rounded."""

        impl = sa.Numeric
        cache_ok = True

        def bind_processor(self, dialect: Any) -> Any:  # noqa: ANN401, ARG002
            return _exact

        def result_processor(self, dialect: Any, coltype: object) -> Any:  # noqa: ANN401, ARG002
            return None

    class Mysql(type_mapper.MysqlVariantTypeMapper):
        """dlt's own TEXT ends at 64 KiB, and compares without regard to case."""

        def db_type_from_text_type(self, column: Any, table: Any) -> sa.String:  # noqa: ANN401
            given = {"charset": "utf8mb4", "collation": "utf8mb4_bin"}
            name = column["name"]
            if name in (*KEYS.get(table["name"], ()), "load_id"):
                length = LONGEST_IDS.get(name, KEY_CHARACTERS)
                return mysql.VARCHAR(length, **given)
            return mysql.LONGTEXT(**given)

        def db_type_from_json_type(self, column: Any, table: Any) -> Any:  # noqa: ANN401, ARG002
            return Json()

    class Sqlite(type_mapper.SqlalchemyTypeMapper):
        """SQLite."""

        def db_type_from_json_type(self, column: Any, table: Any) -> Any:  # noqa: ANN401, ARG002
            return Json()

        def db_type_from_decimal_type(self, column: Any, table: Any) -> Any:  # noqa: ANN401, ARG002
            return Exact(column.get("precision"), column.get("scale"))

    is_mysql = dialect in MYSQL
    base: Any = (
        dialects.MysqlDialectCapabilities
        if is_mysql
        else dialects.SqliteDialectCapabilities
    )

    class Indexed(base):  # type: ignore[misc]
        """Gives each table its index when it is made."""

        def adapt_table(self, table: sa.Table, table_schema: Any) -> sa.Table:  # noqa: ANN401
            table = super().adapt_table(table, table_schema)
            columns = index_of(table.name)
            if columns and not table.indexes:
                parts = [table.c[name] for name in columns]
                sa.Index(f"esms_{table.name}", *parts, unique=True)
            return table

    given: dict[str, Any] = {
        "type_mapper": Mysql if is_mysql else Sqlite,
        "dialect_capabilities": Indexed(dialect),
        "supports_transactions": True,
    }
    # SQLite has one writer at a time.
    return given if is_mysql else given | {"loader_parallelism_strategy": "sequential"}


def _exact(value: Decimal | float | None) -> float | None:
    """Return a decimal as the number that SQLite stores.

    Raises:
        ValueError: It has more digits than that.
    """
    if value is None:
        return None
    number = float(value)
    if Decimal(repr(number)) != Decimal(str(value)):
        raise ValueError("a decimal of more digits than SQLite's numbers have")
    return number
