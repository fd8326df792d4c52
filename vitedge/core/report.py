"""report.json: what was measured of an artifact. Sections are merged, never overwritten blindly."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from vitedge.core import files
from vitedge.core.bundle import REPORT, Bundle
from vitedge.core.errors import InputError
from vitedge.core.host import Host, fingerprint
from vitedge.core.measurements import BenchSection
from vitedge.core.runtime import runtime_of
from vitedge.core.spec import Count, Positive, Precision

SCHEMA = "vitedge.report/1"

Metric = Literal["top1", "miou", "knn_agreement"]


class _Section(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the report's sections."""


class Compared(_Section, frozen=True, kw_only=True):
    """One metric of FP32 and artifact on the same images, 0-1."""

    fp32: float | None
    """None where the FP32 bundle was left behind."""
    artifact: float
    drop_pp: float | None
    """FP32 − artifact, percentage points."""


class Accuracy(Compared, frozen=True, kw_only=True):
    """The task's metric on the same images, FP32 and artifact."""

    metric: Metric
    drop_ci_pp: tuple[float, float] | None
    confidence: float
    agreement: float | None
    """Share of images (of pixels, in segmentation) on which both choose the same class; of
    features, share of images with the same nearest neighbour."""
    also: dict[str, Compared]
    """Further metrics: `top5`, `pixel_accuracy`."""
    n: Positive
    data: str
    skipped: dict[str, int]
    """Images left out, by reason."""
    lost: Count | None
    """Images that FP32 alone has right; None but for `top1`, and where FP32 was not run."""
    gained: Count | None
    """Images that the artifact alone has right; None likewise."""


class Numerics(_Section, frozen=True, kw_only=True):
    """Outputs of the artifact against FP32's."""

    sqnr_db: float | None
    """Signal to quantization noise, 10·log10(Σ fp32² / Σ (fp32 − artifact)²); None if equal, and
    where an output is not finite."""
    max_abs_error: float | None
    """None, as below, where an output is not finite."""
    cosine: float | None
    """Mean over images."""
    n: Positive
    data: str
    """The images' name; `golden` for those of the bundle."""


class Parity(_Section, frozen=True, kw_only=True):
    """Outputs on the golden images, on this machine, against FP32's in the bundle. No accuracy."""

    n: int
    numerics: Numerics | None
    """None if not finite."""
    agreement: float | None
    """Share of images (of pixels) on which both choose the same class; None for features."""
    at_export_db: float | None
    """SQNR where it was exported; None where that is not known, or outputs were equal."""
    broken: str
    """Why this is not what the artifact computes; empty where it is."""


class Simulation(_Section, frozen=True, kw_only=True):
    """The graph run by ONNX Runtime, Q and DQ as written, where the target's runtime is absent."""

    runtime: str
    """And its version."""
    accuracy: Accuracy | None
    """None without images to evaluate on."""
    numerics: Numerics


class Size(_Section, frozen=True, kw_only=True):
    """Size of the files the runtime loads."""

    bytes: int
    fp32_bytes: int | None


class Candidate(_Section, frozen=True, kw_only=True):
    """One precision of a model on a target, timed in one run with FP32."""

    precision: Precision
    p50_ms: float
    speedup: float = 1.0
    """Over FP32."""
    speedup_ci: tuple[float, float] = (1.0, 1.0)
    drop_pp: float | None = None
    """Accuracy lost, percentage points; None where it was not measured."""
    drop_ci_pp: tuple[float, float] | None = None
    sqnr_db: float | None = None
    """None where outputs equal FP32's, or were not compared."""
    max_abs_error: float | None = None
    """None where outputs were not compared."""
    bytes: int


class Recommendation(_Section, frozen=True, kw_only=True):
    """Which of the precisions timed together to ship, and why."""

    precision: Precision
    reason: str
    candidates: tuple[Candidate, ...]
    """Most exact first."""
    confidence: float
    """Of the intervals."""
    max_drop_pp: float
    """The loss that was allowed."""


Section = Accuracy | Numerics | Parity | Simulation | Size | Recommendation | Host | BenchSection
"""By the name it has in the report: `accuracy`, `numerics`, `parity`, `simulation`, `size`,
`recommendation`, `host`; and of `vitedge.core.measurements`: `latency`, `offline`, `sweep_threads`,
`sweep_batch`, `cold_start`, `drift`, `energy`, `memory`, `conditions`."""


