"""Artifacts and what was measured of them, kept in the cache and taken from it."""

from __future__ import annotations

import shutil

import msgspec

from vitedge.core import report
from vitedge.core.bundle import EVIDENCE, REPORT, Bundle, read_manifest
from vitedge.core.errors import InputError
from vitedge.core.spec import Precision, Target
from vitedge.core.step_cache import below
from vitedge.export.request import Job, precisions
from vitedge.export.result import ExportResult
from vitedge.export.stage import bundle_name, measured
from vitedge.runtimes import runs_here

MEASURED = (REPORT, EVIDENCE)
"""Files of a bundle that measuring makes."""


class _Notes(msgspec.Struct, frozen=True):
    """What is said of an artifact beside what its manifest and report say."""

    notes: tuple[str, ...]


def recalled(job: Job, target: Target) -> list[ExportResult]:
    """Every artifact of `target`, staged from the cache; none unless all are there and sound."""
    if job.cache is None or job.keys is None:
        return []
    wanted = precisions(target, job.plan.request)
    if not all(job.cache.has("bundle", job.keys.bundle(target, name)) for name in wanted):
        return []
    results: list[ExportResult] = []
    for precision in wanted:
        result = recall(job, target, precision, results[0].bundle if results else None)
        if result is None:
            discard(results)
            return []
        results.append(result)
    return results


def recall(
    job: Job, target: Target, precision: Precision, fp32: Bundle | None
) -> ExportResult | None:
    """An artifact staged from the cache, measured where that was not done on such a machine.

    None where it is not there, or was made from another `fp32`.
    """
    if job.cache is None or job.keys is None:
        return None
    folder = job.work / bundle_name(job.model, target, precision)
    notes = job.cache.get("bundle", job.keys.bundle(target, precision), folder, _Notes)
    if notes is None:
        return None
    try:
        bundle = Bundle(folder, read_manifest(folder), is_private=True)
    except InputError:  # of an older schema
        bundle = None
    reference = bundle and bundle.manifest.reference
    if bundle is None or (reference and (not fp32 or reference.files != fp32.model_files)):
        shutil.rmtree(folder)
        return None
    scratch = folder.with_name(f"{folder.name}.measured")
    key = job.keys.validation(target, precision)
    if job.cache.get("validation", key, scratch, dict) is not None:
        for name, path in below(scratch).items():
            path.rename(folder / name)
        scratch.rmdir()
        known = report.of_bundle(bundle)
        assert known is not None
        return ExportResult(bundle, known, notes.notes)
    if not runs_here(bundle):  # simulated by its graph, which is not at hand
        shutil.rmtree(folder)
        return None
    result = ExportResult(bundle, measured(job, bundle, fp32 or bundle, {}), notes.notes)
    _keep_measured(job, target, precision, result)
    return result


def keep(job: Job, target: Target, precision: Precision, result: ExportResult) -> ExportResult:
    """Put an artifact that was staged, and what was measured of it, into the cache."""
    if job.cache is not None and job.keys is not None:
        files = {n: p for n, p in below(result.bundle.path).items() if n not in MEASURED}
        key = job.keys.bundle(target, precision)
        job.cache.put("bundle", key, _Notes(result.further_notes), files)
        _keep_measured(job, target, precision, result)
    return result


def discard(results: list[ExportResult]) -> None:
    """Take staged artifacts back."""
    for result in results:
        shutil.rmtree(result.bundle.path)


def _keep_measured(job: Job, target: Target, precision: Precision, result: ExportResult) -> None:
    assert job.cache is not None and job.keys is not None
    files = {n: p for n, p in below(result.bundle.path).items() if n in MEASURED}
    job.cache.put("validation", job.keys.validation(target, precision), {}, files)
