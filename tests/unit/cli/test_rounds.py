import os
import time
from pathlib import Path

import pytest

from esms_source.cli import rounds
from esms_source.exceptions import OutageError, StoppedError
from esms_source.runtime import Stop

HOURS = 2


class Waiting(Stop):
    """A stop on a clock that takes no time."""

    def __init__(self, clock):
        super().__init__()
        self._clock = clock

    def monotonic(self):
        return self._clock.monotonic()

    def wait(self, seconds):
        return self._clock.wait(seconds)


@pytest.fixture
def ended(fake_clock, monkeypatch):
    """Let rounds meet an outage of two hours, and end in the second; their times."""
    stop, times = Waiting(fake_clock), []

    def run_once(*_, **__):
        times.append(fake_clock.monotonic())
        if len(times) == 2:
            stop(StoppedError("stopped by a test", ""))
        outage = OutageError("the API is out")
        outage.retry_after = HOURS * 3_600
        raise outage

    monkeypatch.setattr(rounds, "run_once", run_once)
    return stop, times


def test_a_long_wait_between_rounds_is_seen_in_the_working_folder(
    ended, fake_clock, output
):
    """A probe that looks at its time each minute finds it young all the way."""
    stop, times = ended
    pipeline = output.pipeline()
    folder, old = pipeline.working_dir, time.time() - 86_400
    touched = []

    def look():
        touched.append(Path(folder).stat().st_mtime > old + 1)
        os.utime(folder, (old, old))
        fake_clock.after(rounds.TOUCH_SECONDS, look)

    os.utime(folder, (old, old))
    fake_clock.after(rounds.TOUCH_SECONDS * 1.5, look)
    rounds.run_rounds(pipeline, {}, stop, 300, as_json=False)
    assert times[1] - times[0] == pytest.approx(HOURS * 3_600, abs=1)
    assert len(touched) >= HOURS * 60 - 2
    assert all(touched)


def test_a_wait_goes_on_without_the_folder(ended, output, tmp_path):
    """The next round makes it anew."""
    stop, times = ended
    pipeline = output.pipeline()
    Path(pipeline.working_dir).rename(tmp_path / "elsewhere")
    rounds.run_rounds(pipeline, {}, stop, 300, as_json=False)
    assert len(times) == 2
