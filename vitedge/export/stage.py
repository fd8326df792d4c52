"""From one lowered graph to one complete bundle, measured where this machine can run it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from vitedge.core import manifest
from vitedge.core.bundle import LABELS, Bundle, Golden, amend, seal
from vitedge.core.progress import Steps
from vitedge.core.report import Report
from vitedge.core.runtime import TensorSpec
from vitedge.core.spec import MEANING, Precision, Preprocess, Target
from vitedge.data.imageset import UNLABELLED
from vitedge.export.request import Job, images_of, labelled
from vitedge.export.result import ExportResult
from vitedge.measure.accuracy import parity
from vitedge.measure.accuracy.bundle_validation import (
    measure_numerics,
    simulate_bundle,
    validate_bundle,
)
from vitedge.models.sources import ModelIdentity
from vitedge.quant.bfloat16 import Bf16
from vitedge.quant.half import Fp16
from vitedge.quant.int8 import Int8
from vitedge.runtimes import lower, runs_here, tool_versions

if TYPE_CHECKING:
    from vitedge.graph.run import Fp32Graph


GOLDEN_IMAGES = 8
GOLDEN_BYTES = 2**24
"""Of outputs: a segmentation model's are large."""


Lowered = Int8 | Fp16 | Bf16


@dataclass(frozen=True)
class Source:
    """What all bundles of a model with one batch size and opset are built from."""

    exported: Fp32Graph
    golden: Golden


