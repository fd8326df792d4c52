"""Ray's workers: those that die are tried again, nobody shares a host with timing, and nothing
listens beyond it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import sweep_files

pytest.importorskip("ray")

LOCAL = """
import functools, os, sys
print = functools.partial(print, file=sys.stdout)
from pathlib import Path
from tests.support.sweep_tasks import alone, square
from vitedge.export.sweep.spec import Resources
from vitedge.export.sweep.workers import workers

folder = Path(sys.argv[1])
(folder / "host").mkdir()
with workers(2, "", Resources(memory_gb=0.1), folder) as able:
    numbers = [2, 3, 5, 7]
    outcomes = sorted(able.run(square, [(n, str(folder)) for n in numbers]), key=lambda o: o[0])
    for place, outcome, tries in outcomes:
        print(numbers[place], getattr(outcome, "what", None) or outcome, tries, sep="|")
    together = [o for _, o, _ in able.time(alone, [(str(folder / "host"),)] * 3)]
    print("together", together)
    pids = {p for p in os.listdir("/proc") if p.isdigit()}
    sockets = set()
    for pid in pids:
        try:
            if b"ray" not in Path("/proc", pid, "cmdline").read_bytes():
                continue
            names = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            sockets |= {name[8:-1] for name in names if name.startswith("socket:[")}
        except OSError:
            continue
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                print("listens", fields[1].partition(":")[0])
    print("reports", os.environ["RAY_USAGE_STATS_ENABLED"])
"""


CLUSTER = """
import functools, sys, threading, time
print = functools.partial(print, file=sys.stdout)
from pathlib import Path
from ray.cluster_utils import Cluster
import vitedge
from tests.support.sweep_tasks import slow
from vitedge.core.cluster import TIMING
from vitedge.export.sweep.spec import Resources
from vitedge.export.sweep.workers import workers

if __name__ == "__main__":
    file, folder = map(Path, sys.argv[1:])
    cluster = Cluster()
    node = dict(num_cpus=1, resources={TIMING: 1})
    cluster.add_node(**node)
    second = cluster.add_node(**node)
    result = vitedge.sweep(file, output=folder / "spread", address=cluster.address)
    print("states", *sorted({row.state for row in result.rows}))
    with workers(None, cluster.address, Resources(memory_gb=0.1), folder) as able:
        stop = threading.Timer(2, lambda: cluster.remove_node(second, allow_graceful=False))
        stop.start()
        outcomes = list(able.run(slow, [(n,) for n in range(4)]))
    print("values", sorted(o for _, o, _ in outcomes), max(t for _, _, t in outcomes))
"""


def run(program, *arguments):
    """The lines that a program prints."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "RAY_USAGE_STATS_ENABLED": "0"},
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_that_die_are_tried_again_and_nothing_leaves_the_machine(tmp_path):
    lines = run(LOCAL, tmp_path)
    assert lines[0] == "2|4|1" and lines[1] == "3|9|2" and lines[3] == "7|7 is refused|1"
    assert lines[2].startswith("5|") and lines[2].endswith("|2")
    assert "together [0, 0, 0]" in lines and "reports 0" in lines
    listening = {line.split()[1] for line in lines if line.startswith("listens")}
    assert listening and all(address.endswith("0100007F") for address in listening)


@pytest.mark.heavy
def test_two_hosts_share_a_sweep_and_one_of_them_may_die(tmp_path, held_out):
    two = {"plain": "minmax", "clipped": "mse"}
    file = sweep_files.write(tmp_path, two, ["onnxruntime-cpu"], held_out, duration_s=0.1)
    lines = run(CLUSTER, file, tmp_path)
    assert "states done" in lines and "values [0, 1, 2, 3] 2" in lines
