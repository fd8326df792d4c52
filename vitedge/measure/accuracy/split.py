"""`vitedge validate` in parts: one shard, the merger of all, or processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from vitedge.core import report
from vitedge.core.api import AnyPath
from vitedge.core.bundle import Bundle
from vitedge.core.errors import InputError
from vitedge.core.process_error import process_error
from vitedge.core.progress import LINES, Steps
from vitedge.core.report import Report
from vitedge.core.runtime import runtime_of
from vitedge.data.open import Source
from vitedge.measure.accuracy.bundle_validation import evaluation_images
from vitedge.measure.accuracy.shards import FOLDER, merge_shards, write_shard
from vitedge.measure.accuracy.share import Share, parse_share
from vitedge.models.zoo import OWN_DATA

_PINNED = (
    "import os, runpy, sys; core = int(sys.argv.pop(1)); "
    "hasattr(os, 'sched_setaffinity') and os.sched_setaffinity(0, {core}); "
    "runpy.run_module('vitedge', run_name='__main__', alter_sys=True)"
)
"""Before a runtime is loaded: what it does with cores, it decides then."""


class Split(NamedTuple):
    """How a validation is cut; empty: not so."""

    shard: str
    output: AnyPath | None
    merge: tuple[AnyPath, ...]
    workers: int


def validate(
    bundle: Bundle, source: Source, split: Split, steps: Steps, *, allow_overlap: bool
) -> Report:
    """The bundle's merged report; of a shard, what the bundle's report says before.

    Raises InputError where the parts of `split` do not go together, and as shards do.
    """
    asked = [name for name in ("shard", "merge", "workers") if getattr(split, name)]
    if len(asked) != 1:
        said = " and ".join(f"`{name}`" for name in asked)
        raise InputError(
            f"{said} do not go together" if asked else "`output` is where a `shard` goes",
            fix="pass one of `shard`, `merge` and `workers`",
        )
    if split.output is not None and not split.shard:
        raise InputError("`output` is where a `shard` goes", fix="drop `output`")
    if split.merge:
        if source:
            raise InputError("`merge` takes the evidence, not the `data`", fix="drop `data`")
        return merge_shards(bundle, [Path(folder) for folder in split.merge])
    if split.workers:
        return _on_workers(bundle, source, split.workers, steps, allow_overlap)
    share = parse_share(split.shard)
    images = evaluation_images(bundle, source)
    folder = Path(split.output) if split.output is not None else FOLDER / bundle.path.name
    path = write_shard(bundle, images, share, folder, steps, allow_overlap=allow_overlap)
    steps.note(f"shard {share} is in {path}")
    return report.of_bundle(bundle) or Report(**report.identity(bundle))


def _on_workers(
    bundle: Bundle, source: Source, workers: int, steps: Steps, allow_overlap: bool
) -> Report:
    """Each with a core and a thread of its own; their shards are merged."""
    runtime = runtime_of(bundle.manifest.target)
    if runtime.processor != "cpu":
        raise InputError(
            f"`workers={workers}`: {runtime.title} computes on a {runtime.processor}",
            fix="drop `workers`: one process keeps it busy",
        )
    data = source or OWN_DATA.get(bundle.manifest.model.source, "")
    if not isinstance(data, str) or not data:
        raise InputError("`workers` read the images from files", fix="pass `data=FOLDER`")
    affinity = getattr(os, "sched_getaffinity", None)
    cores = sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))
    if workers > len(cores):
        raise InputError(
            f"`workers={workers}`, and this process may use {len(cores)} cores",
            fix=f"pass `workers={len(cores)}` or fewer",
        )
    report.check_writable(bundle)
    with tempfile.TemporaryDirectory(prefix="vitedge-") as folder:
        words = ["validate", str(bundle.path), "--data", data, "--output", folder]
        words += ["--allow-overlap"] if allow_overlap else []
        words += ["--allow-host-code"] if bundle.allows_host_code else []
        started: list[subprocess.Popen[str]] = []
        try:
            for index, core in enumerate(cores[:workers], start=1):
                share = ["--shard", str(Share(index, workers))]
                started.append(
                    subprocess.Popen(
                        [sys.executable, "-c", _PINNED, str(core), *words, *share],
                        env={**os.environ, LINES: "1", "OMP_NUM_THREADS": "1"},
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.PIPE,
                        text=True,
                        errors="replace",
                    )
                )
            with ThreadPoolExecutor(workers) as pool:
                follow = partial(_followed, steps)
                logs = list(pool.map(follow, range(1, workers + 1), started))
        finally:
            for process in started:
                process.kill()
                process.wait()
        for number, (process, log) in enumerate(zip(started, logs, strict=True), start=1):
            if process.returncode:
                raise process_error(f"worker {number}", process.returncode, log)
        return merge_shards(bundle, [Path(folder)], here=True)


def _followed(steps: Steps, number: int, process: subprocess.Popen[str]) -> list[str]:
    """What it says on stderr, once it has ended; its steps are shown."""
    assert process.stderr is not None
    log = []
    for line in map(str.rstrip, process.stderr):
        if line.startswith("["):
            steps.replay(line, f"worker {number}")
        else:
            log.append(line)
    process.wait()
    return log
