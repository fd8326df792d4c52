"""`vitedge demo`: the whole job on an embedded model and the images it was trained for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vitedge.core import catalog, report
from vitedge.core.errors import InputError, missing, nearest
from vitedge.core.machine import describe_machine, usable_cores
from vitedge.core.measurements import Percentiles
from vitedge.core.progress import Steps
from vitedge.core.runtime import runtimes
from vitedge.data.open import open_images
from vitedge.export.job import export
from vitedge.export.request import ExportRequest
from vitedge.measure.accuracy.validation import validate
from vitedge.measure.latency.bench import bench_bundles
from vitedge.measure.latency.request import BenchRequest
from vitedge.models.sources import ModelRequest, resolve

DURATION_S = 1.5


@dataclass(frozen=True)
class Demo:
    """What the demo measured."""

    model: str
    torch_accuracy: report.Accuracy
    torch_latency: Percentiles
    reports: list[report.Report]
    paths: list[Path]


def run(name: str, output: Path, steps: Steps) -> Demo:
    """Export the model `name` in INT8 for the CPU runtimes, validate and time it in one run.

    Raises InputError for a model whose weights and images are not embedded.
    """
    try:
        from vitedge.models.eager import EagerSession
        from vitedge.models.zoo import OWN_DATA
    except ImportError as error:
        raise missing(error.name or "torch", "export") from error
    if name not in OWN_DATA:
        raise InputError(
            f"no images are embedded for `model={name!r}`", fix=nearest(name, OWN_DATA)
        )
    untimed = 0.0  # it is timed below, in one run with PyTorch
    source = ModelRequest(name)
    request = ExportRequest(
        source, _cpu_runtimes(), "int8", duration_s=untimed, output=output, force=True
    )
    results = export(request, steps)
    model = resolve(source)
    eager = EagerSession(model, usable_cores())
    identity = model.identity
    task = identity.task
    images = open_images(OWN_DATA[name], "evaluation", identity.preprocess, identity.labels, task)
    tally = validate(
        *(eager, eager, images, task),
        calibration=frozenset(),
        detection=identity.detection,
    )
    accuracy = tally.result(images.name, images.skipped).accuracy
    reports, others = bench_bundles(
        [result.bundle for result in results], steps, BenchRequest(DURATION_S), {"torch": eager}
    )
    paths = [result.bundle.path for result in results]
    return Demo(name, accuracy, others["torch"], reports, paths)


def _cpu_runtimes() -> tuple[str, ...]:
    """The runtimes that compute on the CPU and have a target which fits this one."""
    machine = describe_machine(threads=0)
    fitting = {t.runtime for t in catalog.targets().values() if catalog.runs_on(t, machine)}
    cpu = {name for name, runtime in runtimes().items() if runtime.processor == "cpu"}
    return tuple(sorted(fitting & cpu))
