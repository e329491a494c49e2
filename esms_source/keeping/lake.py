"""The files of a dataset, shown to DuckDB as the tables that they stand for."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

import dlt
import duckdb
import pyarrow as pa
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.schema import Schema
from dlt.common.schema.utils import new_table
from pyarrow import parquet

from esms_source.exceptions import DestinationError
from esms_source.keeping.buckets import copies_of, list_bucket
from esms_source.runtime import ScratchFolder
from esms_source.sql import quote_name, read_statements, text_list, text_literal
from esms_source.tables import (
    ANSWERED_BY_LOAD,
    API_REQUESTS,
    BIGINT,
    BOOL,
    CALLBACKS,
    DECIMAL,
    LOADS,
    REF_IDS,
    RUNS,
    SCHEMA,
    TABLES,
    TEXT,
    TIMESTAMP,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dlt.common.schema.typing import TTableFormat
    from dlt.destinations.sql_client import SqlClientBase

    from esms_source.tables import Table

FILESYSTEM: Final = ".filesystem"
"""How the type of dlt's destination that writes files ends."""

EVENTS: Final = {REF_IDS.name: "ref_id_events", CALLBACKS.name: "callback_events"}
"""Under which names rows of tables lie that mean something else, by the tables'."""

PARQUET: Final = "parquet"
"""Files that no table format stands over."""

KEYS: Final = "keys"
"""The view of a lake that has the keys of the ledger, some more than once."""

DELTA: Final = "delta"
ICEBERG: Final = "iceberg"

_SIGNS: Final[tuple[tuple[str, TTableFormat], ...]] = (
    ("/_delta_log/", DELTA),
    (".metadata.json", ICEBERG),
)
"""Parts of the paths of files that tell a table's format."""

_LOAD_ID: Final = re.compile(r"(\d{9,}\.\d+)\.[^./\\]+\.parquet$")
"""Where a file's name holds its load, in dlt's own layout."""

DUCKDB_TYPES: Final = {
    TEXT: "VARCHAR",
    BIGINT: "BIGINT",
    BOOL: "BOOLEAN",
    DECIMAL: "DECIMAL(18, 4)",
    TIMESTAMP: "TIMESTAMPTZ",
}

_EVENT_NO: Final = "_event_no"
"""A number of each event, made as it is read."""

_LOADS: Final = (
    "{load_id: 'VARCHAR', schema_name: 'VARCHAR', status: 'BIGINT',"
    " inserted_at: 'TIMESTAMPTZ', schema_version_hash: 'VARCHAR'}"
)

_MEMORY: Final = "512MB"


def is_lake(pipeline: dlt.Pipeline) -> bool:
    """Tell whether a destination keeps files, in which nothing can be replaced."""
    return pipeline.destination.destination_type.endswith(FILESYSTEM)


def statements() -> dict[str, str]:
    """Return the statements of ``current.sql`` by their names."""
    return read_statements(__package__, "current.sql")


