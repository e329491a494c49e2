"""Whatever the API answers costs no more than what it answers for.

With ESMS_TEST_LONG=1 the memory is measured under answers of 16 MiB, 64 at once; it
takes minutes.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from esms_source.cli.check import check_api_key
from esms_source.exceptions import EsmsError
from esms_source.simulator import sample_row

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from esms_source.config import Settings
    from tests.conftest import Answer, Hostile, Output, RawServer, Warehouse
    from tests.integration.conftest import Esms

MIB = 1024 * 1024


def rows(ref_ids: list[str], **fields: object) -> list[dict[str, object]]:
    """Return a sound row of each RefId, but for some fields."""
    return [sample_row(ref_id, OAId="oa0") | fields for ref_id in ref_ids]


def answer(*rows: object) -> bytes:
    """Return a sound envelope of some rows."""
    return answer_of({"Code": 100, "Data_callback": rows})


def answer_of(envelope: object) -> bytes:
    """Return an answer."""
    return json.dumps(envelope, ensure_ascii=False).encode()


def raw_answer(rows: bytes) -> bytes:
    """Return an envelope of rows as they are written."""
    return b'{"Code":100,"Message":"","Data_callback":[' + rows + b"]}"


def always(content: bytes) -> Callable[[list[str]], bytes]:
    """Answer the same, whatever is asked."""
    return lambda _: content


def one_error(text: bytes) -> Callable[[list[str]], bytes]:
    """Let the first row of an answer have this ErrorInfo, escaped as it stands."""
    return lambda ref_ids: raw_answer(
        b'{"SMSID":"%s","SendStatus":5,"SendFailed":1,"ErrorInfo":"%s"}'
        % (ref_ids[0].encode(), text)
    )


def repeated(piece: bytes, size: int) -> bytes:
    """Return a text of so many bytes."""
    return piece * (size // len(piece))


def many_rows(ref_ids: list[str]) -> bytes:
    """Return 20 000 rows of one RefId, each with an error of its own."""
    text = "x" * 700
    return answer(
        *(
            {"SMSID": ref_ids[0], "ErrorInfo": f"{text}{number}"}
            for number in range(20_000)
        )
    )


def wide_rows(ref_ids: list[str]) -> bytes:
    """Return a row of each RefId, whose error takes 75 kB."""
    return answer(*rows(ref_ids, ErrorInfo="x" * 75_000))


LARGEST = 15 * MIB
DEEP = rb"{\"error\":-1,\"data\":" + repeated(b"[", 9 * MIB)
MEMBERS = rb"{\"error\":-1,\"data\":{" + repeated(rb"\"a\":1,", 9 * MIB) + b"}}"
FIXED: dict[str, bytes] = {
    "numbers": raw_answer(repeated(b"1,", LARGEST) + b"1"),
    "lists": raw_answer(repeated(b"[],", LARGEST) + b"1"),
    "objects": raw_answer(repeated(b'{"a":1},', 450_000 * 8) + b"1"),
    "decimals": raw_answer(repeated(b"1.5,", 450_000 * 4) + b"1"),
    "unknown SMSIDs": raw_answer(repeated(b'{"SMSID":"x"},', LARGEST) + b"1"),
    "20 000 unknown SMSIDs": raw_answer(
        repeated(b'{"SMSID":"' + b"x" * 750 + b'"},', 20_000 * 763)[:-1]
    ),
    "20 000 small rows": raw_answer(repeated(b"[],", 60_000)[:-1]),
    "20 001 rows": raw_answer(repeated(b"[],", 60_003)[:-1]),
    "UTF-16 numbers": raw_answer(repeated(b"1,", 7 * MIB) + b"1")
    .decode()
    .encode("utf-16"),
    "an emoji in a long text": raw_answer(
        b'{"SMSID":"' + "😀".encode() + repeated(b"x", LARGEST) + b'"}'
    ),
    "spaces": b" " * LARGEST,
    "no end": b"[" * LARGEST,
}


MADE: dict[str, Callable[[list[str]], bytes]] = {
    **{name: always(content) for name, content in FIXED.items()},
    "a plain error": one_error(repeated(b"x", 9 * MIB)),
    "an error with an emoji": one_error("😀".encode() + repeated(b"x", 9 * MIB)),
    "an error of many members": one_error(MEMBERS),
    "a deep error": one_error(DEEP),
    "an unterminated error": one_error(
        rb"{\"error\":-1,\"message\":\"" + b"x" * 9 * MIB
    ),
    "a percent-encoded error": one_error(b"%7B" + repeated(b"%41", 9 * MIB)),
    "20 000 rows": many_rows,
    "wide rows": wide_rows,
}
HUGE_VALUES = {name for name in MADE if "error" in name or "emoji" in name}
PACKED: dict[str, bytes] = {
    "a gzip bomb": gzip.compress(b" " * 1_000 * MIB, 1),
    "packed numbers": gzip.compress(FIXED["numbers"], 1),
}
MOST_ABOVE = 300 * MIB
COUNT = 64 * 200

CHILD = """
import resource, sys
from esms_source.cli import main
try:
    main(["run", "--json"])
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def peak(esms: Esms, folder: Path, url: str) -> tuple[int, str]:
    """Return the most memory that a run of its own took, in bytes, and what it said."""
    ended = subprocess.run(
        [sys.executable, "-c", CHILD],
        env=dict(os.environ)
        | esms.env
        | {
            "SOURCES__ESMS__BASE_URL": url,
            "SOURCES__ESMS__MAX_IN_FLIGHT": "64",
            "SOURCES__ESMS__MAX_ATTEMPTS": "1",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    *said, kilobytes = ended.stderr.strip().splitlines()
    return int(kilobytes) * 1024, ended.stdout + "\n".join(said)


@pytest.mark.skipif("not os.environ.get('ESMS_TEST_LONG')", reason="takes minutes")
@pytest.mark.parametrize("what", [*MADE, *PACKED])
def test_a_hostile_answer_takes_bounded_memory(
    what: str,
    esms: Esms,
    warehouse: Warehouse,
    hostile: Callable[..., Hostile],
    tmp_path: Path,
) -> None:
    """At most 300 MB above a quiet run, with 64 such answers under way.

    Of an answer that is one huge value there is one: the destination has to hold it.
    """
    warehouse.fill(COUNT)
    quiet, _ = peak(esms, tmp_path, hostile(lambda _, ids: answer(*rows(ids))).url)
    warehouse.fill(COUNT, start=COUNT)
    together = threading.Barrier(64)

    def reply(number: int, ref_ids: list[str]) -> Answer:
        with suppress(threading.BrokenBarrierError):
            together.wait(2)
        if what in PACKED:
            return 200, {"Content-Encoding": "gzip"}, PACKED[what]
        if what in HUGE_VALUES and number > 1:
            return answer(*rows(ref_ids))
        return MADE[what](ref_ids)

    most, said = peak(esms, tmp_path, hostile(reply).url)
    assert "Traceback" not in said
    assert most - quiet < MOST_ABOVE, (quiet // MIB, most // MIB)


def test_a_long_retry_after_ends_the_run_and_what_came_is_loaded(
    esms: Esms,
    warehouse: Warehouse,
    hostile: Callable[..., Hostile],
    output: Output,
) -> None:
    """The exit code is 1, the rest is due at once."""
    warehouse.fill(600)
    refusal: Answer = (503, {"Retry-After": "3600"}, b"")
    server = hostile(lambda number, ids: refusal if number == 2 else answer(*rows(ids)))
    ended = esms(base_url=server.url, max_in_flight=1)
    assert ended.status == 1
    assert "run again after 20" in ended.err
    assert len(server.asked) == 2
    assert output.rows("SELECT count(*) FROM callbacks") == [200]
    assert output.rows(
        "SELECT count(*) FROM ref_ids WHERE state = 'failed' AND next_poll_at <= now()"
    ) == [200]


def test_rows_of_many_megabytes_are_loaded(
    esms: Esms,
    warehouse: Warehouse,
    hostile: Callable[..., Hostile],
    output: Output,
) -> None:
    """Four answers of one stray row each, larger together than a load's memory."""
    warehouse.fill(4)
    stray = answer({"SMSID": "stray", "Note": "x" * LARGEST})
    server = hostile(lambda *_: stray)
    ended = esms(base_url=server.url, batch_size=1)
    assert (ended.status, ended.report["rejected"]) == (0, 4), ended.err
    assert output.rows('SELECT min(length("row"::VARCHAR)) FROM rejected_rows') > [
        LARGEST
    ]


def test_a_dead_end_ends_the_run_with_what_to_check(
    esms: Esms, warehouse: Warehouse, hostile: Callable[..., Hostile]
) -> None:
    """A few requests instead of hundreds: contract, section 6.4."""
    warehouse.fill(4_000)
    server = hostile(lambda *_: (403, {}, b"<html>"))
    ended = esms(base_url=server.url, max_in_flight=1)
    assert ended.status == 1
    assert "allow-list" in ended.err
    assert "Traceback" not in ended.err
    assert len(server.asked) == 3


REMEDIES: dict[str, tuple[Answer, str]] = {
    "HTTP 302": ((302, {"Location": "/"}, b""), "redirects are not followed"),
    "HTTP 403": ((403, {}, b""), "allow-list"),
    "HTTP 404": ((404, {}, b""), "check base_url"),
    "HTTP 429": ((429, {}, b""), "lower requests_per_second"),
    "HTTP 500": ((500, {}, b""), "try again later"),
    "Code 99": (answer_of({"Code": 99}), "ask eSMS's support"),
    "Code 105": (answer_of({"Code": "105"}), "wait"),
    "Code 160": (answer_of({"Code": 160}), "lower requests_per_second"),
    "not JSON": (b"<html>", "base_url is eSMS's API"),
    "without a code": (answer_of({"error": "Invalid request"}), "base_url is eSMS's"),
    "connection broken": (None, "the network"),
    "time-out": ((200, {"Content-Length": "9"}, b""), "the network"),
}


@pytest.mark.parametrize("fact", REMEDIES)
def test_check_names_a_remedy_for_each_refusal(
    fact: str,
    make_settings: Callable[..., Settings],
    hostile: Callable[..., Hostile],
) -> None:
    """The fact, then the remedy, for one request at most."""
    refused, remedy = REMEDIES[fact]
    server = hostile(lambda *_: refused)
    settings = make_settings(base_url=server.url, read_timeout=1)
    with pytest.raises(EsmsError) as caught:
        check_api_key(settings, ("oa", "a"))
    assert fact in caught.value.fact
    assert remedy in caught.value.remedy
    assert len(server.asked) == 1


def test_a_signal_ends_a_run_whose_server_drips(
    esms: Esms,
    warehouse: Warehouse,
    raw_server: Callable[..., RawServer],
    wait_until: Callable[[Callable[[], object]], None],
) -> None:
    """Within an attempt and one load: contract, section 6.4."""
    warehouse.fill(1_000)

    def act(server: RawServer, connection: socket.socket) -> None:
        if server.take(connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            server.drip(connection, b"X: x\r\n")

    server = raw_server(act)
    esms.set(base_url=server.url, connect_timeout=0.5, read_timeout=1)
    running = esms.start("run")
    wait_until(lambda: server.requests >= 2)
    began = time.monotonic()
    running.send(signal.SIGTERM)
    ended = running.wait()
    assert ended.status == 1
    assert "stopped by SIGTERM" in ended.err
    # The bound of an attempt is 2.5 s; the rest is for the load.
    assert time.monotonic() - began < 2.5 + 5
