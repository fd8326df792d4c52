"""What a gate measures before it judges: accuracy of several artifacts at a time, latency alone."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from vitedge.core import report
from vitedge.core.bundle import open_bundle
from vitedge.core.errors import InputError
from vitedge.core.machine import usable_cores
from vitedge.core.progress import SILENT, Steps
from vitedge.measure.accuracy import bundle_validation
from vitedge.measure.latency import bench

ArtifactData = tuple[Path, str]
"""An artifact, and the images to validate it on; empty: do not."""


def measure(artifacts: Sequence[ArtifactData], duration_s: float, steps: Steps) -> None:
    """Validate artifacts, the cores shared out among them; then time them in turn, in one run.

    Raises InputError before anything runs where one is no artifact or has no such images.
    """
    for path, data in artifacts:
        if not path.is_dir():
            raise InputError(f"{path} is no artifact to measure", fix="give the bundle")
        bundle = open_bundle(path)
        report.check_writable(bundle)
        if data:
            bundle_validation.evaluation_images(bundle, data)
    _validate_all([(path, data) for path, data in artifacts if data], steps)
    if duration_s:
        bundles = [open_bundle(path) for path, _ in artifacts]
        bench.bench_bundles(bundles, steps, bench.BenchRequest(duration_s=duration_s))


def _validate_all(artifacts: Sequence[ArtifactData], steps: Steps) -> None:
    cores = usable_cores()
    at_once = min(len(artifacts), cores)
    if at_once < 2:
        for path, data in artifacts:
            _validate(path, data, 0, steps)
        return
    fresh = multiprocessing.get_context("spawn")  # runtimes' threads do not survive a fork
    with ProcessPoolExecutor(at_once, mp_context=fresh) as pool:
        jobs = [
            pool.submit(_validate, path, data, cores // at_once, SILENT) for path, data in artifacts
        ]
        try:
            for done, job in enumerate(as_completed(jobs), start=1):
                job.result()
                steps("validating artifacts", done, len(jobs))
        finally:
            pool.shutdown(cancel_futures=True)


def _validate(path: Path, data: str, threads: int, steps: Steps) -> None:
    bundle = open_bundle(path)
    images = bundle_validation.evaluation_images(bundle, data)
    bundle_validation.validate_bundle(bundle, images, steps, allow_overlap=False, threads=threads)