class Lake:
    """A dataset of files.

    Args:
        pipeline: Whose destination keeps it.

    Attributes:
        dataset: Its name there.
    """

    def __init__(self, pipeline: dlt.Pipeline) -> None:
        self._schema = Schema(SCHEMA)
        target = dlt.dataset(pipeline.destination, pipeline.dataset_name, self._schema)
        client: Any = target.destination_client
        self._client = client
        self._pipeline = pipeline
        self.dataset = str(client.dataset_name)

    def show(
        self,
        connection: duckdb.DuckDBPyConnection,
        catalog: str,
        tables: Sequence[Table] = (),
        *,
        at_once: bool = False,
    ) -> None:
        """Make a view of each table; of none where nothing was loaded yet.

        Args:
            connection: A DuckDB.
            catalog: Its database that gets a schema of the dataset's name.
            tables: Which ones; none for all.
            at_once: Whether to find now which event of each RefId is the newest.

        Raises:
            DestinationError: Files are gone, or other programs deleted rows in them.
        """
        where = f"{catalog}.{quote_name(self.dataset)}"
        connection.execute(f"CREATE SCHEMA {where}")

        def view(name: str, sql: str, kind: str = "VIEW") -> None:
            connection.execute(f"CREATE {kind} {where}.{quote_name(name)} AS {sql}")

        loads, completed = self._loads(whole=not tables)
        view(LOADS, loads)
        if not completed:
            return
        shown = {table.name for table in tables or (*TABLES, RUNS)}
        # Whose callbacks count, the ledger says.
        shown |= {REF_IDS.name} if CALLBACKS.name in shown else set()
        for table in (*TABLES, RUNS):
            if table.name in shown and not self._show_table(
                table, completed, where, view
            ):
                return
        values = {name: f"{where}.{name}" for name in ("latest", *EVENTS.values())}
        values |= {"ref_ids": f"{where}.ref_ids", "event_no": _EVENT_NO}
        for name in ("latest", REF_IDS.name, KEYS, CALLBACKS.name):
            needed = CALLBACKS.name if name == CALLBACKS.name else REF_IDS.name
            kind = "TABLE" if name == "latest" and at_once else "VIEW"
            if needed in shown:
                view(name, statements()[name].format_map(values), kind)

    def _show_table(
        self,
        table: Table,
        completed: set[str],
        where: str,
        view: Callable[[str, str], None],
    ) -> bool:
        """Show a table's rows, and tell whether there is a ledger for it to be with."""
        name = EVENTS.get(table.name, table.name)
        files, is_open = self._files(name, completed)
        if table is REF_IDS and not files:
            self._refuse_lost_ledger(completed)
            return False
        rows = self._rows(table, files)
        if is_open and "load_id" in table.schema.names:
            loads = f"SELECT load_id FROM {where}.{LOADS} WHERE status = 0"
            rows = f"SELECT * FROM ({rows}) AS events WHERE load_id IN ({loads})"
        view(name, statements().get(name, "{rows}").format(rows=rows))
        return True

    def reach(self) -> None:
        """List the folder, if it is in a bucket.

        Raises:
            DestinationError: There is no such bucket, or it can't be listed.
        """
        if not self._client.is_local_filesystem:
            list_bucket(self._client)

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self._client.make_remote_url(self._client.dataset_path))

    @property
    def format(self) -> str | None:
        """In which format its tables are kept; None where there is none yet."""
        paths = self._paths(EVENTS[REF_IDS.name])
        return (self._table_format(paths) or PARQUET) if paths else None

    @property
    def layout(self) -> str:
        """How dlt names files."""
        return str(self._client.config.layout)

    def write(self, rows: pa.Table, table: Table, name: str) -> None:
        """Write a file into a table's folder, whole or not at all."""
        system = self._client.fs_client
        folder = self._client.get_table_dir(table.name)
        system.makedirs(folder, exist_ok=True)
        path = f"{folder}{name}.parquet"
        with system.open(f"{path}.part", "wb") as file:
            parquet.write_table(rows, file)
        system.mv(f"{path}.part", path)

    def _loads(self, *, whole: bool) -> tuple[str, set[str]]:
        """Return SQL of dlt's table of loads, and the ids of those that completed.

        dlt names each file by schema and load: to know the ids none is opened, which
        takes a while in a bucket.
        """
        paths = self._paths(LOADS)
        stems = [PurePath(path).stem.partition("__") for path in paths]
        completed = {load_id for schema, _, load_id in stems if schema == SCHEMA}
        if whole and paths:
            listed, told = self._list(paths), f"columns = {_LOADS}"
            told += ", format = 'newline_delimited', ignore_errors = true"
            return f"SELECT * FROM read_json({listed}, {told})", completed
        ids = ", ".join(map(text_literal, sorted(completed)))
        sql = (
            f"SELECT unnest(CAST([{ids}] AS VARCHAR[])) AS load_id,"
            f" '{SCHEMA}' AS schema_name, 0 AS status"
        )
        return sql + ("" if paths else ", now() AS inserted_at"), completed

    def _refuse_lost_ledger(self, completed: set[str]) -> None:
        """Refuse a lake whose ledger is gone, though requests tell of one."""
        if self._files(API_REQUESTS.name, completed)[0]:
            fact = f"the table {EVENTS[REF_IDS.name]!r} is gone, though loads of it"
            remedy = "restore it, or choose another dataset"
            raise DestinationError(f"{fact} are known", remedy)

    def _rows(self, table: Table, files: Sequence[str]) -> str:
        """Return SQL that selects all rows of some files."""
        columns = [(c.name, DUCKDB_TYPES[c.type]) for c in table.columns]
        more = ""
        if table is REF_IDS:
            columns += (ANSWERED_BY_LOAD, "VARCHAR"), (_EVENT_NO, "BIGINT")
            more = f", (file_index::BIGINT << 32) + file_row_number AS {_EVENT_NO}"
        none = ", ".join(f"CAST(NULL AS {kind}) AS {name}" for name, kind in columns)
        if not files:
            return f"SELECT {none} WHERE false"
        # A column that no file has yet is there, too.
        return (
            f"SELECT *{more}"
            f" FROM read_parquet({self._list(files)}, union_by_name = true)"
            f" UNION ALL BY NAME SELECT {none} WHERE false"
        )

    def _files(self, name: str, completed: set[str]) -> tuple[list[str], bool]:
        """Return the Parquet files that hold a table's rows.

        dlt names files by their load, so that those of loads that never completed,
        which may be cut off, aren't opened. Table formats name theirs as they like: in
        those such rows may be, which the second value tells.
        """
        paths = self._paths(name)
        if table_format := self._table_format(paths):
            return self._files_of_open_table(name, table_format), True
        if name == RUNS.name:
            return [path for path in paths if path.endswith(".parquet")], False
        found = ((path, _LOAD_ID.search(path)) for path in paths)
        return [p for p, match in found if match and match[1] in completed], False

    def _table_format(self, paths: Sequence[str]) -> TTableFormat | None:
        """Return the table format that stands over files, if one does."""
        for sign, table_format in _SIGNS:
            if any(sign in path.replace("\\", "/") for path in paths):
                return table_format
        return None

    def _files_of_open_table(self, name: str, table_format: TTableFormat) -> list[str]:
        self._schema.update_table(new_table(name, table_format=table_format))
        table = self._client.load_open_table(table_format, name)
        if table_format == DELTA:
            files, is_changed = table.file_uris(), table.protocol().reader_features
        else:
            tasks = list(table.scan().plan_files())
            files = [task.file.file_path for task in tasks]
            is_changed = any(task.delete_files for task in tasks)
        if is_changed:
            fact = f"another program deleted rows of {name!r} by marking them"
            raise DestinationError(fact, "let it rewrite the files")
        return [path.removeprefix("file://") for path in files]

    def _paths(self, name: str) -> list[str]:
        """Return all files of a table's folder, in the form that DuckDB takes."""
        try:
            paths: list[str] = self._client.list_table_files(name)
        except (DestinationUndefinedEntity, FileNotFoundError):
            return []
        if self._client.is_local_filesystem:
            return paths
        return [f"{self._client.config.protocol}://{path}" for path in paths]

    def _list(self, paths: Sequence[str]) -> str:
        """Return files as a list of DuckDB, copied to this disk if need be."""
        here = sorted(paths)
        if not self._client.is_local_filesystem:
            here = copies_of(self._pipeline)(self._client, here)
        return f"[{text_list(here)}]"


