"""report.json: what was measured of an artifact. Sections are merged, not overwritten blindly."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from vitedge.core import files
from vitedge.core.bundle import REPORT, Bundle
from vitedge.core.errors import InputError
from vitedge.core.host import Host, fingerprint
from vitedge.core.json_document import numbers, read_json
from vitedge.core.measurements import (
    ColdStart,
    Conditions,
    Drift,
    EndToEnd,
    Energy,
    Latency,
    Measurement,
    Memory,
    Offline,
    Sweep,
)
from vitedge.core.runtime import runtime_of
from vitedge.core.spec import Positive, Precision

SCHEMA = "vitedge.report/1"

Metric = Literal["top1", "miou", "map", "pixel_error", "knn_agreement"]
LIKENESS: frozenset[Metric] = frozenset(("pixel_error", "knn_agreement"))
"""Those of how like FP32's outputs are, which are right by definition, not of how good."""


class Compared(Measurement, frozen=True, kw_only=True):
    """One metric of FP32 and artifact on the same images, 0-1; an error may be more."""

    fp32: float | None
    """None where the FP32 bundle was left behind."""
    artifact: float
    drop_pp: float | None
    """FP32 − artifact, of an error artifact − FP32, percentage points."""


LARGEST = 1e15
"""Of all numbers in a report: nothing that is measured comes near."""
Images = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class Accuracy(Compared, frozen=True, kw_only=True):
    """The task's metric on the same images, FP32 and artifact."""

    metric: Metric
    drop_ci_pp: tuple[float, float] | None
    confidence: float
    agreement: float | None
    """Share of images (of pixels, in segmentation) on which both choose the same class; of
    features, share of images with the same nearest neighbour; None of dense maps and detections.
    """
    also: dict[str, Compared]
    """Further metrics: `top5`, `pixel_accuracy`, `pixel_error_p99`, `map_50`, `map_75` and, of
    objects of a size that there are, `map_small`, `map_medium`, `map_large`."""
    n: Positive
    data: str
    skipped: dict[str, int]
    """Images left out, by reason."""
    lost: Images | None
    """Images that FP32 alone has right; None but for `top1`, and where FP32 was not run."""
    gained: Images | None
    """Images that the artifact alone has right; None likewise."""


class TokenSqnr(Measurement, frozen=True, kw_only=True):
    """SQNR of each token position, or pixel, over images and channels: large ones hide others in
    that of the whole output."""

    worst: float
    p5: float | None
    """The one that 5% are no better than; None where it equals FP32's."""


class OutputNumerics(Measurement, frozen=True, kw_only=True):
    """One output of the artifact against FP32's."""

    sqnr_db: float | None
    """Signal to quantization noise, 10·log10(Σ fp32² / Σ (fp32 − artifact)²); None if equal, and
    where an output is not finite."""
    max_abs_error: float | None
    """None, as below, where an output is not finite."""
    cosine: float | None
    """Mean over images, and over the tokens or pixels of each."""
    token_sqnr_db: TokenSqnr | None = None
    """None of an output (n, D) or of matched queries, where all equal FP32's, and where one is
    not finite."""

    @property
    def worst_token_db(self) -> float | None:
        """SQNR of the worst token or pixel, where there are several that differ from FP32's."""
        return self.token_sqnr_db.worst if self.token_sqnr_db else None

    @property
    def p5_token_db(self) -> float | None:
        """The one that 5% of them are no better than, likewise."""
        return self.token_sqnr_db.p5 if self.token_sqnr_db else None


class DetectionError(Measurement, frozen=True, kw_only=True):
    """Detections of the artifact against FP32's, query by query."""

    box_iou: float
    """Mean intersection over union of each query's box with FP32's, 0-1, a query counting by how
    sure FP32 is that it shows anything."""
    top_overlap: float
    """Share of FP32's best detections, query and class, that are among the artifact's, 0-1."""
    top: int
    """How many of an image those are."""


class Numerics(OutputNumerics, frozen=True, kw_only=True):
    """The main output of the artifact against FP32's."""

    n: Positive
    data: str
    """The images' name; `golden` for those of the bundle."""
    outputs: dict[str, OutputNumerics] = msgspec.field(default_factory=dict)
    """Every output by its name, the main one first; empty where there is but that."""
    kept_queries: float | None = None
    """Share of FP32's queries that the artifact gives, too, of a model that orders them by its
    own scores: there outputs are compared query by query, matched. None of any other."""
    detections: DetectionError | None = None
    """None of what is no detector."""
    degenerate: str = ""
    """Why these figures prove nothing: FP32's output hardly varies; empty where it does."""


