"""Run ``esms`` in forks of one process that has imported everything.

Reads a request as JSON per line: ``argv``, ``env``, ``cwd``, ``output`` (path
without suffix), ``signal_at`` (the name of a point, at which passing, and the
signal that the fork then sends itself, or null), ``backoff`` (fields of
``Backoff``, none for the usual waits) and ``most_loads`` (that a run spends on a
refused load). Answers each with two lines: the
fork's pid, and how it ended (an exit status, or minus a signal).
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from contextlib import suppress
from functools import partial
from importlib import import_module
from itertools import count
from typing import TYPE_CHECKING, Any

import dlt
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.destination.client import RunnableLoadJob
from dlt.common.storages.load_storage import LoadStorage
from dlt.destinations.impl.duckdb.duck import DuckDbCopyJob
from dlt.destinations.impl.filesystem.filesystem import FilesystemClient
from dlt.destinations.job_client_impl import SqlJobClientBase, SqlLoadJob
from dlt.load.load import Load

import esms_source.cli.check
import esms_source.cli.commands
import esms_source.cli.progress_bar
import esms_source.cli.rounds
import esms_source.load.parts
import esms_source.run
from esms_source.planning.scratch import Scratch
from esms_source.polling.backoff import Backoff
from esms_source.rows.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

# dlt imports these only when it needs them, and each fork would do so anew.
for name in (
    "dlt._workspace.cli",
    "dlt.common.libs.pyarrow",
    "dlt.common.libs.sql_alchemy_compat",
    "dlt.sources.helpers.requests",
    "pendulum.locales.en.locale",
    "pytz",
):
    with suppress(ImportError):
        import_module(name)

POINTS: dict[str, tuple[type, str, bool]] = {
    # name: the class and method that pass it, and whether that is after the call
    "reading ledger and warehouse": (Scratch, "attach", True),
    "at the end of planning": (Scratch, "close", False),
    "asking": (Recorder, "record", True),
    "before normalising": (dlt.Pipeline, "normalize", False),
    "before the normalised package": (LoadStorage, "commit_new_load_package", False),
    "after the normalised package": (LoadStorage, "commit_new_load_package", True),
    "before the load": (Load, "load_single_package", False),
    "before a job": (RunnableLoadJob, "run_managed", False),
    "after a job": (RunnableLoadJob, "run_managed", True),
    "after a copy": (DuckDbCopyJob, "run", True),
    "before a merge": (SqlLoadJob, "run", False),
    "after a merge": (SqlLoadJob, "run", True),
    "between two tables": (Load, "create_followup_jobs", False),
    "after the data": (SqlJobClientBase, "complete_load", False),
    "after the bookkeeping": (SqlJobClientBase, "complete_load", True),
    "after the data in files": (FilesystemClient, "complete_load", False),
    "after the bookkeeping in files": (FilesystemClient, "complete_load", True),
    "at the end of the load": (Load, "load_single_package", True),
}
"""Where a run can be interrupted."""


def _signal_at(name: str, passing: int, number: int) -> None:
    """Let the process send itself a signal at a point."""
    cls, method, after = POINTS[name]
    call: Callable[..., Any] = getattr(cls, method)
    passings = count(1)

    def passed() -> None:
        if next(passings) == passing:
            os.kill(os.getpid(), number)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not after:
            passed()
        result = call(*args, **kwargs)
        if after:
            passed()
        return result

    setattr(cls, method, wrapped)


def _be_esms(request: dict[str, Any]) -> None:
    """Become the command line; never return."""
    for stream, name in ((1, "out"), (2, "err")):
        file = os.open(f"{request['output']}.{name}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, stream)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    status = 70
    try:
        Container()[PluggableRunContext].reload(request["cwd"])
        if request["signal_at"]:
            _signal_at(*request["signal_at"])
        backoff = Backoff(**request["backoff"])
        vars(esms_source.load.parts)["MOST_LOADS"] = request["most_loads"]
        esms_source.run.sync = partial(esms_source.run.sync, backoff=backoff)
        esms_source.cli.commands.main(request["argv"], "esms")
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 1
    except BaseException:  # noqa: BLE001  what Python itself would do
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """Serve until the input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _be_esms(request)
        print(pid, flush=True)  # noqa: T201  the answer
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
