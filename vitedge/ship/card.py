"""A model card: what the Hub shows of an artifact, every figure from its report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from vitedge.core.bundle import Bundle
from vitedge.core.errors import missing
from vitedge.core.manifest import Manifest
from vitedge.core.report import Accuracy, Metric, Report, of_bundle

METRICS: dict[Metric, tuple[str, str]] = {
    "top1": ("accuracy", "top-1"),
    "miou": ("mean_iou", "mIoU"),
    "map": ("mean_average_precision", "mAP"),
    "pixel_error": ("pixel_error", "pixel error"),
    "knn_agreement": ("knn_agreement", "same nearest neighbour"),
}
"""The Hub's name of a metric, and what people call it."""
_TASKS = {
    "classification": "image-classification",
    "segmentation": "image-segmentation",
    "detection": "object-detection",
    "features": "image-feature-extraction",
}
"""The Hub's name of a task; it has none for dense maps in general."""
NEVER = "This artifact was never validated: nothing is known of its accuracy."
Row = tuple[str, ...]
HEAD: Row = ("precision", "accuracy lost, pp (95%)", "SQNR, dB", "p50, ms", "speedup (95%)", "MiB")


def card(bundle: Bundle, licence: str) -> str:
    """README.md of a repository that holds the bundle: metadata in YAML, then Markdown.

    Raises InputError for a report that cannot be read, UnavailableError without `huggingface_hub`.
    """
    try:
        from huggingface_hub import ModelCardData
    except ImportError as error:
        raise missing("huggingface_hub", "hub") from error
    report = of_bundle(bundle)
    manifest = bundle.manifest
    results = _results(manifest, report)
    data = ModelCardData(
        base_model=_base(manifest),
        library_name="vitedge",
        license=licence or None,
        pipeline_tag=_TASKS.get(manifest.model.task),
        tags=["vitedge", "onnx", manifest.target.runtime, manifest.precision],
        model_name=manifest.name if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(_body(bundle, report, licence)) + "\n"


def _base(manifest: Manifest) -> str | None:
    """The repository on the Hub that it was made from; None where it was another source."""
    match = re.match(r"hf:([\w.-]+/[\w.-]+)(?:/.+|@.+)?$", manifest.model.source)
    return match[1] if match else None


def _results(manifest: Manifest, report: Report | None) -> list[Any]:
    """The metadata's `model-index`: every metric that was measured on labelled images."""
    from huggingface_hub import EvalResult

    if report is None or report.accuracy is None:
        return []
    accuracy = report.accuracy
    name = _name(accuracy.data)
    common: dict[str, Any] = {
        "task_type": _TASKS.get(manifest.model.task, manifest.model.task),
        "dataset_type": re.sub(r"[^\w.-]+", "-", name).strip("-") or "unknown",
        "dataset_name": name,
    }
    kind, title = METRICS[accuracy.metric]
    values = [(kind, title, accuracy.artifact)]
    values += [(also, also, compared.artifact) for also, compared in accuracy.also.items()]
    return [
        EvalResult(metric_type=kind, metric_name=title, metric_value=value, **common)
        for kind, title, value in values
    ]


def _name(data: str) -> str:
    """What a data set is called, without the folder that it lies in here."""
    return PurePath(data.replace("\\", "/")).name or "unknown"


def _body(bundle: Bundle, report: Report | None, licence: str) -> Iterator[str]:
    manifest = bundle.manifest
    model, target = manifest.model, manifest.target
    yield f"# {_line(manifest.name)}\n"
    yield (
        f"{_line(model.name)} ({model.task}) in {manifest.precision.upper()} for {target.runtime}, "
        f"made with [vitedge](https://pypi.org/project/vitedge/) for the target `{target.name}`: "
        f"{_line(target.description)}.\n"
    )
    yield "## What was measured\n"
    yield from _figures(report)
    yield "\n## How to run it\n"
    size = f"{manifest.preprocessing.host.height}×{manifest.preprocessing.host.width}"
    yield f"It takes RGB photographs of any size, {size} inside, uint8: normalisation is in it.\n"
    yield "```"
    yield "pip install 'vitedge[hub]'"
    yield "vitedge pull USER/REPO --output artifacts"
    yield f"vitedge predict artifacts/{_line(manifest.name)} photo.jpg"
    yield f"vitedge bench artifacts/{_line(manifest.name)} --device ssh://user@host   # on a device"
    yield "```\n"
    yield "## Where it comes from\n"
    yield from _origin(bundle, licence)


def _figures(report: Report | None) -> Iterator[str]:
    if report is None or report.accuracy is None:
        yield NEVER
    else:
        yield _accuracy(report.accuracy)
    if report is None:
        return
    yield ""
    for row in (HEAD, tuple("---" for _ in HEAD), *rows(report)):
        yield f"| {' | '.join(row)} |"
    host = report.host
    if host:
        yield f"\nMeasured on {_line(host.cpu or host.machine)}, {host.threads} threads."


def _accuracy(accuracy: Accuracy) -> str:
    _, title = METRICS[accuracy.metric]
    text = f"{title} {accuracy.artifact:.4f}"
    if accuracy.fp32 is not None and accuracy.drop_pp is not None:
        text += f", FP32 {accuracy.fp32:.4f}: {accuracy.drop_pp:.2f} pp lost"
        text += _interval(accuracy.drop_ci_pp)
    return f"{text}, on {accuracy.n} images of {_line(_name(accuracy.data))}."


def rows(report: Report) -> Iterator[Row]:
    """Every precision that was timed together, or this one beside FP32; as `HEAD` says."""
    if report.recommendation:
        for candidate in report.recommendation.candidates:
            yield (
                candidate.precision.upper(),
                _number(candidate.drop_pp, ".2f") + _interval(candidate.drop_ci_pp),
                _number(candidate.sqnr_db, ".1f"),
                _number(candidate.p50_ms, ".4g"),
                _number(candidate.speedup, ".2f") + _interval(candidate.speedup_ci),
                _number(candidate.bytes / 2**20, ".2f"),
            )
        return
    accuracy, latency, size = report.accuracy, report.latency, report.size
    if latency and latency.fp32 and report.precision != "fp32":
        fp32_bytes = size.fp32_bytes if size else None
        mib = _number(None if fp32_bytes is None else fp32_bytes / 2**20, ".2f")
        yield "FP32", "–", "–", _number(latency.fp32.p50_ms, ".4g"), "1.00", mib
    numerics = report.numerics
    yield (
        report.precision.upper(),
        _number(accuracy.drop_pp if accuracy else None, ".2f")
        + _interval(accuracy.drop_ci_pp if accuracy else None),
        _number(numerics.sqnr_db if numerics else None, ".1f"),
        _number(latency.p50_ms if latency else None, ".4g"),
        _number(latency.speedup if latency else None, ".2f")
        + _interval(latency.speedup_ci if latency else None),
        _number(size.bytes / 2**20 if size else None, ".2f"),
    )


def _origin(bundle: Bundle, licence: str) -> Iterator[str]:
    manifest = bundle.manifest
    model = manifest.model
    yield f"- Model: `{_line(model.source)}`, weights SHA-256 `{model.weights_sha256}`."
    yield f"- Licence: {_line(licence) or 'not stated; that of the model and its weights holds'}."
    record = manifest.quantization
    if record:
        images = record.calibration
        yield (
            f"- Calibration: {images.images} images of {_line(_name(images.source))}, digest "
            f"`{images.digest}`, recipe `{images.recipe.name}`; {_line(record.scheme)}."
        )
    tools = ", ".join(f"{name} {version}" for name, version in manifest.tools.items())
    yield f"- Made with {_line(tools)}."
    for name, sha256 in bundle.model_files.items():
        yield f"- `{_line(name)}`: SHA-256 `{sha256}`."


def _interval(ends: tuple[float, float] | None) -> str:
    return f" ({ends[0]:.2f} to {ends[1]:.2f})" if ends else ""


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def _line(text: str) -> str:
    """Text from a manifest as Markdown that stays on its line and is nothing else."""
    return re.sub(r"[|`<>\[\]*\\]", "_", " ".join(text.split()))