def golden_images(job: Job, exported: Fp32Graph) -> Golden:
    """A few images, evaluation's if there are any, and FP32's outputs on ONNX Runtime.

    Raises InputError, naming the layer, where an output is NaN or infinite.
    """
    images = job.evaluation or (job.calibration and job.calibration.images)
    images = images or images_of(job.model, "random", "calibration")
    outputs = (exported.output, *exported.further)
    output_bytes = 4 * sum(math.prod(size or 1 for size in spec.shape[1:]) for spec in outputs)
    count = min(GOLDEN_IMAGES, max(1, GOLDEN_BYTES // output_bytes))
    batches = list(images.sample(count, seed=0))
    pixels = np.concatenate([batch.images for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches])
    if labels.dtype == object:  # boxes are no part of parity
        labels = np.full(len(pixels), UNLABELLED)
    main, *further = exported.outputs(pixels)
    names = [spec.name for spec in exported.further]
    return Golden(pixels, main, labels, dict(zip(names, further, strict=True)))


def bundle_name(model: ModelIdentity, target: Target, precision: Precision) -> str:
    """`<model>-<target>-<precision>`."""
    return f"{model.name}-{target.name}-{precision}"


def precision_of(lowered: Lowered | None) -> Precision:
    """What a graph computes in."""
    if lowered is None:
        return "fp32"
    if isinstance(lowered, Int8):
        return lowered.number_format
    return "fp16" if isinstance(lowered, Fp16) else "bf16"


def stage(
    job: Job,
    target: Target,
    source: Source,
    lowered: Lowered | None = None,
    fp32: Bundle | None = None,
    suffix: str = "",
) -> ExportResult:
    """Build and measure one bundle, in a folder of its name and `suffix`.

    `lowered` is what it is built from, FP32 where that is None, and `fp32` what it is compared
    with. Raises InputError when it does not compute what it was built from.
    """
    name = bundle_name(job.model, target, precision_of(lowered))
    job.steps.say(f"building {name}")
    folder = job.work / f"{name}{suffix}"
    built = _build(job.model, source, target, folder, lowered, fp32, job.steps)
    exported = source.exported.path
    graphs = {
        (fp32 or built).path.resolve(): exported,
        built.path.resolve(): lowered.simulated if lowered else exported,
    }
    return ExportResult(built, measured(job, built, fp32 or built, graphs))


def measured(job: Job, bundle: Bundle, fp32: Bundle, graphs: Mapping[Path, Path]) -> Report:
    """Validate a staged bundle, if only on golden images; returns its report, size included.

    Where it does not run, by the `graphs` of its and FP32's path.
    """
    images, steps = job.evaluation, job.steps
    how = {
        "allow_overlap": job.plan.request.allow_overlap,
        "labelled": labelled(job.plan, job.model),
    }
    if not runs_here(bundle):
        return simulate_bundle(bundle, graphs, images, steps, **how)
    if images is None:
        return measure_numerics(bundle, fp32)
    return validate_bundle(bundle, images, steps, **how)


def _build(
    model: ModelIdentity,
    source: Source,
    target: Target,
    folder: Path,
    lowered: Lowered | None,
    fp32: Bundle | None,
    steps: Steps,
) -> Bundle:
    """Build one complete bundle in `folder` and run it once on the golden images."""
    exported, golden, precision = source.exported, source.golden, precision_of(lowered)
    folder.mkdir()
    path = lowered.deployed if lowered else exported.path
    build = lower(path, target, folder, steps)
    golden.write(folder)
    labels = "".join(f"{label}\n" for label in model.labels)
    (folder / LABELS).write_text(labels, encoding="utf-8")
    note = _not_measurable(model, lowered)
    description = manifest.Manifest(
        schema=manifest.SCHEMA,
        name=bundle_name(model, target, precision),
        precision=precision,
        model=manifest.Model(
            name=model.name,
            source=model.source,
            task=model.task,
            num_classes=len(model.labels),
            weights_sha256=model.weights_sha256,
            detection=model.detection,
        ),
        inputs=(_tensor(exported.input, "NHWC, RGB"),),
        outputs=(
            _output(exported, exported.output, f"{_axes(exported.output)}, {MEANING[model.task]}"),
            *(_output(exported, spec, _axes(spec)) for spec in exported.further),
        ),
        preprocessing=manifest.Preprocessing(
            host=model.preprocess, graph=_graph_part(model.preprocess)
        ),
        target=target,
        quantization=lowered.record if isinstance(lowered, Int8) else None,
        half=lowered.half if isinstance(lowered, Int8 | Fp16) else None,
        bf16=lowered.bf16 if isinstance(lowered, Int8 | Bf16) else None,
        parity=manifest.ExportParity(
            max_abs_error=exported.max_abs_error, max_rel_error=exported.max_rel_error
        ),
        accuracy="not measurable" if note else "measurable",
        accuracy_note=note,
        reference=manifest.Reference(bundle=fp32.path.name, files=fp32.model_files)
        if fp32
        else None,
        tools=tool_versions(target, *_engines(lowered)),
        files={},
        sizes={},
        build=build,
    )
    sealed = seal(folder, description)
    return amend(sealed, golden=parity.at_export(sealed))


def _engines(lowered: Lowered | None) -> Iterator[str]:
    """The package that quantized it, where that is not ours."""
    if isinstance(lowered, Int8) and lowered.record.calibration.recipe.engine != "vitedge":
        yield lowered.record.calibration.recipe.engine


def _not_measurable(model: ModelIdentity, lowered: Lowered | None) -> str:
    """Why a number called accuracy would mean nothing; empty where it would."""
    if not model.trained:
        return "its weights are random"
    if isinstance(lowered, Int8) and lowered.record.calibration.source == "random":
        return "it was calibrated on random noise"
    return ""


def _graph_part(preprocess: Preprocess) -> tuple[str, ...]:
    """What the artifact does to pixels before the model, in order."""
    flip = ("RGB to BGR",) if preprocess.channels == "BGR" else ()
    return ("cast to float32", "NHWC to NCHW", *flip, "scale and normalise")


def _axes(output: TensorSpec) -> str:
    return {2: "NC", 3: "NLC", 4: "NCHW"}.get(len(output.shape), "N…")


def _output(exported: Fp32Graph, spec: TensorSpec, layout: str) -> manifest.Tensor:
    order = exported.orders.get(spec.name, "")
    return msgspec.structs.replace(_tensor(spec, layout), ordered_by=order)


def _tensor(spec: TensorSpec, layout: str) -> manifest.Tensor:
    shape: tuple[int | Literal["batch"], ...]
    shape = tuple("batch" if dim is None else dim for dim in spec.shape)
    return manifest.Tensor(name=spec.name, shape=shape, dtype=spec.dtype, layout=layout)
