"""One trial: exported and validated, then timed; in this process, or in a worker's."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vitedge.core import catalog, report
from vitedge.core.bundle import Bundle, open_bundle
from vitedge.core.code_version import code_version
from vitedge.core.errors import VitedgeError
from vitedge.core.machine import describe_machine
from vitedge.core.pinned import pinned
from vitedge.core.progress import SILENT
from vitedge.core.spec import QUANTIZED
from vitedge.core.step_cache import StepCache, files_digest
from vitedge.export.job import export_model, load_model
from vitedge.export.request import ExportRequest, plan_export
from vitedge.export.sweep.row import Row, Rows, of_trial
from vitedge.export.sweep.spec import Sweep, Trial, trial_digest
from vitedge.measure.latency.single_stream import time_bundles
from vitedge.models.sources import ModelRequest
from vitedge.runtimes import runs_here


@dataclass(frozen=True)
class Place:
    """Where a sweep's files lie, on every host alike."""

    output: Path
    cache: Path

    def artifacts(self, trial: str) -> Path:
        """The folder of a trial's."""
        return self.output / "artifacts" / trial


def key_of(trial: Trial, duration_s: float) -> str:
    """What a row must say for it to hold. Raises InputError for files that cannot be read."""
    model = trial.model
    named = (model.model, model.weights, model.calib_data, model.eval_data)
    files = [files_digest(Path(name)) for name in named if name and Path(name).exists()]
    target = catalog.find_target(trial.target, describe_machine(threads=0))
    return trial_digest(trial, files, target, code_version(), duration_s)


def request_of(trial: Trial, place: Place, cache: StepCache | None) -> ExportRequest:
    """The export of a trial."""
    model, quantized = trial.model, trial.precision in QUANTIZED
    folder = place.artifacts(trial.name)
    return ExportRequest(
        model=ModelRequest(
            model.model, arch=model.arch, weights=Path(model.weights) if model.weights else None
        ),
        targets=(trial.target,),
        precision=trial.precision,
        only=quantized,
        calib_data="" if trial.precision == "fp32" else model.calib_data,
        recipe=trial.recipe,
        eval_data=model.eval_data,
        duration_s=0.0,
        output=folder,
        force=True,
        cache=cache,
    )


def build(trial: Trial, key: str, place: Place, sweep: Sweep) -> Row:
    """Export and validate a trial on as many cores as it has. Raises as an export does."""
    began_s = time.monotonic()
    warnings: list[str] = []
    cache = StepCache(place.cache, round(sweep.cache_gb * 2**30), warnings.append)
    with pinned(sweep.trial.cores):
        plan = plan_export(request_of(trial, place, cache))
        folder = place.artifacts(trial.name)
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier version of the code
        exports = export_model(plan, load_model(plan, SILENT), SILENT)
    result = exports[-1]
    to_time = sweep.duration_s and runs_here(result.bundle)
    row = of_trial(
        trial,
        key,
        state="built" if to_time else "done",
        seconds=time.monotonic() - began_s,
        made=dict(cache.made),
        notes=tuple(result.notes()),
        warnings=tuple(warnings),
        artifact=result.bundle.path.relative_to(place.output).as_posix(),
        report=result.report,
    )
    Rows(place.output).write(row)  # here: whoever asked may be gone
    return row


def timed(row: Row, place: Place, sweep: Sweep) -> Row:
    """A trial timed in turn with its FP32, on all cores of a host that does nothing else."""
    began_s = time.monotonic()
    bundle: Bundle = open_bundle(place.output / row.artifact)
    time_bundles([bundle], SILENT, duration_s=sweep.duration_s)
    spent_s = row.seconds + time.monotonic() - began_s
    measured = report.of_bundle(bundle)
    row = msgspec.structs.replace(row, state="done", report=measured, seconds=spent_s)
    Rows(place.output).write(row)
    return row


def failed(trial: Trial, key: str, error: BaseException, attempts: int) -> Row:
    """The row of a trial that came to nothing."""
    what, fix = f"{type(error).__name__}: {error}".splitlines()[0], ""
    if isinstance(error, VitedgeError):
        what, fix = error.what, error.fix
    return of_trial(trial, key, state="failed", error=what, fix=fix, attempts=attempts)
