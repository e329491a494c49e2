"""Columns of MySQL and SQLite that hold what is loaded exactly, and their indexes."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from dlt.destinations.impl.sqlalchemy.dialect import (
    MysqlDialectCapabilities,
    SqliteDialectCapabilities,
)
from dlt.destinations.impl.sqlalchemy.type_mapper import (
    MysqlVariantTypeMapper,
    SqlalchemyTypeMapper,
)
from sqlalchemy.dialects import mysql

from esms_source.databases.alchemy import LONGEST_IDS, MYSQL, dialect_of
from esms_source.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlt.common.destination.typing import PreparedTableSchema
    from dlt.common.schema.typing import TColumnSchema

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


def set_up(destination: Any, config: Any, client: Any) -> None:  # noqa: ANN401  dlt's
    """Let a destination of SQLAlchemy have our types, and wait for no lock for long.

    A merge becomes one transaction.

    Args:
        destination: dlt's, changed in place.
        config: Its configuration, resolved.
        client: A client of it.
    """
    dialect = dialect_of(client)
    # What a statement was given holds phones, and dlt logs errors.
    options = {"hide_parameters": True, **(config.engine_kwargs or {})}
    capabilities = destination.caps_params
    capabilities["supports_transactions"] = True
    if dialect in MYSQL:
        capabilities["type_mapper"] = MysqlTypes
        capabilities["dialect_capabilities"] = MysqlTables(dialect)
        bounds = {"init_command": SESSION, "connect_timeout": CONNECT_SECONDS}
        options["connect_args"] = bounds | (options.get("connect_args") or {})
    else:
        capabilities["type_mapper"] = SqliteTypes
        capabilities["dialect_capabilities"] = SqliteTables(dialect)
        # SQLite has one writer at a time.
        capabilities["loader_parallelism_strategy"] = "sequential"
    destination.config_params["engine_kwargs"] = options


class JsonText(sa.TypeDecorator[Any]):
    """JSON that comes as text, and is stored as it is."""

    impl = sa.JSON
    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> None:
        """Change nothing."""


class Exact(sa.TypeDecorator[Any]):
    """A decimal in SQLite, which has none: refused where it would be rounded."""

    impl = sa.Numeric
    cache_ok = True

    def bind_processor(
        self,
        dialect: sa.Dialect,  # noqa: ARG002  SQLAlchemy's signature
    ) -> Callable[[Decimal | None], float | None]:
        """Return what makes a number of a decimal."""
        return exact_number

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> None:
        """Change nothing."""


def exact_number(value: Decimal | None) -> float | None:
    """Return a decimal as the number that SQLite stores.

    Raises:
        ValueError: It has more digits than that.
    """
    if value is None:
        return None
    number = float(value)
    if Decimal(repr(number)) != value:
        raise ValueError("a decimal of more digits than SQLite's numbers have")
    return number


class JsonTypes(SqlalchemyTypeMapper):
    """dlt's types, but for JSON."""

    def db_type_from_json_type(
        self,
        column: TColumnSchema,  # noqa: ARG002  dlt's signature
        table: PreparedTableSchema,  # noqa: ARG002  dlt's signature
    ) -> Any:  # noqa: ANN401  as dlt has it
        """Return a type that encodes nothing."""
        return JsonText()


class MysqlTypes(JsonTypes, MysqlVariantTypeMapper):
    """MySQL's types: dlt's own TEXT ends at 64 KiB, and doesn't tell a from A."""

    def db_type_from_text_type(
        self, column: TColumnSchema, table: PreparedTableSchema
    ) -> sa.String:
        """Return a type with room for any text, or which an index takes."""
        characters = {"charset": "utf8mb4", "collation": "utf8mb4_bin"}
        name = column["name"] or ""
        if name in (*KEYS.get(table["name"] or "", ()), "load_id"):
            length = LONGEST_IDS.get(name, KEY_CHARACTERS)
            return mysql.VARCHAR(length, **characters)
        return mysql.LONGTEXT(**characters)


class SqliteTypes(JsonTypes):
    """SQLite's types."""

    def db_type_from_decimal_type(
        self,
        column: TColumnSchema,
        table: PreparedTableSchema,  # noqa: ARG002  dlt's signature
    ) -> Any:  # noqa: ANN401  as dlt has it
        """Return a type that rounds nothing."""
        return Exact(column.get("precision"), column.get("scale"))


def with_index(table: sa.Table) -> sa.Table:
    """Give a table of ours a unique index on its key: merges find the rows by it.

    RefIds come first, as they tell most rows apart.
    """
    columns = sorted(KEYS.get(table.name, ()), key=lambda name: name != "ref_id")
    if columns and not table.indexes:
        parts = [table.c[name] for name in columns]
        sa.Index(f"esms_{table.name}", *parts, unique=True)
    return table


class MysqlTables(MysqlDialectCapabilities):
    """How dlt makes tables in MySQL."""

    def adapt_table(
        self,
        table: sa.Table,
        table_schema: PreparedTableSchema,  # noqa: ARG002  dlt's signature
    ) -> sa.Table:
        """Add the index."""
        return with_index(table)


class SqliteTables(SqliteDialectCapabilities):
    """How dlt makes tables in SQLite."""

    def adapt_table(
        self,
        table: sa.Table,
        table_schema: PreparedTableSchema,  # noqa: ARG002  dlt's signature
    ) -> sa.Table:
        """Add the index."""
        return with_index(table)
