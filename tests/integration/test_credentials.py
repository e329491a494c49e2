"""Wrong connection URLs: what is said of them, and that no part of them is."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING

import pytest

from esms_source.exceptions import EsmsError, causes
from esms_source.load.checks import check_destination, check_grants
from esms_source.load.destination import open_pipeline, reporting_errors
from esms_source.planning.dlt_warehouse import open_client
from esms_source.planning.scratch import Scratch
from esms_source.planning.warehouse import table_candidates
from esms_source.polling.shared_rate_limit import open_limiter
from esms_source.runtime import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esms_source.config import Settings

USER, PASSWORD, HOST, DATABASE = "uzer7x", "pazz9y", "127.0.0.9", "datab4se"
LOGIN = f"{USER}:{PASSWORD}"
PLACE = f"{HOST}:1/{DATABASE}"
GOOD = f"{LOGIN}@{PLACE}"

WRONG = [
    *(
        f"{scheme}://{GOOD}"
        for scheme in (
            "postgresql",  # nothing answers at that port
            "postgres",
            "postgresql+psycopg2",
            "postgresql+psycopg",
            "postgresql+asyncpg",
            "postgres+psycopg2",
            "redshift",
            "redshift+psycopg2",
            "mysql",
            "mysql+pymysql",
            "jdbc:postgresql",
            "jdbc",
            "pgsql",
            "PostgreSQL",
            "POSTGRES",
            "http",
            "https",
            "duckdb",
            "sqlite",
            "snowflake",
            "md",
            "postgresql ",
            " postgresql",
            "'postgresql",
            '"postgresql',
            "psql postgresql",
            "DATABASE_URL=postgresql",
        )
    ),
    f"postgresql:/{GOOD}",
    f"postgresql:{GOOD}",
    f"postgresql//{GOOD}",
    f"postgresql:///{GOOD}",
    f"postgresql://{GOOD} ",
    f"postgresql://{GOOD}'",
    f'postgresql://{GOOD}"',
    f"postgresql://{GOOD}\n",
    f"postgresql://{GOOD}?sslmode=nonsense",
    f"postgresql://{GOOD}?nonsense={PASSWORD}",
    f"postgresql://{GOOD}?connect_timeout={PASSWORD}",
    f"postgresql://{GOOD}?sslrootcert=/{PASSWORD}&sslmode=verify-full",
    f"postgresql://{GOOD}?host=/{PASSWORD}",
    f"postgresql://{GOOD}?options=-c{PASSWORD}",
    f"postgresql://{GOOD}#{PASSWORD}",
    f"postgresql://{GOOD}/{PASSWORD}",
    f"postgresql://{USER}:pa@{PASSWORD}@{PLACE}",
    f"postgresql://{USER}:@{PASSWORD}@{PLACE}",
    f"postgresql://{USER}:{PASSWORD}@@{PLACE}",
    f"postgresql://{USER}:pa/{PASSWORD}@{PLACE}",
    f"postgresql://{USER}:pa:{PASSWORD}@{PLACE}",
    f"postgresql://{USER}:pa?{PASSWORD}@{PLACE}",
    f"postgresql://{USER}:pa#{PASSWORD}@{PLACE}",
    f"postgresql://{USER}:[{PASSWORD}@{PLACE}",
    f"postgresql://{USER}:{PASSWORD}]@{PLACE}",
    f"postgresql://{LOGIN}@[{HOST}:1/{DATABASE}",
    f"postgresql://{LOGIN}@{HOST}]:1/{DATABASE}",
    f"postgresql://{USER}:%{PASSWORD}@{PLACE}",
    f"postgresql://{USER}:{PASSWORD}%@{PLACE}",
    f"postgresql://{USER}:{PASSWORD}%zz@{PLACE}",
    f"postgresql://{USER}:{PASSWORD}%00@{PLACE}",
    f"postgresql://{USER}:{PASSWORD}%ff@{PLACE}",
    f"postgresql://{USER}:<{PASSWORD}>@{PLACE}",
    f"postgresql://{USER}:{PASSWORD}@{HOST}:port/{DATABASE}",
    f"postgresql://{USER}:{PASSWORD}@{HOST}:99999/{DATABASE}",
    f"postgresql://{USER}:{PASSWORD}@{HOST}:/{DATABASE}",
    f"postgresql://{USER}:{PASSWORD}@{HOST}:1",
    f"postgresql://{USER}:{PASSWORD}@:1/{DATABASE}",
    f"postgresql://{USER}:{PASSWORD}",
    f"postgresql://{USER}@{PLACE}",
    f"postgresql://:{PASSWORD}@{PLACE}",
    f"postgresql://{PASSWORD}@{PLACE}",
    f"postgresql://{PLACE}",
    f"{GOOD}",
    f"host={HOST} port=1 user={USER} password={PASSWORD}",
    f'{{"host": "{HOST}", "port": 1, "password": "{PASSWORD}"}}',
    f'{{"host": "{HOST}", "password": "{PASSWORD}"',
]


def warehouse(url: str, settings: Callable[..., Settings], scratch: Scratch) -> None:
    """Read a PostgreSQL warehouse."""
    table = {"destination": "postgres", "credentials": url, "table": "sent"}
    made = settings(ref_ids=table)
    table_candidates(made, scratch, {})


def duckdb_warehouse(
    url: str, settings: Callable[..., Settings], scratch: Scratch
) -> None:
    """Read a warehouse that is called a DuckDB."""
    made = settings(ref_ids={"credentials": url, "table": "sent"})
    table_candidates(made, scratch, {})


def destination(name: str) -> None:
    """Open and check a destination."""
    with reporting_errors():
        pipeline = open_pipeline(name, "zalo", "esms")
        check_destination(pipeline)
        check_grants(pipeline)
        pipeline.sync_destination()


def store(url: str, settings: Callable[..., Settings], _: Scratch) -> None:
    """Open a shared budget."""
    open_limiter(settings(rate_limit_store=url), Stop())


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    """Where a warehouse is shown."""
    with Scratch("UTC", 192) as made:
        yield made


PLACES: dict[str, Callable[[str, Callable[..., Settings], Scratch], None]] = {
    "ref_ids.credentials": warehouse,
    "ref_ids.credentials of a DuckDB": duckdb_warehouse,
    "DESTINATION__POSTGRES__CREDENTIALS": lambda *_: destination("postgres"),
    "DESTINATION__DUCKDB__CREDENTIALS": lambda *_: destination("duckdb"),
    "rate_limit_store": store,
}


def parts(text: str) -> list[str]:
    """Return which parts of the URL a text holds."""
    return [part for part in (USER, PASSWORD, HOST, DATABASE) if part in text]


@pytest.mark.parametrize("place", PLACES)
def test_no_part_of_a_wrong_url_is_said(
    place: str,
    make_settings: Callable[..., Settings],
    scratch: Scratch,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither by the error, nor by what a traceback shows, nor by any log."""
    logging.getLogger("dlt").addHandler(caplog.handler)
    for url in WRONG:
        if place.isupper():
            monkeypatch.setenv(place, url)
        with pytest.raises(EsmsError) as caught:
            PLACES[place](url, make_settings, scratch)
        said = [*traceback.format_exception(caught.value), *map(repr, caught.traceback)]
        said += map(repr, causes(caught.value))
        assert not parts("".join(said)), (url, said)
        assert "\n" not in str(caught.value)
    logging.getLogger("dlt").removeHandler(caplog.handler)
    assert not parts("".join(capfd.readouterr()) + caplog.text)


