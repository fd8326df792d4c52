"""INT8 that ruins a detector's boxes is seen, however well its logits keep, and the layer that does
it stays in float."""

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from vitedge.core import catalog
from vitedge.core.progress import SILENT
from vitedge.core.spec import Detection
from vitedge.quant.calibrate import calibrate
from vitedge.quant.qdq import quantize
from vitedge.quant.quality import LEAST_DB, LEAST_IOU, box_noise, quality_db
from vitedge.quant.sensitivity import harm
from vitedge.quant.spare import spare_layers

RULE = Detection(scores="softmax")
FAST = msgspec.structs.replace(catalog.calibrations()["fast"], num_samples=8, equalize="off")
DETECTOR = """
<ir_version: 10, opset_import: ["" : 20]>
detector (uint8[1, 8, 8, 3] image) => (float[1, 16, 4] logits, float[1, 16, 4] boxes) {
    raw = Cast <to = 1> (image)
    x = Reshape(raw, tokens)
    n = LayerNormalization(x, gamma, beta)
    m = LayerNormalization(x, uneven, beta)
    logits = MatMul(n, w_class)
    b = MatMul(m, w_box)
    place = Sigmoid(b)
    small = Mul(place, tenth)
    boxes = Add(small, middle)
}
"""
"""All boxes are near the middle, so that where they all are is most of their signal."""


@pytest.fixture
def detector(tmp_path):
    """An ONNX file whose box head reads one channel that is a thousand times larger."""
    random = np.random.default_rng(0)
    model = parser.parse_model(DETECTOR)
    uneven = np.ones(12, np.float32)
    uneven[5] = 1000.0
    w_box = random.normal(0, 1, (12, 4)).astype(np.float32)
    w_box[5] /= 1000.0
    constants = {
        **{"tokens": np.array([1, 16, 12]), "gamma": np.ones(12, np.float32), "uneven": uneven},
        **{"beta": np.zeros(12, np.float32), "w_box": w_box},
        "w_class": random.normal(0, 1, (12, 4)).astype(np.float32),
        "tenth": np.float32(0.1),
        "middle": np.array([0.45, 0.45, 0.05, 0.05], np.float32),
    }
    tensors = (numpy_helper.from_array(value, name) for name, value in constants.items())
    model.graph.initializer.extend(tensors)
    for node in model.graph.node:
        node.name = node.output[0]
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=100)
    return path


def calibrated(path, detection=None):
    images = np.random.default_rng(1).integers(0, 256, (8, 1, 8, 8, 3), np.uint8)
    dialect = catalog.targets()["onnxruntime-cpu"].quantization
    return calibrate(path, iter(images), FAST, dialect, SILENT, ("", ""), detection)[0]


def test_only_the_box_head_stays_in_float_where_int8_moves_boxes(detector):
    whole = calibrated(detector, RULE)
    assert quality_db(whole) < LEAST_DB
    spared = spare_layers(whole, SILENT)
    assert [layer.node for layer in spared.layers if not layer.quantized] == ["b"]
    assert [layer.node for layer in spared.spared.kept] == ["b"]
    assert quality_db(spared) >= LEAST_DB
    (why,) = (layer.why for layer in spared.layers if layer.node == "b")
    assert "the model's logits and boxes" in why


def test_logits_alone_say_nothing_of_it(detector):
    whole = calibrated(detector)
    assert quality_db(whole) > 30 and spare_layers(whole, SILENT) is whole


def test_layers_are_ranked_by_what_they_do_to_boxes(detector):
    whole = calibrated(detector, RULE)
    model, _ = quantize(whole, SILENT, {})
    nodes = ["logits", "b"]
    ratios = harm(whole.path, model, nodes, whole.images, SILENT, detection=RULE)
    assert ratios["b"] > 10 * ratios["logits"]
    alone = harm(whole.path, model, nodes, whole.images, SILENT)
    assert alone["b"] == 0


def test_an_iou_at_the_limit_counts_as_logits_at_theirs():
    logits = np.zeros((1, 1, 3), np.float32)
    box = np.array([[[0.5, 0.5, 0.2, 0.2]]], np.float32)
    narrower = box * np.array([1, 1, LEAST_IOU, 1], np.float32)
    noise = box_noise([[logits, box]], [[logits, narrower]], RULE)
    assert -10 * np.log10(noise) == pytest.approx(LEAST_DB, abs=0.01)
    assert box_noise([[logits, box]], [[logits, box]], RULE) == 0
