"""The settings of a new project: asked for, or taken from options, and written."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import dlt

from esms_source.cli.output import echo
from esms_source.cli.stderr import say
from esms_source.config import resolve_settings
from esms_source.exceptions import ConfigError, EsmsError
from esms_source.planning.planner import planning
from esms_source.planning.warehouse import open_warehouse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WAREHOUSES: Final = ("duckdb", "postgres", "sqlalchemy")
"""Where RefIds may be; SQLAlchemy is for MySQL, MariaDB and SQLite."""

FILES: Final = "filesystem"
DESTINATIONS: Final = (*WAREHOUSES, FILES)

URLS: Final = {
    "postgres": "postgresql://user:password@host:5432/database",
    "sqlalchemy": "mysql+pymysql://user:password@host:3306/database",
    FILES: "/srv/lake or s3://bucket/folder",
}

BUCKET_KEYS: Final = ("aws_access_key_id", "aws_secret_access_key", "region_name")
"""What a bucket takes, in dlt's words."""

LIKELY: Final[Mapping[str, Sequence[str]]] = {
    "ref_id_column": ("ref_id", "refid", "smsid", "sms_id", "reference_id"),
    "oa_id_column": ("oa_id", "oaid", "zalo_oa_id"),
    "sent_at_column": ("sent_at", "sent_time", "created_at", "send_time", "created"),
}
"""How columns are mostly called, the likeliest name first."""


@dataclass
class Answers:
    """What goes into the settings; None where nothing was said.

    Attributes:
        warehouse: dlt's name of the warehouse's kind.
        warehouse_credentials: A DuckDB file, or a URL.
        dataset_name: The schema of the table.
        table: The table that holds the RefIds.
        ref_id_column: Its column of RefIds.
        oa_id_column: Its column of OAs.
        sent_at_column: Its column of times.
        sent_at_timezone: The zone of times that name none.
        oa_id: The OA of rows that name none.
        result: dlt's name of the destination's kind.
        result_credentials: A DuckDB file, a URL, or a folder for files.
        api_key: eSMS's key.
        secret_key: eSMS's secret.
    """

    warehouse: str | None = None
    warehouse_credentials: str | None = None
    dataset_name: str | None = None
    table: str | None = None
    ref_id_column: str | None = None
    oa_id_column: str | None = None
    sent_at_column: str | None = None
    sent_at_timezone: str | None = None
    oa_id: str | None = None
    result: str | None = None
    result_credentials: str | None = None
    api_key: str | None = None
    secret_key: str | None = None

    def __bool__(self) -> bool:
        """Tell whether anything was said."""
        return any(getattr(self, field.name) for field in fields(self))


def settings_folder() -> Path:
    """Return where the settings go.

    Raises:
        ConfigError: Some are there already.
    """
    folder = Path(dlt.current.run_context().run_dir, ".dlt").resolve()
    for name in ("config.toml", "secrets.toml"):
        if os.path.lexists(folder / name):
            fact = f"{str(folder / name)!r} is there already, and nothing was changed"
            raise ConfigError(fact, "edit it, or move it away")
    return folder


