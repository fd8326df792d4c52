"""What other processes of ours spend is ours: CPU time and memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from vitedge.core.machine import ROOT
from vitedge.measure.latency.processes import cpu_s, peak_bytes

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
BUSY = """
import os, sys, time
if os.fork() == 0:  # a process below it does the work
    block = bytearray(os.urandom(2**20) * 48)
    while time.process_time() < 0.5:
        pass
    print("done", flush=True)
    sys.stdin.read()
else:
    os.wait()
"""


def test_what_a_process_below_spends_is_counted_while_it_lives_and_afterwards():
    before, alone = cpu_s(ROOT), peak_bytes(ROOT)
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        assert 0.45 <= cpu_s(ROOT) - before < 30
        assert peak_bytes(ROOT) - alone >= 48 * 2**20
    assert 0.45 <= cpu_s(ROOT) - before < 30
    assert peak_bytes(ROOT) <= alone + 2**20, "it is gone"
