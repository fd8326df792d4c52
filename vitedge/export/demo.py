"""`vitedge demo`: the whole job on the embedded reference model and real images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitedge.core import host, report
from vitedge.core.errors import missing
from vitedge.core.progress import Steps
from vitedge.data.open import open_images
from vitedge.export.job import export
from vitedge.export.request import ExportRequest
from vitedge.measure import latency
from vitedge.measure.accuracy.comparison import validate
from vitedge.measure.latency.bench import BenchRequest, bench_bundles
from vitedge.models.sources import Request, resolve

TARGETS = ("onnxruntime", "openvino")
DURATION_S = 1.5


@dataclass(frozen=True)
class Demo:
    """What the demo measured."""

    torch_accuracy: report.Accuracy
    torch_latency: latency.Latency
    reports: list[dict[str, Any]]
    paths: list[Path]


def run(output: Path, steps: Steps) -> Demo:
    """Export `digits` in INT8 for both CPU runtimes, validate and time everything in one run."""
    try:
        from vitedge.models.eager import EagerSession
    except ImportError as error:
        raise missing(error.name or "torch", "export") from error
    untimed = 0.0  # it is timed below, in one run with PyTorch
    request = ExportRequest(
        Request(), TARGETS, "int8", duration_s=untimed, output=output, force=True
    )
    made = export(request, steps)
    model = resolve(Request())
    eager = EagerSession(model, host.usable_cores())
    identity = model.identity
    images = open_images("digits", "evaluation", identity.preprocess, identity.labels)
    accuracy, *_ = validate(eager, eager, images, identity.task, calibration=frozenset())
    reports, others = bench_bundles(
        [m.bundle for m in made], steps, BenchRequest(DURATION_S), {"torch": eager}
    )
    return Demo(accuracy, others["torch"], reports, [m.bundle.path for m in made])
