"""The URL of a warehouse that SQLAlchemy reads: told from others, and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import dlt

from esms_source.config.credentials import (
    ALCHEMY_URL_FORM as URL_FORM,
)
from esms_source.config.credentials import (
    check_parts,
)
from esms_source.databases import installing
from esms_source.exceptions import ConfigError, RefIdTableError

if TYPE_CHECKING:
    from sqlalchemy import URL

    from esms_source.config.ref_id_table import RefIdTable

CREDENTIALS: Final = "ref_ids.credentials"

FOREIGN: Final = re.compile(r"\s*(mysql|mariadb|sqlite|mssql|oracle)(\+\w+)?://")
"""URLs that SQLAlchemy reads, whatever ``ref_ids.destination`` says."""


def foreign_url(table: RefIdTable) -> URL | None:
    """Return SQLAlchemy's URL of a warehouse, None where a destination of dlt reads it.

    Raises:
        ConfigError: SQLAlchemy isn't installed, or the URL is none.
        RefIdTableError: There is no such SQLite file.
    """
    given = table.credentials
    is_foreign = isinstance(given, str) and FOREIGN.match(given)
    if table.destination != "sqlalchemy" and not is_foreign:
        return None
    try:
        import sqlalchemy as sa  # noqa: PLC0415  an extra
    except ModuleNotFoundError as exc:
        fact = "SQLAlchemy, which reads this warehouse, is not installed"
        raise ConfigError(fact, installing("sqlalchemy")) from exc
    try:
        if isinstance(given, Mapping):
            url = sa.URL.create(**given)
        else:
            url = sa.make_url(str(given or "").strip())
    except (sa.exc.ArgumentError, TypeError, ValueError):
        # What they say may quote a part of a password.
        fact = f"{CREDENTIALS} isn't a connection URL"
        raise ConfigError(fact, URL_FORM) from None
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    check_parts(url.host, url.username, url.database, CREDENTIALS, URL_FORM)
    return url


def _sqlite(url: URL) -> URL:
    """Return the URL of a file that is there, counted from dlt's folder."""
    if url.host or url.username or not url.database:
        fact = f"{CREDENTIALS} isn't the URL of a SQLite file"
        raise ConfigError(fact, "write sqlite:///crm.db, or sqlite:////data/crm.db")
    path = Path(dlt.current.run_context().run_dir, url.database).resolve()
    if not path.is_file():
        fact = f"the warehouse's SQLite file {str(path)!r} is not there"
        raise RefIdTableError(fact, f"correct {CREDENTIALS}")
    return url.set(database=str(path))