class Parity(Measurement, frozen=True, kw_only=True):
    """Outputs on the golden images, on this machine, against FP32's in the bundle. No accuracy."""

    n: int
    numerics: Numerics | None
    """None if not finite."""
    agreement: float | None
    """Share of images (of pixels) on which both choose the same class; None of what has none."""
    at_export_db: float | None
    """SQNR where it was exported; None where that is not known, or outputs were equal."""
    broken: str
    """Why this is not what the artifact computes; empty where it is."""


class Simulation(Measurement, frozen=True, kw_only=True):
    """The graph run by ONNX Runtime, Q and DQ as written, where the target's runtime is absent."""

    runtime: str
    """And its version."""
    accuracy: Accuracy | None
    """None without images to evaluate on."""
    numerics: Numerics


class Size(Measurement, frozen=True, kw_only=True):
    """Size of the files the runtime loads."""

    bytes: int
    fp32_bytes: int | None


class Candidate(Measurement, frozen=True, kw_only=True):
    """One precision of a model on a target, timed in one run with FP32."""

    precision: Precision
    p50_ms: float
    speedup: float = 1.0
    """Over FP32."""
    speedup_ci: tuple[float, float] = (1.0, 1.0)
    speedup_over_float: float | None = None
    """Over `Recommendation.best_float`; None of floats themselves."""
    speedup_over_float_ci: tuple[float, float] | None = None
    drop_pp: float | None = None
    """Accuracy lost, percentage points; None where it was not measured."""
    drop_ci_pp: tuple[float, float] | None = None
    sqnr_db: float | None = None
    """None where outputs equal FP32's, or were not compared."""
    token_sqnr_db: float | None = None
    """Of the worst token or pixel; None likewise, and where the output has none."""
    kept_queries: float | None = None
    """As in `Numerics`."""
    box_iou: float | None = None
    """As in `DetectionError`; None of what is no detector."""
    pixel_error: float | None = None
    """Of dense maps, relative to the spread of FP32's values; None where it was not measured."""
    max_abs_error: float | None = None
    """None where outputs were not compared."""
    bytes: int


class Recommendation(Measurement, frozen=True, kw_only=True):
    """Which of the precisions timed together to ship, and why."""

    precision: Precision
    reason: str
    candidates: tuple[Candidate, ...]
    """FP32 first, then by SQNR."""
    confidence: float
    """Of the intervals."""
    max_drop_pp: float
    """The loss that was allowed."""
    best_float: Precision = "fp32"
    """What would be shipped without those that are calibrated."""


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """report.json: an artifact, and what was measured of it.

    A section is None, and not in the file, where that was not done.
    """

    schema: str
    artifact: str
    """The bundle's name."""
    model: str
    target: str
    precision: Precision
    files: dict[str, str]
    """SHA-256 of the model files that were measured."""
    device: str | None = None
    """The machine reached over ssh that measured it; None: this one."""
    accuracy: Accuracy | None = None
    numerics: Numerics | None = None
    parity: Parity | None = None
    simulation: Simulation | None = None
    latency: Latency | None = None
    offline: Offline | None = None
    sweep_threads: Sweep | None = None
    sweep_batch: Sweep | None = None
    end_to_end: EndToEnd | None = None
    cold_start: ColdStart | None = None
    drift: Drift | None = None
    energy: Energy | None = None
    memory: Memory | None = None
    size: Size | None = None
    conditions: Conditions | None = None
    """Those under which it was timed."""
    host: Host | None = None
    recommendation: Recommendation | None = None


TIMED = (
    *("latency", "offline", "sweep_threads", "sweep_batch", "end_to_end"),
    *("cold_start", "drift", "energy", "memory", "conditions", "recommendation"),
)
"""Sections that are of the machine which measured them, and no other."""
TIMED_IN_TURN = ("latency", "drift", "recommendation")
"""Of those, the ones that do not say on how many threads they were."""


def size(bundle: Bundle, fp32: Bundle | None) -> Size:
    """Of a bundle, and of its FP32 bundle where that is at hand."""
    return Size(bytes=bundle.size_bytes, fp32_bytes=None if fp32 is None else fp32.size_bytes)


def of_bundle(bundle: Bundle) -> Report | None:
    """What was measured here of the bundle's very bytes; None where nothing was.

    Raises InputError for a report that cannot be read.
    """
    report = read(bundle.path / REPORT)
    return report if report and report.files == bundle.model_files else None


