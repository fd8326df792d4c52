"""A sweep whose driver, a worker or a host is killed at random moments, and then goes on.

python -m benchmarks.sweep_kills [--kills 20] [--seed 0]

Each is killed once a sweep has begun, until it has been often enough; then the sweep is let run to
its end. Prints whether it came to what an undisturbed one does, and what was computed twice.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import msgspec

from benchmarks import peers
from benchmarks.sweep_scale import SWEEP, figures
from vitedge.export.sweep.row import Row

VICTIMS = {"worker": "ray::", "driver": "vitedge sweep", "host": "raylet/raylet"}
"""What is killed, and what its command line has in it."""


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, killed = random.Random(options.seed), Counter()
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as folder:
        file = Path(folder) / "sweep.toml"
        file.write_text(SWEEP)
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        start(file, whole).wait()
        longest_s = 2.0 * sum(row.seconds for row in rows(whole)) / options.kills
        for number in range(options.kills):
            process = start(file, broken)
            time.sleep(15 + rng.uniform(0, longest_s))  # Ray starts first
            name = [*VICTIMS][number % len(VICTIMS)]
            if process.poll() is None and strike(process, VICTIMS[name], rng):
                killed[name] += 1
            if name == "driver":
                process.wait()
            elif process.poll() is None:
                time.sleep(3)
                end(process)
        start(file, broken).wait()
        same = figures(whole) == figures(broken)
        extra = made(broken) - made(whole)
    peers.table(("killed", "times"), sorted(killed.items()))
    peers.verdict("the same figures", same)
    peers.verdict(f"made twice of what came to an end: {dict(extra) or 'nothing'}", not extra)


def start(file, output):
    """A sweep by Ray in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "vitedge", "sweep", file, "--output", output, "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def strike(process, pattern, rng):
    """Kill -9 one of the sweep's processes; returns whether there was one."""
    if pattern == VICTIMS["driver"]:
        end(process)
        return True
    victims = [pid for pid in below(process.pid) if pattern in command(pid)]
    if victims:
        os.kill(rng.choice(victims), signal.SIGKILL)
    return bool(victims)


def end(process):
    """Kill the driver, and what it started."""
    pids = [process.pid, *below(process.pid)]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def below(pid):
    """The processes that one has started, and those have."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(text.rpartition(")")[2].split()[1])
    tree = [pid]
    for parent in tree:
        tree += [child for child, of in parents.items() if of == parent]
    return tree[1:]


def command(pid):
    """Its command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def rows(output):
    """The rows of a sweep's trials."""
    return [msgspec.json.decode(p.read_bytes(), type=Row) for p in (output / "trials").iterdir()]


def made(output):
    """Steps that were made for the rows there are."""
    return sum((Counter(row.made) for row in rows(output)), Counter())


if __name__ == "__main__":
    main()
