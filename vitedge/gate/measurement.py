"""What a gate measures before it judges: accuracy of several artifacts at a time, latency alone."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from vitedge.core import report
from vitedge.core.bundle import Bundle
from vitedge.core.machine import usable_cores
from vitedge.core.progress import SILENT, Steps
from vitedge.measure.accuracy import bundle_validation, reference
from vitedge.measure.latency.bench import bench_bundles
from vitedge.measure.latency.request import BenchRequest


def measure(bundles: Sequence[tuple[Bundle, str]], duration_s: float, steps: Steps) -> None:
    """Validate artifacts, the cores shared out among them; then time them in turn, in one run.

    Each has the images to validate it on; empty: do not. Raises InputError before anything runs
    where one has no such images.
    """
    for bundle, data in bundles:
        report.check_writable(bundle)
        if data:
            bundle_validation.evaluation_images(bundle, data)
    _validate_all([(bundle, data) for bundle, data in bundles if data], steps)
    if duration_s and bundles:
        bench_bundles([bundle for bundle, _ in bundles], steps, BenchRequest(duration_s))


def faults(bundles: Sequence[Bundle]) -> dict[Path, str]:
    """Of artifacts, why FP32 is no baseline for them: those where it runs here, and is none."""
    faults = {bundle.path: reference.fault_here(bundle) for bundle in bundles}
    return {path: why for path, why in faults.items() if why}


def check_references(bundles: Sequence[Bundle]) -> None:
    """Raise LimitError where FP32 is no baseline for one of the artifacts."""
    for why in faults(bundles).values():
        reference.raise_for(why)


def _validate_all(validations: Sequence[tuple[Bundle, str]], steps: Steps) -> None:
    cores = usable_cores()
    at_once = min(len(validations), cores)
    if at_once < 2:
        for bundle, data in validations:
            _validate(bundle, data, 0, steps)
        return
    fresh = multiprocessing.get_context("spawn")  # runtimes' threads do not survive a fork
    with ProcessPoolExecutor(at_once, mp_context=fresh) as pool:
        jobs = [
            pool.submit(_validate, bundle, data, cores // at_once, SILENT)
            for bundle, data in validations
        ]
        try:
            for done, job in enumerate(as_completed(jobs), start=1):
                job.result()
                steps("validating artifacts", done, len(jobs))
        finally:
            pool.shutdown(cancel_futures=True)


def _validate(bundle: Bundle, data: str, threads: int, steps: Steps) -> None:
    images = bundle_validation.evaluation_images(bundle, data)
    bundle_validation.validate_bundle(bundle, images, steps, allow_overlap=False, threads=threads)
