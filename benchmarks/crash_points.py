"""Every place where a job changes its output, and the job dies there or the disk is full or broken.

python -m benchmarks.crash_points [JOB…]     (export, qat, validate, accept; half an hour)

Nothing may be lost: each artifact, report and baseline is the old or the new one, whole; an INT8
beside another FP32 is refused; and the next run leaves what it should, and nothing else.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from benchmarks import peers
from tests.support import crash, crash_jobs
from tests.support.warm import Warm


def main():
    names = sys.argv[1:] or list(crash_jobs.JOBS)
    rows, wrong = [], []
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as folder:
        for name in names:
            counts = Counter()
            for site, how, outcome in points(name, Path(folder) / name, workers=os.cpu_count()):
                counts[how] += 1
                lines = [f"{name}, {how}, {site}: {what}" for what in outcome]
                print(*lines, sep="\n", end="\n" if lines else "", flush=True)
                wrong += lines
            rows.append((name, *(counts[how] for how in crash.HOW)))
    peers.table(("", *crash.HOW), rows)
    peers.verdict(f"{len(wrong)} of them lose or mix something (0)", not wrong)


def points(name, folder, sample=None, seed=0, workers=1):
    """Every site of a job and way to end there, or a `sample` of them, and what was wrong."""
    folder.mkdir()
    warm = [Warm(crash_jobs.prepare) for _ in range(workers)]
    idle = SimpleQueue()
    try:
        _done(warm[0].run(_template, str(folder / "old")))
        old = _done(warm[0].run(_models, str(folder / "old")))["models"]
        traced = crash_jobs.copy(folder / "old", folder / "new")
        new = _done(warm[0].run(crash_jobs.trace, traced, name))
        pairs = [(site, how) for site in new["sites"] for how in crash.HOW]
        if sample:
            pairs = random.Random(seed).sample(pairs, sample)

        def break_off(place, site, how):
            broken = crash_jobs.copy(folder / "old", folder / str(place))
            process = idle.get()
            try:
                ended = process.run(crash_jobs.strike, broken, name, site, how)
                examined = process.run(crash_jobs.examine, broken, name, old, new["models"])
            finally:
                idle.put(process)  # else the next point would wait for it, and say nothing
            shutil.rmtree(broken)
            return crash.Site(*site), how, _wrong(how, ended, examined)

        for process in warm:
            idle.put(process)
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(break_off, range(len(pairs)), *zip(*pairs, strict=True))
    finally:
        for process in warm:
            process.close()


def _wrong(how, ended, examined):
    """What is not as it should be, of how a job ended and what it left."""
    if how == "kill":
        outcome = [] if "died: 9" in ended.get("crashed", "") else [f"it was not killed: {ended}"]
    else:
        words = ended.get("ended", "crashed")
        outcome = [] if words.startswith(("refused", "done")) else [f"{ended}"]
    return outcome + (examined.get("wrong") or ([str(examined)] if "wrong" not in examined else []))


def _done(row):
    if "crashed" in row:
        raise RuntimeError(row["crashed"])
    return row


def _template(folder):
    Path(folder).mkdir()
    crash_jobs.template(Path(folder))
    return {}


def _models(folder):
    return {"models": crash_jobs.models(Path(folder))}


if __name__ == "__main__":
    main()