TIMED = (
    *("latency", "offline", "sweep_threads", "sweep_batch"),
    *("cold_start", "drift", "energy", "memory", "conditions", "recommendation"),
)
"""Sections that are of the machine which measured them, and no other."""


def size(bundle: Bundle, fp32: Bundle | None) -> Size:
    """Of a bundle, and of its FP32 bundle where that is at hand."""
    return Size(bytes=bundle.size_bytes, fp32_bytes=None if fp32 is None else fp32.size_bytes)


def merge(bundle: Bundle, **sections: Section | None) -> dict[str, Any]:
    """Put `sections` into the bundle's report.json and return the whole report.

    Sections not given stay as they are, and one that is None is removed; a report of other model
    bytes is started afresh.
    Raises InputError for a report that cannot be read.
    """
    report = read(bundle.path / REPORT)
    if report.get("files") != bundle.model_files:
        report = {}
    report = {**report, **identity(bundle)}
    for name, value in sections.items():
        if value is None:
            report.pop(name, None)
        else:
            report[name] = msgspec.to_builtins(value)
    _write(report, bundle.path / REPORT)
    return report


def identity(bundle: Bundle) -> dict[str, Any]:
    """What a report begins with."""
    return {
        "schema": SCHEMA,
        "artifact": bundle.manifest.name,
        "model": bundle.manifest.model.name,
        "target": bundle.manifest.target.name,
        "precision": bundle.manifest.precision,
        "files": bundle.model_files,
    }


def merge_from_device(
    bundle: Bundle, measured: dict[str, Any], device: str, slug: str
) -> dict[str, Any]:
    """Put a report that another machine has made into the bundle's `report-SLUG.json`.

    Sections of an earlier one stay, if it was of the same model bytes; the report of this machine
    is not touched. Returns the whole report, which says its `device`.
    """
    path = bundle.path / f"{Path(REPORT).stem}-{slug}.json"
    before = read(path)
    if before.get("files") != measured.get("files"):
        before = {}
    stale = set() if _same_machine(before.get("host"), measured.get("host")) else set(TIMED)
    if "latency" in measured:
        stale |= {"drift", "recommendation"}
    valid = {name: section for name, section in before.items() if name not in stale}
    report = {**valid, **measured, "device": device}
    _write(report, path)
    return report


def host_changes(bundle: Bundle, machine: Host) -> dict[str, Section | None]:
    """What to merge so that a report is of `machine`: nothing if it is.

    Otherwise the host, and that the timing of another machine goes.
    """
    before = read(bundle.path / REPORT).get("host")
    if _same_machine(before, msgspec.to_builtins(machine)):
        return {}
    return {**dict.fromkeys(TIMED), "host": machine}


def host_of(bundle: Bundle, machine: Host) -> Host:
    """`machine`, by what the bundle runs on there: its GPU, or what else does the CPU's work."""
    runtime = runtime_of(bundle.manifest.target)
    if runtime.processor == "cpu" or (runtime.processor == "gpu" and not machine.gpus):
        return machine
    name = machine.gpus[0].name if runtime.processor == "gpu" else runtime.title
    return msgspec.structs.replace(machine, accelerator=name)


def _same_machine(left: Any, right: Any) -> bool:
    """Whether two reports' hosts are the same, with however many threads they computed."""
    try:
        hosts = [msgspec.convert(host, Host) for host in (left, right)]
    except msgspec.ValidationError:
        return False
    fingerprints = {fingerprint(msgspec.structs.replace(host, threads=0)) for host in hosts}
    return len(fingerprints) == 1


def check_writable(bundle: Bundle) -> None:
    """Refuse a bundle whose report could not be written, before anything is measured."""
    if not os.access(bundle.path, os.W_OK):
        raise InputError(
            f"{bundle.path} is read-only, so its report cannot be written",
            fix="copy the artifact to a folder of your own",
        )
    read(bundle.path / REPORT)


def read(path: Path) -> dict[str, Any]:
    """The report at `path`, empty when there is none. Raises InputError."""
    if not path.exists():
        return {}
    try:
        report = msgspec.json.decode(path.read_bytes())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise InputError(
            f"{path} cannot be read: {error}", fix="delete it, then measure again"
        ) from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise InputError(f"{path} is not of schema '{SCHEMA}'", fix="delete it, then measure again")
    return report


def _write(report: dict[str, Any], path: Path) -> None:
    content = msgspec.json.format(msgspec.json.encode(report), indent=2)
    files.write_bytes(path, content + b"\n", fix="make the artifact's folder writable")
