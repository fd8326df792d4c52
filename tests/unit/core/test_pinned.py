"""A process that keeps to some cores, and is let go."""

import os
import sys

import pytest

from vitedge.core.machine import usable_cores
from vitedge.core.pinned import pinned


@pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="takes two cores"
)
def test_two_processes_keep_to_cores_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("vitedge.core.pinned.FOLDER", tmp_path)  # apart from other tests' locks
    before, threads = os.sched_getaffinity(0), os.environ.get("OMP_NUM_THREADS")
    with pinned(1):
        first = os.sched_getaffinity(0)
        assert usable_cores() == len(first) == 1 and os.environ["OMP_NUM_THREADS"] == "1"
        os.sched_setaffinity(0, before)  # as another process would be
        with pinned(1):
            assert os.sched_getaffinity(0) != first
    os.sched_setaffinity(0, before)
    assert os.environ.get("OMP_NUM_THREADS") == threads
    with pinned(len(before)):
        assert os.sched_getaffinity(0) == before
