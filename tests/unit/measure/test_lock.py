"""One timing at a time on a machine, with real processes."""

import os
import subprocess
import sys

import pytest

from vitedge.measure.latency.lock import exclusive_timing

HOLD = """
import sys, time
from pathlib import Path
from vitedge.measure.latency.lock import exclusive_timing
with exclusive_timing(lambda line: print(line, flush=True), Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="only POSIX has such locks")


def holder(path):
    return subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)


def test_the_second_waits_and_says_for_whom_and_a_killed_holder_frees_it(tmp_path):
    path = tmp_path / "bench.lock"
    first, second = holder(path), None
    try:
        assert first.stdout.readline() == "mine\n"
        second = holder(path)
        said = second.stdout.readline()
        assert "waiting" in said and f"(pid {first.pid})" in said
        assert second.poll() is None
        first.kill()
        assert second.stdout.readline() == "mine\n"
    finally:
        for process in (first, second):
            if process:
                process.kill()
                process.communicate()


def test_within_itself_it_does_not_wait(tmp_path):
    said = []
    path = tmp_path / "bench.lock"
    with exclusive_timing(said.append, path), exclusive_timing(said.append, path):
        pass
    with exclusive_timing(said.append, path):
        assert path.read_text() == str(os.getpid())
    assert said == []


def test_every_user_may_lock_it_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        with exclusive_timing(print, tmp_path / "bench.lock"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "bench.lock").stat().st_mode & 0o777 == 0o666


def test_a_link_in_its_place_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "bench.lock").symlink_to(victim)
    with exclusive_timing(print, tmp_path / "bench.lock"):
        pass
    assert victim.read_text() == "precious"
