"""A model through `vitedge.export` as a user has it: what became of it, as a row of a sweep."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.support.lineage import photographs

TARGETS = ("onnxruntime-cpu", "openvino-cpu")
CALIBRATION, EVALUATION = 24, 8
"""Images to calibrate on, and others to compare on: with fewer, these have what those had not."""
MIN_SQNR_DB = 20.0
MIN_MACS_SHARE = 0.8
AS_IT_COMES = "as it comes"
"""The plan of a row whose module does not run on pixels alone."""
NEEDS = re.compile("an image alone: (it needs|they need) ")
"""What the product says of those that want text, prompts, a video or another image."""


class Model(NamedTuple):
    """One model of a library."""

    group: str
    """A model type of transformers, a module of timm."""
    kind: str
    """A mapping of transformers, a family of timm."""
    architecture: str

    @property
    def name(self) -> str:
        """What its row is called."""
        return f"{self.group}/{self.architecture}"

    @property
    def facts(self) -> dict[str, str]:
        """What a row says of it."""
        return {"model_type": self.group, "head": self.kind.lower()}

    def folder(self, root: Path) -> Path:
        """Where it is saved."""
        return root / self.name.replace("/", "-")


def data(folder: Path) -> tuple[Path, Path]:
    """Crops of photographs to calibrate and to compare on, with labels and masks of zeros, and a
    box around each."""
    crops = photographs(CALIBRATION + EVALUATION)
    paths = folder / "calibration.npz", folder / "evaluation.npz"
    for path, images in zip(paths, (crops[:CALIBRATION], crops[CALIBRATION:]), strict=True):
        count, height, width, _ = images.shape
        classes = np.zeros(count, np.int64)
        boxes = np.tile(np.array([0, 0, width, height]), (count, 1))
        truth = {"labels": classes, "masks": np.zeros((count, height, width), np.uint8)}
        objects = {"boxes": boxes, "box_classes": classes, "box_images": np.arange(count)}
        np.savez(path, images=images, **truth, **objects)
    return paths


def measure(source: str, given: dict[str, int], folder: Path, targets: Iterable[str]) -> dict:
    """Export `source` in INT8; `given`: what its module gives. What came of it, as JSON."""
    import vitedge
    from vitedge.core.errors import VitedgeError

    calibration, evaluation = data(folder)
    start = time.perf_counter()
    row: dict[str, Any] = {"targets": {target: {"written": False} for target in targets}}
    try:
        exports = vitedge.export(
            source,
            targets=tuple(targets),
            precision="int8",
            calib_data=calibration,
            eval_data=evaluation,
            duration_s=0,
            keep_going=True,
            output=folder / "artifacts",
        )
    except VitedgeError as error:
        exports = error.exports or []
        if not exports:
            row["error"] = _told(error)
    for result in exports:
        row["targets"][result.bundle.manifest.target.name] |= _facts(result)
    for failure in getattr(exports, "failures", ()):
        row["targets"][failure.target]["error"] = _told(failure.error)
    if exports:
        manifest = exports[0].bundle.manifest
        row["task"] = manifest.model.task
        row["outputs"] = [output.name for output in manifest.outputs]
        row["notes"] = exports[0].notes()
        row["lost"] = _lost(given, row["outputs"], row["notes"])
    row["seconds"] = round(time.perf_counter() - start, 1)
    return row


def _told(error: Any) -> dict[str, str]:
    return {"kind": type(error).__name__, "what": error.what, "fix": error.fix}


def _facts(result: Any) -> dict[str, Any]:
    """What is known of one bundle: parity of FP32's, numbers and layers of INT8's."""
    manifest, report = result.bundle.manifest, result.report
    if manifest.precision == "fp32":
        return {"parity": manifest.parity.max_rel_error}
    numerics = report.numerics or (report.simulation.numerics if report.simulation else None)
    facts: dict[str, Any] = {"written": True}
    if numerics:
        outputs = numerics.outputs or {manifest.outputs[0].name: numerics}
        facts["sqnr_db"] = {name: level.sqnr_db for name, level in outputs.items()}
        facts["degenerate"] = numerics.degenerate
        facts["kept_queries"] = numerics.kept_queries
    layers = manifest.quantization.layers
    macs = [layer.figures.macs if layer.figures else 0 for layer in layers]
    int8 = sum(n for n, layer in zip(macs, layers, strict=True) if layer.quantized)
    facts["macs_share"] = int8 / sum(macs) if sum(macs) else None
    facts["float"] = dict(Counter(layer.why for layer in layers if not layer.quantized))
    return facts


def _lost(given: dict[str, int], kept: list[str], notes: Iterable[str]) -> list[str]:
    """What a module gives, and neither an artifact holds nor a note names.

    `given` counts the tensors in each. An artifact may call them otherwise, stage by stage.
    """
    told = "\n".join((*kept, *notes))
    renamed = len([name for name in kept if name.partition(".")[0] not in given])
    unnamed = {
        name: count
        for name, count in given.items()
        if not re.search(rf"(?<!\w){re.escape(name)}(?![a-z])", told)
    }
    return list(unnamed) if sum(unnamed.values()) > renamed else []


def shortfall(row: dict[str, Any], target: str) -> str:
    """Why a row does not count on `target`, in a line; empty where it does."""
    facts = row.get("targets", {}).get(target, {"written": False})
    if told := row.get("error") or facts.get("error"):
        return str(told["what"])
    if died := str(row.get("crashed") or row.get("not_made") or "").strip():
        lines = [line for line in died.splitlines() if line.strip()]
        told = re.search(r"^\w*(Error|Exception)\b.*(?:\n.+)?", "\n".join(lines), re.MULTILINE)
        return " ".join(told[0].split()) if told else lines[-1]
    if not facts["written"]:
        return "not written"
    if facts.get("degenerate"):
        return facts["degenerate"]
    if not facts.get("sqnr_db"):
        return "its output was not compared with FP32's"
    levels = [(db, name) for name, db in facts["sqnr_db"].items() if db is not None]
    if levels and min(levels)[0] < MIN_SQNR_DB:
        worst, name = min(levels)
        kept = facts.get("kept_queries")
        queries = "" if kept is None else f": it gives {kept:.0%} of FP32's queries"
        return f"SQNR {worst:.1f} dB{f' in {name}' if len(levels) > 1 else ''}{queries}"
    if not (facts["macs_share"] or _stored(facts)):
        return "nothing is in INT8"
    if facts["macs_share"] < MIN_MACS_SHARE and not all(facts["float"]):
        return f"{facts['macs_share']:.0%} of MACs in INT8, and layers without a reason"
    return ""


def _stored(facts: dict[str, Any]) -> bool:
    """Whether some layers have their weights alone in INT8."""
    return any(why.startswith("weights alone") for why in facts["float"])


def excluded(row: dict[str, Any]) -> bool:
    """Whether its library needs more than an image for it, and the product says of what."""
    return bool(NEEDS.search(row.get("error", {}).get("what", "")))


def line(row: dict[str, Any]) -> str:
    """A row for the terminal."""
    cells = [shortfall(row, target)[:160] or figures(row, target) for target in TARGETS]
    shown = " | ".join(dict.fromkeys(cells))
    kinds = ("lost", "terminal")
    extra = "".join(f"  [{kind}: {row[kind]!r:.100}]" for kind in kinds if row.get(kind))
    return f"{row['row']:56} {row.get('cpu_s', 0):6}s {shown}{extra}"


def figures(row: dict[str, Any], target: str) -> str:
    """SQNR of the worst output and the share of MACs in INT8."""
    facts = row["targets"][target]
    levels = [db for db in facts.get("sqnr_db", {}).values() if db is not None]
    level = f"{min(levels):.1f} dB" if levels else "exact"
    return f"{level}, {facts['macs_share']:.0%}{', weights alone' if _stored(facts) else ''}"


def summary(rows: list[dict[str, Any]]) -> str:
    """The counts that are asked for."""
    taken = [row for row in rows if not excluded(row)]
    good = {t: {row["row"] for row in taken if not shortfall(row, t)} for t in TARGETS}
    parts = [
        f"{len(taken)} models of one image, {len(rows) - len(taken)} that need more",
        f"in INT8 on both runtimes {len(set.intersection(*good.values()))}",
        *(f"{target} {len(names)}" for target, names in good.items()),
        f"tracebacks {sum(bool(row.get('crashed')) for row in rows)}",
        f"not made {sum(bool(row.get('not_made')) for row in rows)}",
        f"printed something {sum(bool(row.get('terminal')) for row in rows)}",
        f"silent losses {sum(bool(row.get('lost')) for row in rows)}",
    ]
    return "; ".join(parts)
