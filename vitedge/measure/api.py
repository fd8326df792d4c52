"""The API's part on artifacts: open, predict, validate, time and inspect them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from msgspec import Meta

from vitedge.core.api import (
    ARTIFACTS,
    AnyBundle,
    AnyBundles,
    AnyPath,
    Names,
    folder,
    several,
    verified,
)
from vitedge.core.errors import InputError
from vitedge.core.progress import Steps, steps
from vitedge.core.spec import Level, Positive
from vitedge.models.api import AnyModel, Classes

if TYPE_CHECKING:
    from vitedge.core.report import Report
    from vitedge.core.spec import Preprocess, Task
    from vitedge.data.open import Data
    from vitedge.measure.data_check import DataCheck
    from vitedge.measure.inspection import Inspection
    from vitedge.measure.latency.request import BenchRequest
    from vitedge.measure.open_bundle import OneImage, OpenBundle, Prediction

AnyImages: TypeAlias = "OneImage | Sequence[OneImage]"
Rival: TypeAlias = AnyBundle
Inspected: TypeAlias = "AnyBundle | AnyModel"
Known: TypeAlias = "AnyBundle | AnyModel"
Threads: TypeAlias = Annotated[int, Meta(ge=0, le=1024)]


def open(
    path: AnyBundle,
    *,
    trust: AnyPath | None = None,
    accepted: AnyPath | None = None,
    allow_host_code: bool = False,
) -> OpenBundle:
    """Open the artifact at `path` after checking its schema and the hash of every file.

    With `trust`, whatever opens it or what lies beside it asks for a signature first.

    Args:
        path: An artifact's folder.
        trust: Refuse what none of these keys has signed: a public key in PEM, or a folder of them.
        accepted: A file of what was accepted before: refuse what is older.
        allow_host_code: Run an engine that brings code of its own (version_compatible).

    Raises:
        InputError: it is not there, not what its manifest says, or not to be trusted.
        UnavailableError: `trust` is given, and the package `cryptography` is missing.
    """
    from vitedge.core.trust import trust_of
    from vitedge.measure.open_bundle import OpenBundle

    bundle = verified(path, trust_of(trust, accepted), allow_host_code=allow_host_code)
    if isinstance(bundle, OpenBundle):
        return bundle
    opened = OpenBundle(bundle.path, bundle.manifest)
    vars(opened).update(vars(bundle))  # what was checked is what runs
    return opened


def predict(
    artifact: AnyBundle,
    images: AnyImages,
    *,
    top: Positive = 5,
    min_score: Level = 0.5,
) -> list[Prediction]:
    """Say what an artifact makes of images: classes, a mask, objects, maps or features.

    Args:
        artifact: An artifact's folder.
        images: PNG, JPEG or WebP files.
        top: How many classes of each image, of a classifier.
        min_score: Least score of an object, 0-1, of a detector.
    """
    with open(artifact) as bundle:
        return bundle.predict(several(images), top=top, min_score=min_score)


def check_data(
    path: Data,
    *,
    model: Known = "",
    weights: AnyPath | None = None,
    arch: str = "",
    task: Task | None = None,
    preprocess: AnyPath | Preprocess | None = None,
    classes: Classes | None = None,
    against: Data = "",
    listing: AnyPath | None = None,
    progress: Steps | None = None,
) -> DataCheck:
    """Look at every image of a data set as calibration and evaluation read it.

    Classes against a model's labels, sizes, pixel formats, EXIF orientation, duplicates, and what
    cannot be read. A set with labels or masks must be fit to evaluate on, any other to calibrate.

    Args:
        path: An image folder, an .npz, .tar or .parquet, a list of images, 'digits' or 'shapes'.
        model: Whose labels and input size: a model as `vitedge export` takes it, or an artifact.
        weights: Weights of a named model.
        arch: Architecture of a weights file.
        task: classification, segmentation, detection, dense or features; default: the model's.
        preprocess: Preprocessing: a .toml or .json, or a preprocessor_config.json.
        classes: A text file with one class a line, of a model of images and texts.
        against: Another set, which must share no image with this one.
        listing: Write a list of an image folder's images to this file, FILE.images, with a digest
            of each: it stands for the folder, and is read in its place, by shards for example.
        progress: Where to show it; None: bars on stderr where that is a terminal.

    Returns:
        What was found; its `errors` are what keeps the set from being used as it is.

    Raises:
        InputError: no images there, or an unknown model.
        UnavailableError: a package is needed and missing.
    """
    from vitedge.data.open import source_of
    from vitedge.measure.data_check.check import check
    from vitedge.measure.data_check.reader import reader_of

    source = source_of(path)
    others = source_of(against)
    asked = {
        **{"weights": weights, "arch": arch, "task": task, "preprocess": preprocess},
        "classes": classes,
    }
    if listing is not None:
        from vitedge.data.image_list import write_list

        write_list(str(source), Path(listing))
    with steps(progress) as shown:
        return check(source, reader_of(model, source, asked), others or None, shown)


def validate(
    artifact: AnyBundle,
    data: Data = "",
    *,
    allow_overlap: bool = False,
    shard: str = "",
    output: AnyPath | None = None,
    merge: Names = (),
    workers: Threads = 0,
    progress: Steps | None = None,
) -> Report:
    """Measure an artifact's accuracy and numerics against FP32; without images, its parity.

    A set too large for one process is cut into shards, whose evidence is merged to the same report.

    Args:
        artifact: An artifact's folder.
        data: Images to measure on: folder, .npz, .tar or .parquet, a list of images, 'digits' or
            'shapes'.
        allow_overlap: Accept calibration images.
        shard: Measure this share of the images, such as 3/16, and write its evidence.
        output: Folder for that evidence; default: shards/ARTIFACT.
        merge: Folder with the evidence of every shard, in place of data; repeatable.
        workers: Cut the images among so many processes, each with a core and a thread of its own;
            0: one process with every core.
        progress: Where to show it; None: bars on stderr where that is a terminal.

    Returns:
        The artifact's whole report, as report.json has it; of a shard, what is known before.

    Raises:
        InputError: no sound artifact, images that do not fit, or shards that do not.
        LimitError: FP32 does not give its own golden outputs: it is no baseline.
        UnavailableError: this machine lacks what the artifact was built for.
    """
    from vitedge.data.open import source_of
    from vitedge.measure.accuracy import parity, reference
    from vitedge.measure.accuracy.bundle_validation import (
        evaluation_images,
        has_own_images,
        validate_bundle,
    )

    bundle, source = verified(artifact), source_of(data)
    if shard or merge or workers or output:
        from vitedge.measure.accuracy import split

        with steps(progress) as shown:
            return split.validate(
                bundle,
                source,
                split.Split(shard, output, tuple(several(merge)), workers),
                shown,
                allow_overlap=allow_overlap,
            )
    if not source and not has_own_images(bundle):
        if bundle.manifest.reference:  # of FP32 itself, parity says it
            reference.raise_for(reference.fault_here(bundle))
        return parity.check(bundle)
    with steps(progress) as shown:
        images = evaluation_images(bundle, source)
        return validate_bundle(bundle, images, shown, allow_overlap=allow_overlap)


def bench(
    artifacts: AnyBundles = (),
    *,
    against: Rival = "fp32",
    scenarios: Names = ("single-stream",),
    sweeps: Names = (),
    duration_s: float = 3.0,
    batch: Positive | None = None,
    threads: Threads = 0,
    streams: Threads = 0,
    end_to_end: AnyPath | None = None,
    progress: Steps | None = None,
) -> list[Report]:
    """Time artifacts in turn with FP32, so that a speed-up is a ratio of one run.

    Args:
        artifacts: Artifacts to time; default: all in artifacts/.
        against: 'fp32', or another artifact.
        scenarios: single-stream (default) or offline; repeatable.
        sweeps: Latency over 'threads' or 'batch'; repeatable.
        duration_s: Seconds for each artifact and scenario; 10 or more show drift.
        batch: Images a run.
        threads: Inference threads; 0: all.
        streams: offline: runs at a time; 0: several, compared.
        end_to_end: An image, or a folder of them: time decoding, resizing and run of it, too.
        progress: Where to show it; None: bars on stderr where that is a terminal.

    Returns:
        The whole report of each artifact, as its report.json has it. One whose `parity` is
        broken does not compute on this machine what it was built for.

    Raises:
        InputError: no sound artifact, or parameters that do not go together.
        LimitError: an artifact's FP32 bundle does not give its own golden outputs.
        UnavailableError: this machine lacks what an artifact was built for.
    """
    parameters = {k: v for k, v in locals().items() if k not in ("artifacts", "progress")}
    from vitedge.measure.latency.bench import bench_bundles

    bundles = [verified(artifact) for artifact in to_bench(artifacts)]
    with steps(progress) as shown:
        reports, _ = bench_bundles(bundles, shown, bench_request(**parameters))
    return reports


def to_bench(artifacts: AnyBundles) -> list[AnyBundle]:
    """`artifacts`, or all there are. Raises InputError where there are none."""
    from vitedge.core.bundle import bundles_in

    paths: list[AnyBundle] = several(artifacts) or [*bundles_in(ARTIFACTS)]
    if not paths:
        raise InputError(f"no artifacts in {ARTIFACTS}/", fix="make one with 'vitedge export'")
    return paths


def bench_request(
    *, against: Rival, scenarios: Names, sweeps: Names, end_to_end: AnyPath | None, **further: Any
) -> BenchRequest:
    """The parameters of `bench` but for the artifacts. Raises InputError for what is no image."""
    from vitedge.measure.latency.photographs import photographs
    from vitedge.measure.latency.request import BenchRequest

    return BenchRequest(
        against=against if isinstance(against, str) else str(folder(against)),
        scenarios=tuple(dict.fromkeys(several(scenarios))),
        sweeps=tuple(dict.fromkeys(several(sweeps))),
        photographs=photographs(Path(end_to_end)) if end_to_end is not None else None,
        **further,
    )


def inspect(
    source: Inspected = "",
    *,
    target: str = "",
    weights: AnyPath | None = None,
    arch: str = "",
    task: Task | None = None,
    preprocess: AnyPath | Preprocess | None = None,
    height: Positive | None = None,
    width: Positive | None = None,
    classes: Classes | None = None,
    prompt: str = "",
    model_output: Names = (),
) -> Inspection:
    """Show what is quantized and why, what each layer loses, and what the target minds.

    Of a model, before any export: what it is, what each target would run in INT8, and what is
    missing. Its weights are neither fetched nor read.

    Args:
        source: An artifact's folder, FILE.onnx, or a model as `vitedge export` takes it; empty:
            the embedded reference.
        target: Check against this target; default: the artifact's own, and every one of a model.
        weights: Weights of a named model.
        arch: Architecture of a weights file.
        task: classification, segmentation, detection, dense or features; default: the source's.
        preprocess: Preprocessing: a .toml or .json, or a preprocessor_config.json.
        height: Pixels, where an ONNX file leaves them open.
        width: Likewise.
        classes: A text file with one class a line: a model of images and texts (CLIP, SigLIP)
            becomes a classifier of them. Without, its image encoder is taken.
        prompt: The text of one class, {} in its place; default: 'a photo of a {}'.
        model_output: Outputs to keep, the main one first; repeatable. Default: all in float32.

    Raises:
        InputError: neither an artifact nor a model, or an unknown target.
        UnavailableError: a package is needed and missing.
    """
    from vitedge.core.bundle import Bundle
    from vitedge.measure.inspection import inspect as inspection
    from vitedge.models.api import request

    given: Any = source
    if isinstance(source, (os.PathLike, Bundle)):
        given = str(folder(source))
    asked = request(
        given,
        weights=weights,
        preprocess=preprocess,
        task=task,
        arch=arch,
        height=height,
        width=width,
        classes=classes,
        prompt=prompt,
        model_output=model_output,
    )
    return inspection.inspect(asked, target)
