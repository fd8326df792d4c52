"""What a page's numbers belong to: the machine, the artifact, and the commands to repeat them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vitedge.core.commands import command
from vitedge.core.report import Report
from vitedge.measure.inspection import notes
from vitedge.models.zoo import OWN_DATA
from vitedge.show.columns import CONDITIONS, HOST
from vitedge.show.table import facts
from vitedge.show.text import plain

if TYPE_CHECKING:
    from vitedge.core.manifest import Manifest


def machines(reports: Sequence[Report]) -> list[dict[str, str]]:
    """Each machine once, under which conditions it timed, and what."""
    artifacts: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for report in reports:
        if report.host:
            where = {"device": report.device} if report.device else {}
            where |= facts(HOST, report.host)
            where |= facts(CONDITIONS, report.conditions) if report.conditions else {}
            artifacts.setdefault(tuple(where.items()), []).append(report.artifact)
    return [{**dict(where), "artifacts": ", ".join(names)} for where, names in artifacts.items()]


def manifest(manifest: Manifest) -> Mapping[str, str]:
    """What an artifact is and where it came from."""
    host, record, model = manifest.preprocessing.host, manifest.quantization, manifest.model
    about = {
        "model": f"{model.name} ({model.source}), {model.task}",
        "weights": f"SHA-256 {model.weights_sha256}",
        "target": f"{manifest.target.name}: {manifest.target.description}",
        "precision": manifest.precision,
        "input": "; ".join(f"{t.name} {plain(t.shape)} {t.dtype}" for t in manifest.inputs),
        "preprocessing outside": f"{host.resize} resize, {host.interpolation}, EXIF orientation "
        + ("applied" if host.exif == "apply" else "ignored"),
        "preprocessing inside": ", ".join(manifest.preprocessing.graph),
        "parity": f"FP32 graph against its source: {manifest.parity.max_rel_error:.1e} relative",
    }
    if record:
        images, quantized = record.calibration, sum(layer.quantized for layer in record.layers)
        about["scheme"] = record.scheme
        about[f"in {manifest.precision.upper()}"] = f"{quantized} of {len(record.layers)} operators"
        about["calibration"] = f"{images.recipe.name}, {images.images} images of {images.source}"
        about["calibration images"] = f"SHA-256 {images.digest}"
    if floats := notes.floats(manifest):
        about["floats"] = floats
    about |= dict(zip(("decided", "decided also", "compiled"), notes.facts(manifest), strict=False))
    about["tools"] = ", ".join(f"{name} {version}" for name, version in manifest.tools.items())
    return about | {f"file {name}": f"SHA-256 {sha}" for name, sha in manifest.files.items()}


def commands(manifest: Manifest, path: str, data: str) -> list[str]:
    """What makes and proves this artifact again, as far as its manifest knows.

    `data` is the images it was evaluated on; empty where it was not.
    """
    record, source = manifest.quantization, manifest.model.source
    training = record.training if record else None
    options: dict[str, object] = {"target": manifest.target.name}
    embedded = source in OWN_DATA and source == manifest.model.name
    if ":" not in source and not source.endswith(".onnx") and not embedded:
        options = {"weights": "FILE"} | options
    options |= {"train_data": training.source} if training else {manifest.precision: True}
    if record:
        images = record.calibration
        options |= {"calib_data": images.source, "calibration": images.recipe.name}
        options["num_samples"] = images.images
    export = command("qat" if training else "export", source, **options)
    validate = command("validate", path, **({"data": data} if data else {}))
    return [export, validate, command("bench", path)]


def typed() -> str:
    """The command line of this process."""
    return shlex.join(["vitedge", *sys.argv[1:]])
