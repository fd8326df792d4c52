"""One timing at a time on a machine, with real processes."""

import os
import subprocess
import sys

import pytest

from vitedge.core.machine import ROOT, describe_machine
from vitedge.measure.latency.conditions import NOT_ALONE, Watch
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


def test_its_owner_alone_may_write_to_it_whatever_the_umask_and_whoever_made_it(tmp_path):
    path = tmp_path / "bench.lock"
    path.touch()
    path.chmod(0o666)  # as it was made once
    before = os.umask(0)
    try:
        for _ in range(2):
            with exclusive_timing(print, path) as alone:
                assert alone
            assert path.stat().st_mode & 0o777 == 0o644
            path.unlink()
    finally:
        os.umask(before)


def test_whoever_keeps_it_is_waited_for_with_a_limit(tmp_path):
    path, said = tmp_path / "bench.lock", []
    first = holder(path)
    try:
        assert first.stdout.readline() == "mine\n"
        with exclusive_timing(said.append, path, limit_s=0.5) as alone:
            assert not alone
            with exclusive_timing(said.append, path, limit_s=0.5) as inner:
                assert not inner
            conditions = Watch(ROOT, alone=alone).conditions(describe_machine(1))
        assert [line.split()[0] for line in said] == ["waiting", "another"]
        assert path.read_text() == str(first.pid)  # it is the holder's still
        assert NOT_ALONE in conditions.warnings
    finally:
        first.kill()
        first.communicate()
    with exclusive_timing(said.append, path) as alone:
        assert alone and len(said) == 2
        assert NOT_ALONE not in Watch(ROOT, alone=alone).conditions(describe_machine(1)).warnings
    assert path.read_text() == ""


def test_a_link_in_its_place_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "bench.lock").symlink_to(victim)
    with exclusive_timing(print, tmp_path / "bench.lock"):
        pass
    assert victim.read_text() == "precious"
