"""Wall time of `vitedge --help` and `import vitedge`, against `import typer` and none, in turn."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import peers

LIMIT_S = 0.3
IMPORT_LIMIT_S = 0.05


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    python = sys.executable
    commands = {
        "vitedge --help": [str(Path(python).with_name("vitedge")), "--help"],
        "python -c 'import vitedge'": [python, "-c", "import vitedge"],
        "python -c 'import typer'": [python, "-c", "import typer"],
        "python -c pass": [python, "-c", "pass"],
    }
    seconds = peers.in_turn(
        {
            name: partial(subprocess.run, command, stdout=subprocess.DEVNULL, check=True)
            for name, command in commands.items()
        },
        rounds,
    )
    ours = seconds["vitedge --help"]
    peers.table(
        ("", "median ms", "fastest ms", "vitedge is × slower"),
        [
            (
                name,
                f"{1e3 * median(times):.0f}",
                f"{1e3 * min(times):.0f}",
                f"{median(a / b for a, b in zip(ours, times, strict=True)):.2f}",
            )
            for name, times in seconds.items()
        ],
    )
    peers.verdict(
        f"vitedge --help takes {median(ours):.2f} s (< {LIMIT_S} s)", median(ours) < LIMIT_S
    )
    pairs = zip(seconds["python -c 'import vitedge'"], seconds["python -c pass"], strict=True)
    import_s = median(importing - bare for importing, bare in pairs)
    peers.verdict(
        f"import vitedge takes {1e3 * import_s:.1f} ms (< {1e3 * IMPORT_LIMIT_S:.0f} ms), "
        "the interpreter's own start not counted",
        import_s < IMPORT_LIMIT_S,
    )


if __name__ == "__main__":
    main()
