"""The embedded detector in INT8: ours beside NNCF's and quantize_static's, on held-out scenes.

Peers get the images that ours is calibrated on. A row says what COCO's mAP loses, how well boxes
lie on FP32's, and how far those matched with objects are from them, as a multiple of FP32's.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks import peers
from examples.references.set_prediction import matched
from examples.references.shapes_detr import load
from vitedge.core import catalog
from vitedge.data.open import open_images
from vitedge.data.shapes import HELD_OUT
from vitedge.measure.accuracy.validation import validate
from vitedge.models.sources import ModelRequest, resolve
from vitedge.runtimes import open_session

MODEL, DATA = "shapes-detr", "shapes"
LOST_PP, MACS, L1_RATIO, BOX_IOU = 0.5, 0.7, 1.02, 0.97
OURS = "ours"
SAME_GRAPH = ("ORT Percentile", "ORT Entropy")


def main():
    options = peers.arguments(__doc__).parse_args()
    del options
    identity = resolve(ModelRequest(MODEL)).identity
    recipe = catalog.find_calibration("default")
    drawn = open_images(*(DATA, "calibration", identity.preprocess, identity.labels, identity.task))
    images = [batch.images for batch in drawn.sample(recipe.num_samples, recipe.seed)]
    print(peers.host(), "\n")
    for runtime in peers.RUNTIMES:
        with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as folder:
            _compare(runtime, identity, images, Path(folder))


def _compare(runtime, identity, images, folder):
    fp32, ours = peers.export_bundles(MODEL, runtime, folder / "ours", DATA)
    rows = {}
    with open_session(fp32) as reference:
        truth = _distance(reference)
        with open_session(ours) as session:
            rows[OURS] = _row(session, reference, identity, truth)
        for name, quantize in peers.quantizers(runtime, None).items():
            if name in SAME_GRAPH:
                continue
            try:
                artifact = quantize(peers.model_file(fp32), images, folder / name)
                with peers.open_file(artifact, ours.manifest.target) as session:
                    rows[name] = _row(session, reference, identity, truth)
            except Exception as error:  # a peer's failure is a result
                print(f"{name} fails: {peers.one_line(error)}")
    print(f"{MODEL} on {ours.manifest.target.name}")
    header = ("", "mAP %", "lost, points", "boxes' IoU", "L1, × FP32's", "logits, dB", "boxes, dB")
    cells = ("{:.2f}", "{:.2f}", "{:.3f}", "{:.3f}", "{:.1f}", "{:.1f}")
    peers.table(
        header,
        [
            (name, *(form.format(figure) for form, figure in zip(cells, row, strict=True)))
            for name, row in rows.items()
        ],
    )
    layers = ours.manifest.quantization.layers
    macs = sum(layer.figures.macs for layer in layers)
    share = sum(layer.figures.macs for layer in layers if layer.quantized) / macs
    _, lost_pp, box_iou, distance, *_ = rows[OURS]
    peers.verdict(f"{lost_pp:.2f} points lost (≤ {LOST_PP})", lost_pp <= LOST_PP)
    peers.verdict(f"{share:.0%} of MACs in INT8 (≥ {MACS:.0%})", share >= MACS)
    peers.verdict(f"boxes' IoU {box_iou:.3f} (≥ {BOX_IOU})", box_iou >= BOX_IOU)
    peers.verdict(f"L1 {distance:.3f}× FP32's (≤ {L1_RATIO})", distance <= L1_RATIO)
    print(flush=True)


def _row(session, reference, identity, truth):
    """mAP, points lost, boxes' IoU with FP32's, L1 to objects against FP32's, SQNR of both."""
    held_out = open_images(
        *(DATA, "evaluation", identity.preprocess, identity.labels, identity.task)
    )
    tally = validate(
        *(session, reference, held_out, identity.task),
        calibration=frozenset(),
        detection=identity.detection,
    )
    accuracy, numerics, _ = tally.result(held_out.name, held_out.skipped)
    return (
        100 * accuracy.artifact,
        accuracy.drop_pp,
        numerics.detections.box_iou,
        _distance(session) / truth,
        *(output.sqnr_db for output in numerics.outputs.values()),
    )


def _distance(session):
    """Mean L1 between objects of the held-out scenes and the boxes matched with them."""
    pixels, truth = load(HELD_OUT)
    names = [spec.name for spec in session.outputs]
    fixed = session.inputs[0].shape[0] or len(HELD_OUT)
    images = np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
    runs = [session.run({"image": part}) for part in np.split(images, len(images) // fixed)]
    logits, boxes = (torch.from_numpy(np.concatenate([run[n] for run in runs])) for n in names)
    batch, queries, objects = matched(logits, boxes, truth, 1)
    return float((boxes[batch, queries] - truth.boxes[batch, objects]).abs().sum(1).mean())


if __name__ == "__main__":
    main()