@contextmanager
def opened(
    pipeline: dlt.Pipeline, tables: Sequence[Table] = ()
) -> Iterator[SqlClientBase[Any]]:
    """Open a lake by a client that reads the tables in it by their names."""
    with ScratchFolder() as folder, duckdb.connect() as connection:
        connection.execute("SET temp_directory = ?", [folder])
        connection.execute(f"SET memory_limit = '{_MEMORY}'")
        lake = Lake(pipeline)
        lake.show(connection, "memory", tables)
        destination = dlt.destinations.duckdb(connection)
        dataset = dlt.dataset(destination, lake.dataset, Schema(SCHEMA))
        with dataset.sql_client as client:
            yield client


def format_of(pipeline: dlt.Pipeline) -> str | None:
    """Return in which format a lake is kept, None where nothing is there."""
    return Lake(pipeline).format


def url_of(pipeline: dlt.Pipeline) -> str | None:
    """Return where a lake is, None where a destination is none."""
    return Lake(pipeline).url if is_lake(pipeline) else None


def check_layout(pipeline: dlt.Pipeline) -> None:
    """Refuse a lake that isn't to be reached, or whose files don't name their load.

    Raises:
        DestinationError: With the remedy.
    """
    lake = Lake(pipeline)
    lake.reach()
    layout = lake.layout
    if "/{load_id}.{file_id}." not in layout:
        fact = f"the layout {layout!r} has no {{load_id}}.{{file_id}} in files' names"
        raise DestinationError(fact, "leave DESTINATION__FILESYSTEM__LAYOUT out")


def write_file(
    pipeline: dlt.Pipeline, table: Table, row: Mapping[str, Any], name: str
) -> None:
    """Write one row of a table as a file of its own."""
    Lake(pipeline).write(pa.Table.from_pylist([row], schema=table.schema), table, name)
