from __future__ import annotations

import subprocess
import sys

import pytest

from esms_source.exceptions import PipelineBusyError
from esms_source.load.locks import pipeline_lock

HOLD = """
import sys, filelock
with filelock.FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_run_at_a_time(output):
    """The second ends at once, and the lock opens afterwards."""
    with pipeline_lock(output.pipeline()):
        with (
            pytest.raises(PipelineBusyError, match="'esms'") as caught,
            pipeline_lock(output.pipeline()),
        ):
            pass
        assert caught.value.exit_code == 75
    with pipeline_lock(output.pipeline()):
        pass


def test_another_pipeline_is_free(output):
    """The lock is the pipeline's own."""
    with (
        pipeline_lock(output.pipeline()),
        pipeline_lock(output.pipeline("other")) as held,
    ):
        assert held is None


def test_an_error_opens_the_lock(output):
    """Whatever ends a run, the next one may start."""
    with pytest.raises(KeyError), pipeline_lock(output.pipeline()):
        raise KeyError
    with pipeline_lock(output.pipeline()) as held:
        assert held is None


def test_a_killed_process_leaves_no_lock(output):
    """The lock ends with the process that holds it."""
    pipeline = output.pipeline()
    with pipeline_lock(pipeline):
        pass
    (path,) = __import__("pathlib").Path(pipeline.pipelines_dir).glob("*.lock")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(PipelineBusyError), pipeline_lock(pipeline):
            pass
        process.kill()
    with pipeline_lock(pipeline) as held:
        assert held is None
