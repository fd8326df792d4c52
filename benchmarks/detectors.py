"""docs/detection.md's table: what INT8 leaves of small detectors with random weights.

python -m benchmarks.detectors [NAME…]     (generated scenes; some minutes each)
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

import vitedge as ve
from benchmarks import peers
from tests.support import detectors
from vitedge.data import shapes

TARGETS = ("onnxruntime", "openvino")
CALIBRATION, EVALUATION = range(64), range(3000, 3060)
PARTS = ("decoder", "encoder", "backbone")
HEADER = """\
| model | runtime | logits, dB | boxes, dB | boxes' IoU | same best | in INT8 | in float for it |
|---|---|---|---|---|---|---|---|"""


def main():
    library = peers.declare_torchvision_ops()
    print(HEADER, flush=True)
    for architecture in detectors.DETECTORS:
        if len(sys.argv) == 1 or any(word in architecture for word in sys.argv[1:]):
            with tempfile.TemporaryDirectory() as folder:
                for target, report, record in exported(architecture, Path(folder)):
                    peers.markdown(cells(architecture, target, report, record))
    del library


def exported(architecture, folder):
    """The report and the record of INT8 on each target."""
    model = detectors.save(architecture, folder / "model")
    for name, indices in (("calibration", CALIBRATION), ("others", EVALUATION)):
        np.savez(folder / f"{name}.npz", **scenes(indices))
    for target in TARGETS:
        *_, made = ve.export(
            f"hf:{model}",
            targets=[target],
            precision="int8",
            only=True,
            calib_data=folder / "calibration.npz",
            eval_data=folder / "others.npz",
            output=folder / target,
            duration_s=0,
        )
        yield target, made.report, made.bundle.manifest.quantization


def scenes(indices):
    """Generated images, and a box around each class that they show."""
    images, masks = zip(*map(shapes.draw, indices), strict=True)
    boxes, classes, places = [], [], []
    for place, mask in enumerate(masks):
        for index in np.unique(mask[(mask > 0) & (mask <= len(detectors.LABELS))]).tolist():
            rows, columns = (np.flatnonzero((mask == index).any(axis=axis)) for axis in (1, 0))
            left, top = columns[0], rows[0]
            boxes.append([left, top, columns[-1] + 1 - left, rows[-1] + 1 - top])
            classes.append(index - 1)
            places.append(place)
    arrays = {"boxes": boxes, "box_classes": classes, "box_images": places}
    return {"images": np.stack(images), **{name: np.array(x) for name, x in arrays.items()}}


def cells(architecture, target, report, record):
    """A row of the table."""
    outputs, found = report.numerics.outputs, report.numerics.detections
    quantized = sum(layer.quantized for layer in record.layers)
    kept = Counter(map(part_of, record.spared.kept if record.spared else ()))
    return [
        architecture.removesuffix("ForObjectDetection"),
        target,
        *(f"{output.sqnr_db:.1f}" for output in outputs.values()),
        f"{found.box_iou:.1%}",
        f"{found.top_overlap:.1%}",
        f"{quantized} of {len(record.layers)}",
        ", ".join(f"{count} {part}" for part, count in kept.most_common()) or "none",
    ]


def part_of(layer):
    """Where a layer stands in its model."""
    name = layer.node
    if "bbox" in name or "class_" in name or "score" in name:
        return "heads"
    return next((part for part in PARTS if part in name), "other")


if __name__ == "__main__":
    main()
