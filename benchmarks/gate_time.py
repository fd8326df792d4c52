"""Wall time of `vitedge gate` on a finished report of 50,000 images, beside what it imports."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks import peers
from tests.unit.gate.conftest import per_image, write_report

LIMIT_S = 1.0
IMAGES = 50_000


def main() -> None:
    parser = peers.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    python = sys.executable
    with tempfile.TemporaryDirectory() as name:
        path = write_report(Path(name), kept=per_image(lost=900, gained=700, n=IMAGES))
        base = str(path.with_name("baseline.npz"))
        gate = [python, "-m", "vitedge", "gate", str(path), "--max-drop", "1", "--baseline", base]
        subprocess.run([*gate, "--accept"], stdout=subprocess.DEVNULL, check=True)
        commands = {
            "vitedge gate, with a baseline": gate,
            "python -c 'import typer, numpy'": [python, "-c", "import typer, numpy"],
        }
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for turn in range(rounds + 1):
            for name, command in commands.items():
                start, before = time.perf_counter(), cpu_s()
                subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
                if turn:  # the first fills the file cache
                    seconds[name].append((time.perf_counter() - start, cpu_s() - before))
    peers.table(
        ("", "median ms", "fastest ms", "CPU ms"),
        [
            (name, *(f"{1e3 * value:.0f}" for value in (median(wall), min(wall), median(cpu))))
            for name, (wall, cpu) in (
                (name, zip(*both, strict=True)) for name, both in seconds.items()
            )
        ],
    )
    cpu = median(cpu for _, cpu in seconds["vitedge gate, with a baseline"])
    peers.verdict(f"vitedge gate takes {cpu:.2f} s of CPU (< {LIMIT_S} s)", cpu < LIMIT_S)


def cpu_s() -> float:
    """CPU time of all processes that have ended: what a wall clock shows on an idle machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
