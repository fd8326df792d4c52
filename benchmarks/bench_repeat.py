"""Two comparisons of the same pair in a row: how often do their speed-up intervals overlap?

Each is what `vitedge bench` does: load both, warm up, time in turn.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import mean, median

from scipy.stats import binomtest

from benchmarks import peers
from vitedge.core.bundle import open_bundle
from vitedge.core.progress import SILENT
from vitedge.measure.latency.single_stream import time_in_turn

OVERLAP = 0.95


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--duration", type=float, default=0.3, help="seconds for each artifact")
    parser.add_argument("--artifacts", type=Path, nargs=2, help="default: digits, INT8 and FP32")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.artifacts:
            bundles = [open_bundle(path) for path in options.artifacts]
        else:
            bundles = [*peers.export_bundles("digits", "onnxruntime", Path(folder), "digits")][::-1]
        rows = []
        for pair in range(options.pairs):
            first, second = (
                time_in_turn(bundles, SILENT, duration_s=options.duration).speedup(0, 1)
                for _ in range(2)
            )
            rows.append((first, second))
            if not _overlap(first[1], second[1]):
                limits = (f"{low:.3f} to {high:.3f}" for _, (low, high) in rows[-1])
                print("\rapart:", ", then ".join(limits))
            seen = sum(_overlap(a[1], b[1]) for a, b in rows)
            print(f"\r{pair + 1} pairs, {seen} overlap", end="", flush=True)
    print()
    _report(rows, options.duration)


def _overlap(one, two):
    return one[0] <= two[1] and two[0] <= one[1]


def _report(rows, duration_s):
    overlaps = sum(_overlap(first[1], second[1]) for first, second in rows)
    speedups = [speedup for row in rows for speedup in row]
    middle = median(ratio for ratio, _ in speedups)
    figures = {
        "pairs": str(len(rows)),
        "s each": f"{duration_s:g}",
        "overlap": str(overlaps),
        "median speed-up": f"{middle:.3f}",
        "interval holds it": f"{mean(low <= middle <= high for _, (low, high) in speedups):.1%}",
        "high / low, median": f"{median(high / low for _, (low, high) in speedups):.2f}",
    }
    peers.table([*figures], [[*figures.values()]])
    low = binomtest(overlaps, len(rows), alternative="greater").proportion_ci(0.95, "wilson").low
    peers.verdict(
        f"{overlaps} of {len(rows)} pairs overlap (≥ {OVERLAP:.0%}; at least {low:.0%} with 95% "
        "confidence)",
        overlaps >= OVERLAP * len(rows),
    )


if __name__ == "__main__":
    main()
