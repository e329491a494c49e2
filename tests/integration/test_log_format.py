from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.simulator import Simulator
    from tests.conftest import Warehouse
    from tests.integration.conftest import Ended, Esms

AS_JSON = ("--log-format", "json")
LATENCY = 1.0
ANSI = re.compile(r"\x1b\[")


def lines(ended: Ended) -> list[dict[str, Any]]:
    """Return what each line of stderr says; a line that is no object raises."""
    said = [json.loads(line) for line in ended.err.splitlines()]
    for line in said:
        assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
        assert line["level"] in {"info", "warning", "error"}
        assert line["message"]
    return said


def said_at(level: str, ended: Ended) -> list[str]:
    return [line["message"] for line in lines(ended) if line["level"] == level]


def test_every_line_of_a_run_is_an_object(
    esms: Esms, world: Callable[..., Simulator], warehouse: Warehouse
) -> None:
    """Logs, progress with its numbers, remedies and failures; stdout stays as it is."""
    world(3_000, oas=2, refused_oas=frozenset({"oa1"}), latency=LATENCY)
    warehouse.execute("INSERT INTO sent VALUES ('oa0', NULL, now(), 'c')")
    esms.set(requests_per_second=2, max_in_flight=2)
    ended = esms(*AS_JSON, "--verbose", "run", "--json")
    assert ended.status == 1
    assert ended.report["asked"] == 3_000
    progress = [line for line in lines(ended) if "in_flight" in line]
    assert progress
    assert all(line["stage"] == "asking" for line in progress)
    assert {line["total"] for line in progress} == {3_000}
    assert progress[-1]["asked"] > 0
    assert 0 < progress[-1]["rate"] <= 2.5
    assert progress[-1]["in_flight"] in {1, 2}
    assert progress[-1]["waits_for"] is None
    assert any("to ask in" in text for text in said_at("info", ended))
    warnings = said_at("warning", ended)
    assert any("1 row has no RefId" in text for text in warnings)
    assert any("refused OA oa1 with Code 204" in text for text in warnings)
    failed = [line["ref_ids"] for line in lines(ended) if "ref_ids" in line]
    assert failed == [1_500]


def test_a_run_that_goes_well_says_nothing_that_is_no_object(
    esms: Esms, world: Callable[..., Simulator]
) -> None:
    """A quiet run of a second has not even a line of progress."""
    world(3)
    plain = esms("--quiet", *AS_JSON, "run")
    assert plain.out.startswith("asked 3 RefIds in 1 requests")
    assert plain.err == ""


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((*AS_JSON, "run", "--repoll", "settled"), "no state 'settled'"),
        ((*AS_JSON, "run", "--nonsense"), "No such option '--nonsense'"),
        ((*AS_JSON, "--nonsense", "run"), "No such option '--nonsense'"),
        (AS_JSON, "Missing command"),
        (("--log-format=json", "--nonsense"), "No such option '--nonsense'"),
    ],
)
def test_a_refusal_is_one_object(
    esms: Esms, world: Callable[..., Simulator], argv: tuple[str, ...], words: str
) -> None:
    """With the exit code, wherever on the command line the mistake is."""
    world(3)
    ended = esms(*argv)
    [line] = lines(ended)
    assert words in line["message"]
    assert not line["message"].startswith("esms")
    assert (line["level"], line["exit_code"]) == ("error", 2)
    assert ended.status == 2
    assert not ended.out


def test_an_unknown_format_is_refused(esms: Esms) -> None:
    """In one line of text, with the forms there are."""
    ended = esms("--log-format", "xml", "run")
    assert ended.status == 2
    assert ended.err.startswith("esms: Invalid value for '--log-format': 'xml'")
    assert ended.err.count("\n") == 1


def test_the_end_of_rounds_is_an_object(
    esms: Esms,
    world: Callable[..., Simulator],
    wait_until: Callable[[Callable[[], object]], None],
) -> None:
    """A signal that ends them in order is told like the rest."""
    world(3)
    running = esms.start(*AS_JSON, "run", "--every", "60")
    wait_until(lambda: "asked 3" in running.said("out"))
    running.send(signal.SIGTERM)
    ended = running.wait()
    assert ended.status == 0
    assert said_at("info", ended)[-1].startswith("stopped by SIGTERM")


CODE = """
import logging, sys, threading, warnings
from esms_source.cli.stderr import talk
talk(verbose=False, quiet=False, log_format="json")
import dlt
from dlt.common import logger
dlt.pipeline("p", destination="duckdb")
logger.warning("of dlt")
logging.getLogger("other").warning("of another")
warnings.warn("a warning")
threading.Thread(target=lambda: 1 / 0).start()
raise ValueError("one line\\nand \\u2028 another")
"""


def test_what_others_write_is_an_object_too() -> None:
    """Dlt's log, another library's, a warning, and what ends a thread or all of it."""
    command = [sys.executable, "-c", CODE]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    said = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [line["logger"] for line in said] == [
        *("dlt", "other", "py.warnings"),
        *("esms_source", "esms_source"),
    ]
    assert [line["message"] for line in said[:2]] == ["of dlt", "of another"]
    assert "a warning" in said[2]["message"]
    assert said[3]["message"] == "ZeroDivisionError: division by zero"
    assert said[4]["message"] == "ValueError: one line\nand \u2028 another"
    assert all("Traceback" in line["exception"] for line in said[3:])


@pytest.mark.parametrize(("options", "is_drawn"), [((), True), (AS_JSON, False)])
def test_no_bar_is_drawn_for_programs(
    esms: Esms,
    world: Callable[..., Simulator],
    options: tuple[str, ...],
    is_drawn: bool,  # noqa: FBT001
) -> None:
    """On a terminal a run draws a bar, but not between objects."""
    world(3, latency=0.5)
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "esms_source", *options, "run", "--json"]
    with subprocess.Popen(
        command,
        env=dict(os.environ) | esms.env | {"TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=its,
    ) as process:
        os.close(its)
        said = b""
        with suppress(OSError):  # Linux has no other end of a terminal
            while came := os.read(ours, 65_536):
                said += came
        assert process.stdout
        assert json.loads(process.stdout.read())["asked"] == 3
    os.close(ours)
    assert bool(ANSI.search(said.decode())) == is_drawn