@pytest.mark.parametrize("place", PLACES)
def test_a_driver_in_the_scheme_is_refused_with_the_remedy(
    place: str,
    make_settings: Callable[..., Settings],
    scratch: Scratch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SQLAlchemy's way to write it means nothing to the drivers used here."""
    if "DUCKDB" in place.upper():
        return
    url = f"postgresql+psycopg2://{GOOD}"
    if place.isupper():
        monkeypatch.setenv(place, url)
    with pytest.raises(EsmsError, match="write postgresql://") as caught:
        PLACES[place](url, make_settings, scratch)
    assert caught.value.exit_code == 2


def test_a_server_that_wants_no_password_gets_none(
    postgres: str, make_settings: Callable[..., Settings], scratch: Scratch
) -> None:
    """The driver then looks into ``.pgpass`` by itself, or goes without."""
    url = postgres.replace("postgres:any@", "postgres@")
    assert url != postgres
    table = {"destination": "postgres", "credentials": url, "query": "SELECT 1 ref_id"}
    made = make_settings(ref_ids=table)
    found = table_candidates(made, scratch, {})
    assert scratch.rows(f"FROM {found.relation}")


def test_a_destination_without_a_password_says_how_to_write_it(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dlt wants one, and an empty one will do."""
    url = postgres.replace("postgres:any@", "postgres@")
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", url)
    with pytest.raises(EsmsError, match="dlt wants one; write user:@host"):
        destination("postgres")
    url = postgres.replace("postgres:any@", "postgres:@")
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", url)
    destination("postgres")


@pytest.mark.parametrize("name", ["PASSWORD", "CREDENTIALS__PASSWORD", "HOST"])
def test_credentials_are_completed_under_our_names_only(
    name: str,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dlt would send any program's PASSWORD to the warehouse."""
    credentials = {"host": HOST, "username": USER, "database": DATABASE}
    table = {"destination": "postgres", "table": "sent"}
    monkeypatch.setenv(name, "foreign")
    for given in (credentials, f"postgresql://{USER}@{PLACE}"):
        made = make_settings(ref_ids=table | {"credentials": given})
        assert open_client(made).credentials["password"] == ""
    monkeypatch.setenv("SOURCES__ESMS__REF_IDS__CREDENTIALS__PASSWORD", name * 2)
    assert open_client(made).credentials["password"] == name * 2
    assert open_client(made).credentials["host"] == HOST
