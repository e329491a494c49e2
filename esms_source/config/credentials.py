"""Credentials of databases: refused where a driver would misread and quote them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from dlt.common.configuration.exceptions import (
    ConfigFieldMissingException,
    FieldLookupTraces,
    InvalidNativeValue,
    LookupTraces,
    ValueNotSecretException,
)
from dlt.common.configuration.specs import ConnectionStringCredentials
from dlt.common.configuration.specs.exceptions import NativeValueError
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials
from dlt.destinations.impl.postgres.configuration import PostgresCredentials

from esms_source.exceptions import ConfigError, EsmsError
from esms_source.redaction import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator

URL_FORM: Final = (
    "write postgresql://user:password@host:port/database,"
    " with %40 for @, %25 for %, %5B for [ and %2F for / in the password"
)

ALCHEMY_URL_FORM: Final = (
    "write mysql+pymysql://user:password@host:port/database, or another URL of"
    " SQLAlchemy, with %40 for @, %25 for %, %5B for [ and %2F for / in the password"
)

BUCKET_KEYS: Final = (
    "set DESTINATION__FILESYSTEM__CREDENTIALS__AWS_ACCESS_KEY_ID and"
    " …AWS_SECRET_ACCESS_KEY, or AWS's own settings"
)

FORMS: Final = {"SQLALCHEMY": ALCHEMY_URL_FORM, "FILESYSTEM": BUCKET_KEYS}
"""What to write, by a part of the setting's name; elsewhere it is ``URL_FORM``."""

ALCHEMY_DRIVERS: Final = (
    "pip install esms-source[mysql] and write mysql+pymysql://, or install the driver"
    " that the URL names"
)

POSTGRES_SCHEMES: Final = ("postgresql", "postgres")
_HOST: Final = re.compile(r"[\w.-]*|[\da-fA-F:.]+(%\w+)?")
_NO_FILE: Final = re.compile(r"://|:[^/]*@|\bpassword\W")
"""What connection strings have, and the path of a DuckDB file has not."""


def refuse_credentials(exc: Exception, what: str, name: str, remedy: str) -> EsmsError:
    """Return why a database can't be opened, without any part of its credentials.

    Args:
        exc: What dlt raised; it quotes them, or came from an error that does.
        what: What can't be opened.
        name: The setting that holds the credentials.
        remedy: What to do where the error itself doesn't tell.
    """
    form = next((form for part, form in FORMS.items() if part in name), URL_FORM)
    if isinstance(exc, ConfigFieldMissingException):
        # Where a bucket's are missing, dlt would do with a folder.
        missing = [name for name in _missing(exc.traces) if name != "local_dir"]
        if missing == ["password"]:
            fact = f"{what}: {name} holds no password, and dlt wants one"
            return ConfigError(fact, "write user:@host where the server asks for none")
        return ConfigError(f"{what}: {name} lacks {', '.join(missing)}", form)
    if isinstance(exc, (InvalidNativeValue, NativeValueError)):
        return ConfigError(f"{what}: {name} isn't a connection URL", form)
    if isinstance(exc, ValueNotSecretException):
        section = exc.key.rpartition(".")[0].replace(".credentials", "")
        fact = f"{what}: the secret [{section}] stands in {exc.provider_name}"
        return ConfigError(fact, "move it to .dlt/secrets.toml")
    return ConfigError(f"{what}: {first_line(exc)}", remedy)


def _missing(traces: FieldLookupTraces) -> Iterator[str]:
    """Yield the fields that dlt did not find, those of credentials too."""
    for field, tried in traces.items():
        inner = [trace for trace in tried if isinstance(trace, LookupTraces)]
        for trace in inner:
            yield from _missing(trace.traces)
        if not inner:
            yield field


def check_credentials(credentials: object, name: str) -> None:
    """Refuse credentials that a driver would misread, and then quote.

    Args:
        credentials: dlt's, resolved.
        name: The setting that holds them.

    Raises:
        ConfigError: It names no part of them.
    """
    if not isinstance(credentials, ConnectionStringCredentials):
        return
    host, database = credentials.host or "", credentials.database or ""
    if isinstance(credentials, DuckDbCredentials):
        if host or credentials.drivername != "duckdb" or _NO_FILE.search(database):
            remedy = "correct it"
            if credentials.drivername in POSTGRES_SCHEMES:
                remedy = "name postgres as the destination of this URL"
            raise ConfigError(f"{name}: not the path of a DuckDB file", remedy)
    elif isinstance(credentials, PostgresCredentials):
        if credentials.drivername not in POSTGRES_SCHEMES:
            fact = f"{name}: a URL with a scheme that PostgreSQL doesn't know"
            raise ConfigError(fact, "write postgresql://")
        check_parts(host, credentials.username, database, name, URL_FORM)
    elif _is_of_server(credentials):
        check_parts(host, credentials.username, database, name, ALCHEMY_URL_FORM)


def _is_of_server(credentials: ConnectionStringCredentials) -> bool:
    """Tell whether SQLAlchemy reaches a server by credentials, not SQLite's file."""
    is_alchemy = type(credentials).__name__ == "SqlalchemyCredentials"
    return is_alchemy and not str(credentials.drivername).startswith("sqlite")


def check_parts(
    host: str | None, user: str | None, database: str | None, name: str, remedy: str
) -> None:
    """Refuse a URL in which a password was cut into other parts.

    Raises:
        ConfigError: It names no part of them.
    """
    texts = (host or "", user or "", database or "")
    odd = any("@" in text or not text.isprintable() for text in texts)
    if odd or not _HOST.fullmatch(host or ""):
        raise ConfigError(f"{name}: not the URL of a database server", remedy)
