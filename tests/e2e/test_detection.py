"""A detector from a user's folder to a gate: its boxes measured, drawn, and held to limits."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import vitedge as ve
from tests.support import detectors
from tests.support.machine import ONNXRUNTIME, TARGETS
from vitedge.core.detections import detections
from vitedge.data import shapes
from vitedge.data.geometry import fit
from vitedge.data.placement import placement
from vitedge.graph.preprocess import apply_numpy
from vitedge.measure.accuracy import evidence

OPENVINO = TARGETS["openvino"]
ARCHITECTURE = "YolosForObjectDetection"
SIZE = (96, 72)
"""Width and height of the photographs, pixels."""
OBJECTS = 3
"""On each photograph: what FP32 is surest of, so that it is nearly always right."""


@pytest.fixture(scope="session")
def detector(once, peers):
    """A folder with a detector, photographs to calibrate on, a COCO set, and artifacts."""

    def make(folder):
        model = detectors.save(ARCHITECTURE, folder / "tiny-yolos")
        for name, indices in (("calib", range(24)), ("coco/images", range(3000, 3032))):
            (folder / name).mkdir(parents=True)
            for index in indices:
                image = Image.fromarray(shapes.draw(index)[0]).resize(SIZE)
                image.save(folder / name / f"{index}.png")
        _annotate(folder / "coco", ve.load(f"hf:{model}"))
        ve.export(
            f"hf:{model}",
            targets=[ONNXRUNTIME, OPENVINO],
            precision="int8",
            calib_data=folder / "calib",
            eval_data=folder / "coco",
            output=folder / "out",
            duration_s=0,
        )

    return once("detector", make)


def _annotate(folder, model):
    """Write what FP32 is surest of as the truth; a box is a crowd, an image is missing."""
    files = sorted((folder / "images").iterdir())
    images, annotations = [], []
    for number, file in enumerate([*files, folder / "images" / "gone.png"]):
        sides = {"width": SIZE[0], "height": SIZE[1]}
        images.append({"id": number, "file_name": file.name, **sides})
        for index, box in _surest(model, file) if file in files else ():
            left, top, right, bottom = box
            annotations.append(
                {
                    **{"id": len(annotations), "image_id": number},
                    **{"category_id": index + 10, "iscrowd": int(not annotations)},
                    "bbox": [left, top, right - left, bottom - top],
                }
            )
    categories = [{"id": index + 10, "name": name} for index, name in detectors.LABELS.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))


def _surest(model, file):
    """Classes and boxes, in pixels of the photograph, that FP32 is surest of."""
    preprocess = model.identity.preprocess
    pixels = apply_numpy(fit(Image.open(file), preprocess)[None], preprocess)
    with torch.inference_mode():
        logits, boxes = (x[0].numpy() for x in model.content(torch.from_numpy(pixels)))
    found = detections(logits, boxes, model.identity.detection)
    in_pixels = placement(SIZE, preprocess).in_pixels(found.boxes[:OBJECTS])
    return zip(found.classes[:OBJECTS].tolist(), in_pixels.tolist(), strict=True)


@pytest.fixture
def int8(detector):
    return detector / "out" / f"tiny-yolos-{ONNXRUNTIME}-int8"


@pytest.mark.parametrize("target", [ONNXRUNTIME, OPENVINO])
def test_an_export_measures_map_and_both_outputs(detector, target):
    document = json.loads((detector / "out" / f"tiny-yolos-{target}-int8/report.json").read_text())
    accuracy, numerics = document["accuracy"], document["numerics"]
    assert accuracy["metric"] == "map" and accuracy["fp32"] > 0.7
    assert accuracy["skipped"] == {"listed and missing": 1} and accuracy["n"] == 32
    low, high = accuracy["drop_ci_pp"]
    assert low < accuracy["drop_pp"] < high and abs(accuracy["drop_pp"]) < 15
    assert {"map_50", "map_75"} <= set(accuracy["also"]) and accuracy["agreement"] is None
    assert set(numerics["outputs"]) == {"logits", "pred_boxes"}
    assert numerics["detections"]["box_iou"] > 0.95
    assert numerics["detections"]["top_overlap"] > 0.9


def test_evidence_keeps_boxes_in_the_photographs_pixels(int8, detector):
    kept = evidence.read(int8).per_image
    truth = json.loads((detector / "coco" / "annotations.json").read_text())["annotations"]
    left, top, width, height = truth[1]["bbox"]
    assert kept.labels.shape == (32, OBJECTS, 7) and kept.artifact.shape[2] == 6
    want = [left, top, left + width, top + height]
    np.testing.assert_allclose(kept.labels[0, 1, 1:5], want, rtol=1e-5)
    assert kept.labels[0, 0, 6] == 1  # the crowd
    np.testing.assert_allclose(kept.fp32[0, 1, 2:], want, atol=0.01)


def test_a_gate_holds_map_and_its_drop_to_limits(int8, vitedge, tmp_path):
    page = tmp_path / "gate.html"
    done = vitedge("gate", int8, "--min-map", 0.3, "--max-drop", 60, "--html", page)
    assert "mAP" in done.stdout or "map" in done.stdout
    html = page.read_text()
    assert 'class="fp32"' in html and 'class="own"' in html and "FP32: " in html
    assert "0.99" in vitedge("gate", int8, "--min-map", 0.99, code=1).stdout
    assert "its metric is map" in vitedge("gate", int8, "--min-top1", 0.5, code=1).stdout


def test_without_the_library_nothing_is_run(int8, detector, vitedge, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    done = vitedge("validate", int8, "--data", detector / "coco", code=3)
    assert "pip install 'vitedge[detection]'" in done.stderr


def test_two_artifacts_are_compared_box_by_box(detector, int8, vitedge):
    other = detector / "out" / f"tiny-yolos-{OPENVINO}-int8"
    document = vitedge("compare", int8, other, "--json").document
    assert document["accuracy"]["metric"] == "map" and document["accuracy"]["n"] == 32
    low, high = document["accuracy"]["drop_ci_pp"]
    assert low <= document["accuracy"]["drop_pp"] <= high


def test_validation_says_the_same_again(int8, detector, vitedge, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(detector / "out", copy)
    before = json.loads((int8 / "report.json").read_text())["accuracy"]
    done = vitedge("validate", copy / int8.name, "--data", detector / "coco", "--json")
    assert done.document["accuracy"]["artifact"] == pytest.approx(before["artifact"], abs=1e-4)
    shown = vitedge("validate", copy / int8.name, "--data", detector / "coco").stdout
    assert "mAP" in shown and "boxes' IoU" in shown and "skipped 1: listed and missing" in shown


def test_predict_draws_boxes(int8, detector, vitedge, tmp_path):
    file = detector / "coco" / "images" / "3000.png"
    arguments = ("predict", int8, file, "--min-score", 0)
    (document,) = vitedge(*arguments, "--json").document["predictions"]
    surest = document["objects"][0]
    assert surest["label"] in detectors.LABELS.values() and len(surest["box"]) == 4
    shown = vitedge(*arguments, "--output", tmp_path / "drawn").stdout
    assert "drawing in" in shown and f"{surest['score']:.1%}" in shown
    drawing = np.asarray(Image.open(tmp_path / "drawn" / "3000.png")).astype(int)
    assert drawing.shape == (5 * SIZE[1], 5 * SIZE[0], 3)  # 480 pixels, for names to be legible
    photograph = Image.open(file).resize((5 * SIZE[0], 5 * SIZE[1]), Image.Resampling.NEAREST)
    assert 0.02 < (np.abs(drawing - np.asarray(photograph)).max(axis=2) > 40).mean() < 0.5
    nothing = vitedge("predict", int8, file, "--min-score", 1).stdout
    assert "no object of which it is 100% sure" in nothing


@pytest.mark.heavy
@pytest.mark.parametrize("target", [ONNXRUNTIME, OPENVINO])
@pytest.mark.parametrize(
    "architecture",
    [name for name in detectors.DETECTORS if name != ARCHITECTURE],
)
def test_int8_keeps_the_boxes_of_a_family(detector, tmp_path, peers, architecture, target):
    model = detectors.save(architecture, tmp_path / "model")
    *_, made = ve.export(
        f"hf:{model}",
        targets=[target],
        precision="int8",
        only=True,
        calib_data=detector / "calib",
        output=tmp_path / "out",
        duration_s=0,
    )
    found = made.report.numerics.detections
    assert found.box_iou >= 0.9 and found.top_overlap > 0.8
    assert any(layer.quantized for layer in made.bundle.manifest.quantization.layers)


@pytest.mark.heavy
def test_a_bound_on_map_keeps_layers_in_float(detector, tmp_path):
    before = json.loads(
        (detector / "out" / f"tiny-yolos-{ONNXRUNTIME}-int8/report.json").read_text()
    )
    lost_pp = before["accuracy"]["drop_pp"]
    assert lost_pp > 0.1  # else there is nothing to keep
    made = ve.export(
        f"hf:{detector / 'tiny-yolos'}",
        targets=[ONNXRUNTIME],
        precision="int8",
        calib_data=detector / "calib",
        eval_data=detector / "coco",
        max_drop_pp=lost_pp / 2,
        output=tmp_path,
        duration_s=0,
    )
    control = made[-1].bundle.manifest.quantization.control
    assert control.reached.drop_pp <= lost_pp / 2 and control.kept
    assert made[-1].report.accuracy.metric == "map"


def test_annotations_that_do_not_fit_the_model_end_with_the_reason(
    int8, detector, vitedge, tmp_path
):
    content = json.loads((detector / "coco" / "annotations.json").read_text())
    content["categories"][0]["name"] = "horse"
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "images").symlink_to(detector / "coco" / "images")
    said = vitedge("validate", int8, "--data", tmp_path, code=2).stderr
    assert "1 categories of" in said and "horse" in said and "(circle, square, star, …)" in said
    assert (
        "annotations.json"
        in vitedge("validate", int8, "--data", tmp_path / "images", code=2).stderr
    )
