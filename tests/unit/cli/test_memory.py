from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from esms_source.cli.memory import GARBAGE_OBJECTS, HEAPS

HEAPS_OF_THREADS = """
import ctypes, gc, sys, threading
from esms_source.cli.memory import tune
if sys.argv[1] == "tuned":
    tune()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(6)
def take():
    together.wait()
    libc.malloc(1_000)
    together.wait()
threads = [threading.Thread(target=take) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
print(gc.get_threshold()[0])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries")
def test_threads_share_heaps(tmp_path):
    """Without it each of six has its own."""
    heaps = {}
    for how in ("tuned", "plain"):
        told = tmp_path / how
        command = [sys.executable, "-c", HEAPS_OF_THREADS, how, str(told)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        heaps[how] = told.read_text().count("<heap nr=")
        assert (int(done.stdout) == GARBAGE_OBJECTS) == (how == "tuned")
    assert heaps["tuned"] <= HEAPS < heaps["plain"]