def write_settings(folder: Path, answers: Answers) -> None:
    """Write both files; the one with secrets for its user only.

    Raises:
        ConfigError: They can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.toml").write_text(_config(answers), encoding="utf-8")
        number = os.open(
            folder / "secrets.toml", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
        )
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(_secrets(answers))
    except OSError as exc:
        fact = f"{str(folder)!r} can't be written ({exc.strerror})"
        raise ConfigError(fact, "let this user write there") from exc


def ask(answers: Answers) -> None:
    """Ask on the terminal; look into the warehouse, and offer what is there."""
    kinds = click.Choice(WAREHOUSES)
    answers.warehouse = click.prompt("Where are the RefIds?", "duckdb", type=kinds)
    answers.warehouse_credentials = _ask_credentials(str(answers.warehouse))
    tables = _tables(answers)
    if tables:
        echo("Tables: " + ", ".join(".".join(name) for name in tables))
    answers.table = click.prompt("Table of RefIds", default=_likeliest(tables))
    schema, _, table = answers.table.rpartition(".")
    columns = tables.get((schema, table), ())
    if columns:
        answers.dataset_name, answers.table = schema, table
        echo("Columns: " + ", ".join(columns))
    for name, names in LIKELY.items():
        found = _find(names, columns)
        optional = "" if name == "ref_id_column" else " (empty for none)"
        words = name.replace("_", " ")
        said = click.prompt(
            f"{words}{optional}", default=found, show_default=bool(found)
        )
        setattr(answers, name, said.strip() or None)
    if not answers.oa_id_column:
        answers.oa_id = click.prompt("OA that sent all messages")
    if answers.sent_at_column:
        answers.sent_at_timezone = click.prompt(
            "Time zone of times without one", default="Asia/Ho_Chi_Minh"
        )
    kinds = click.Choice(DESTINATIONS)
    answers.result = click.prompt("Where to load to?", "duckdb", type=kinds)
    answers.result_credentials = _ask_credentials(str(answers.result), "esms.duckdb")
    answers.api_key = click.prompt("eSMS ApiKey", hide_input=True)
    answers.secret_key = click.prompt("eSMS SecretKey", hide_input=True)


def _ask_credentials(kind: str, file: str = "warehouse.duckdb") -> str:
    if kind == "duckdb":
        return str(click.prompt("Its DuckDB file", default=file))
    if kind == FILES:
        return str(click.prompt(f"Its folder ({URLS[kind]})"))
    return str(click.prompt(f"Its URL ({URLS[kind]})", hide_input=True))


def _tables(answers: Answers) -> dict[tuple[str, str], list[str]]:
    """Return the columns of the warehouse's tables; nothing where it can't be read."""
    place = {
        "destination": answers.warehouse,
        "credentials": answers.warehouse_credentials,
        "table": "any",
    }
    tables: dict[tuple[str, str], list[str]] = {}
    path = Path(str(answers.warehouse_credentials))
    if answers.warehouse == "duckdb" and not path.exists():
        say(f"There is no file {str(path)!r} yet.")
        return {}
    try:
        settings = resolve_settings(ref_ids=place)
        with planning(settings) as scratch:
            warehouse = open_warehouse(settings, scratch)
            tables.update(warehouse.tables())
            warehouse.close()
    except EsmsError as exc:
        say(exc)
    except Exception as exc:  # noqa: BLE001  a driver's: the user types the names
        say(f"the warehouse can't be read: {type(exc).__name__}")
    return tables


def _likeliest(tables: Mapping[tuple[str, str], Sequence[str]]) -> str | None:
    """Return the first table that has a column of RefIds by its name."""
    for name, columns in tables.items():
        if _find(LIKELY["ref_id_column"], columns):
            return ".".join(name)
    return None


def _find(names: Sequence[str], columns: Sequence[str]) -> str:
    for name in names:
        for column in columns:
            if column.lower().replace(" ", "_") == name:
                return column
    return ""


def _line(name: str, value: str | None, example: str, why: str = "") -> str:
    """Return a line of TOML: what was said, else an example that is commented out."""
    comment = f"  # {why}" if why else ""
    if value:
        return f"{name} = {json.dumps(value, ensure_ascii=False)}{comment}"
    return f"# {name} = {json.dumps(example, ensure_ascii=False)}{comment}"


def _config(answers: Answers) -> str:
    lines = [
        "[sources.esms]",
        _line("oa_id", answers.oa_id, "1090257973118325189", "of rows that name no OA"),
        *_table_format(answers.result),
        "",
        "[sources.esms.ref_ids]",
        _line("destination", answers.warehouse, "duckdb", "the warehouse"),
        *_file(answers.warehouse, answers.warehouse_credentials, "warehouse.duckdb"),
        _line("dataset_name", answers.dataset_name, "main", "its schema"),
        _line("table", answers.table, "zns_messages"),
        _line("ref_id_column", answers.ref_id_column, "ref_id"),
        _line("oa_id_column", answers.oa_id_column, "oa_id"),
        _line("sent_at_column", answers.sent_at_column, "sent_at"),
        _line(
            "sent_at_timezone",
            answers.sent_at_timezone,
            "Asia/Ho_Chi_Minh",
            "of times that name none",
        ),
        "",
        "[runtime]",
        "dlthub_telemetry = false",
    ]
    return "\n".join(lines) + "\n"


def _table_format(result: str | None) -> list[str]:
    if result != FILES:
        return []
    return [_line("table_format", None, "delta", "or iceberg; parquet by default")]


def _file(kind: str | None, credentials: str | None, example: str) -> list[str]:
    """Return the line of a DuckDB file; a URL is a secret."""
    if kind not in (None, "duckdb"):
        return []
    return [_line("credentials", credentials, example)]


def _secrets(answers: Answers) -> str:
    lines = [
        "[sources.esms]",
        _line("api_key", answers.api_key, "…"),
        _line("secret_key", answers.secret_key, "…"),
    ]
    if answers.warehouse not in (None, "duckdb"):
        lines += ["", "[sources.esms.ref_ids]"]
        sample = URLS.get(str(answers.warehouse), URLS["postgres"])
        lines += [_line("credentials", answers.warehouse_credentials, sample)]
    # dlt takes credentials of a destination from here only, be it a file's name.
    result = answers.result or "duckdb"
    examples = {"duckdb": "esms.duckdb"} | URLS
    name = "bucket_url" if result == FILES else "credentials"
    example = examples.get(result, URLS["postgres"])
    lines += ["", f"[destination.{result}]"]
    lines += [_line(name, answers.result_credentials, example)]
    if result == FILES:
        lines += ["", "# [destination.filesystem.credentials]"]
        lines += [_line(name, None, "…") for name in BUCKET_KEYS]
    return "\n".join(lines) + "\n"