def identity(bundle: Bundle) -> dict[str, Any]:
    """What a report of the bundle says before anything is measured, as arguments of `Report`."""
    return {
        "schema": SCHEMA,
        "artifact": bundle.manifest.name,
        "model": bundle.manifest.model.name,
        "target": bundle.manifest.target.name,
        "precision": bundle.manifest.precision,
        "files": bundle.model_files,
    }


def merge(bundle: Bundle, measured: Report) -> Report:
    """Put what was `measured` into the bundle's report.json and return the whole report.

    Sections that are not in `measured` stay, unless they are of another machine or were timed on
    other threads; a report of other model bytes is started afresh.
    Raises InputError for a report that cannot be read.
    """
    report = _merged(of_bundle(bundle), measured)
    write(report, bundle.path / REPORT)
    return report


def merge_from_device(bundle: Bundle, measured: Report, device: str, slug: str) -> Report:
    """Put a report that another machine has made into the bundle's `report-SLUG.json`.

    Sections of an earlier one stay as `merge` says; the report of this machine is not touched.
    Returns the whole report, which says its `device`.
    """
    path = bundle.path / f"{Path(REPORT).stem}-{slug}.json"
    before = read(path)
    if before and before.files != measured.files:
        before = None
    elif before and measured.latency:
        before = msgspec.structs.replace(before, recommendation=None)
    report = msgspec.structs.replace(_merged(before, measured), device=device)
    write(report, path)
    return report


def recommend(bundle: Bundle, recommendation: Recommendation | None) -> Report:
    """Put the recommendation into the bundle's report, in place of the one there."""
    before = of_bundle(bundle) or Report(**identity(bundle))
    report = msgspec.structs.replace(before, recommendation=recommendation)
    write(report, bundle.path / REPORT)
    return report


def _merged(before: Report | None, measured: Report) -> Report:
    """`measured`, with the sections of `before` that it does not replace and that still hold."""
    if before is None:
        return measured
    sections = {name: getattr(measured, name) for name in Report.__struct_fields__}
    new = {name: section for name, section in sections.items() if section is not None}
    stale: set[str] = {"drift"} if measured.latency else set()
    if measured.host:
        timed = measured.conditions is not None
        if not _same_machine(before.host, measured.host):
            stale.update(TIMED)
        elif not timed:  # the host is the one that the timing says
            del new["host"]
        elif before.host and before.host.threads != measured.host.threads:
            stale.update(TIMED_IN_TURN)
    return msgspec.structs.replace(before, **(dict.fromkeys(stale) | new))


def host_of(bundle: Bundle, machine: Host) -> Host:
    """`machine`, by what the bundle runs on there: its GPU, or what else does the CPU's work."""
    accelerator = runtime_of(bundle.manifest.target).accelerator(machine)
    return msgspec.structs.replace(machine, accelerator=accelerator or None)


def _same_machine(left: Host | None, right: Host) -> bool:
    """Whether two hosts are the same, with however many threads they computed."""
    if left is None:
        return False
    first, second = (fingerprint(msgspec.structs.replace(h, threads=0)) for h in (left, right))
    return first == second


def check_writable(bundle: Bundle) -> None:
    """Refuse a bundle whose report could not be written, before anything is measured."""
    if not os.access(bundle.path, os.W_OK):
        raise InputError(
            f"{bundle.path} is read-only, so its report cannot be written",
            fix="copy the artifact to a folder of your own",
        )
    read(bundle.path / REPORT)


def read(path: Path) -> Report | None:
    """The report at `path`; None where there is none. Raises InputError."""
    if not os.path.lexists(path):
        return None
    again = "delete it, then measure again"
    content = read_json(path, fix=again)
    try:
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise InputError(f"{path} is not of schema '{SCHEMA}'", fix=again)
        if any(abs(number) > LARGEST for number in numbers(content)):
            raise InputError(f"{path} holds a number above {LARGEST:g}", fix=again)
        return msgspec.convert(content, Report)
    except msgspec.MsgspecError as error:
        raise InputError(f"{path} cannot be read: {error}", fix=again) from error


def write(report: Report, path: Path) -> None:
    """Write a report in one rename. Raises InputError where the folder cannot be written to."""
    content = msgspec.json.format(msgspec.json.encode(report), indent=2)
    files.replace(path, content + b"\n", fix="make the artifact's folder writable")
