"""Hostile inputs by class: how many are refused or harmless, in what time and memory.

`python -m benchmarks.hostile [--count 2000] [--seed 1] [--only CLASS]` exits 1 where one does harm.
"""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import peers
from tests.support import hostile
from tests.support.hostile import bundles

LIMIT_S = 10
LIMIT_MIB = 1024
"""Beyond what the process had before."""
AT_A_TIME = 200
"""Cases of one process: its peak of memory only grows."""


@dataclass
class Row:
    """What came of one class."""

    cases: int = 0
    refused: int = 0
    harmless: int = 0
    harm: int = 0
    slowest_s: float = 0
    most_mib: float = 0


def main() -> None:
    parser = peers.arguments(__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="Part of a class's name.")
    asked = parser.parse_args()
    cases = [c for c in hostile.cases(asked.count, asked.seed) if asked.only in c.kind]
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = bundles.base(Path(folder) / "small")
        while cases:
            cases = _run(cases, base, rows)
    peers.table(
        ("class", "sealed", "cases", "refused", "harmless", "harm", "slowest s", "most MiB"),
        [
            (
                kind,
                "yes" if kind in bundles.SEALED else "",
                *map(str, (row.cases, row.refused, row.harmless, row.harm)),
                f"{row.slowest_s:.1f}",
                f"{row.most_mib:.0f}",
            )
            for kind, row in sorted(rows.items())
        ],
    )
    count, harm = sum(r.cases for r in rows.values()), sum(r.harm for r in rows.values())
    sealed = sum(row.cases for kind, row in rows.items() if kind in bundles.SEALED)
    peers.verdict(
        f"{harm} of {count} inputs in {len(rows)} classes do harm ({sealed} with valid hashes)",
        not harm,
    )


def _run(cases: list[hostile.Case], base: bundles.Base, rows: dict[str, Row]) -> list[hostile.Case]:
    """Try the first of `cases` in a fresh process; returns those that are left."""
    fresh = multiprocessing.get_context("spawn")
    ours, theirs = fresh.Pipe()
    process = fresh.Process(target=_work, args=(theirs, cases[:AT_A_TIME], base))
    process.start()
    theirs.close()
    done = 0
    for case in cases[:AT_A_TIME]:
        row = rows.setdefault(case.kind, Row())
        row.cases += 1
        done += 1
        said, seconds, mib = "no answer", float(4 * LIMIT_S), 0.0
        if ours.poll(4 * LIMIT_S if done > 1 else 60):
            try:
                said, seconds, mib = ours.recv()
            except EOFError:
                said = "the process died"
        row.slowest_s, row.most_mib = max(row.slowest_s, seconds), max(row.most_mib, mib)
        if said in ("refused", "harmless") and seconds <= LIMIT_S and mib <= LIMIT_MIB:
            setattr(row, said, getattr(row, said) + 1)
            continue
        row.harm += 1
        print(
            f"{case.kind} {case.number}: {said} ({seconds:.1f} s, {mib:.0f} MiB)", file=sys.stderr
        )
        if said in ("no answer", "the process died"):
            break
    process.kill()
    process.join()
    return cases[done:]


def _work(pipe: Connection, cases: list[hostile.Case], base: bundles.Base) -> None:
    import torch  # noqa: F401  (before memory is counted)

    for case in cases:
        folder = Path(tempfile.mkdtemp())
        before, start = _peak_mib(), time.perf_counter()
        try:
            said = case.attempt(base, folder)
        except BaseException as error:  # whatever a reader raises is harm
            said = traceback.format_exception_only(type(error), error)[-1].strip()[:200]
        pipe.send((said, time.perf_counter() - start, _peak_mib() - before))
        shutil.rmtree(folder, ignore_errors=True)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
