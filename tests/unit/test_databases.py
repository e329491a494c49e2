"""What errors of databases amount to."""

from __future__ import annotations

import errno
import tempfile

import duckdb
import psycopg2.errors
import pytest

from esms_source.databases import explain
from esms_source.exceptions import DestinationError
from esms_source.planning.planner import planning


class _Full(psycopg2.errors.DiskFull):
    pgcode = "53100"


class _Short(psycopg2.errors.OutOfMemory):
    pgcode = "53200"


@pytest.mark.parametrize(
    ("exc", "fact", "remedy"),
    [
        (duckdb.OutOfMemoryException("failed to pin"), "memory", "planning_memory"),
        (
            duckdb.OutOfMemoryException("the 'max_temp_directory_size' setting"),
            "no room left on a disk",
            tempfile.gettempdir(),
        ),
        (
            duckdb.IOException("Could not write: No space left on device"),
            "no room left on a disk",
            tempfile.gettempdir(),
        ),
        (OSError(errno.ENOSPC, "full"), "no room left on a disk", "free room"),
        (OSError(errno.EDQUOT, "quota"), "no room left on a disk", "free room"),
        (_Full("could not extend file"), "full disk", "room on the server"),
        (_Short("out of memory"), "out of memory", "room on the server"),
    ],
    ids=ascii,
)
def test_what_ran_out_is_said_with_its_remedy(exc, fact, remedy):
    """Also where another error was raised from it."""
    outer = RuntimeError("wrapped")
    outer.__cause__ = exc
    for error in (exc, outer):
        said = explain(error, "planning failed", "any other remedy")
        assert fact in said.fact
        assert remedy in said.remedy
        assert "\n" not in str(said)


def test_too_little_memory_for_planning_names_the_setting(make_settings):
    """DuckDB's own words end in advice that can't be followed here."""

    def need_more() -> None:
        with planning(make_settings(planning_memory=64)) as scratch:
            scratch.execute("SET temp_directory = ''")
            rows = "FROM range(9000000) AS t(i)"
            scratch.execute(f"CREATE TABLE plan.main.t AS SELECT md5(i::TEXT) {rows}")

    with pytest.raises(DestinationError, match="raise planning_memory"):
        need_more()
