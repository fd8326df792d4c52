"""What ONNX Runtime makes of a convolution: INT8 where it pays, else its weights in INT8 alone."""

import re

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser

from tests.support.graphs import IMAGES, PAIRS, build, run
from tests.support.ptq import ptq
from vitedge.core import catalog
from vitedge.graph.structure import Structure, stored_integers

RECIPE = msgspec.structs.replace(catalog.calibrations()["fast"], num_samples=4)
CPU, SHIPPED = (catalog.targets()[f"onnxruntime-{k}"].quantization for k in ("cpu", "vnni"))
VNNI = msgspec.structs.replace(SHIPPED, pays_from_macs=0)  # layers here are small
WIDTH, SIZE = 160, 12
REST = ("shifted", "deep", "last")
"""All but the stem."""
BODY = """
    seen = Cast <to = 1> (images)
    pixels = Transpose <perm = [0, 3, 1, 2]> (seen)
    stem = Conv <pads = [1, 1, 1, 1]> (pixels, w_stem)
    shifted = Conv (stem, w_first, bias)
    kept = Relu (shifted)
    deep = Conv <group = 160, pads = [1, 1, 1, 1]> (kept, w_deep)
    last = Conv (deep, w_last, bias)
    summed = Add (kept, last)
    pooled = GlobalAveragePool (summed)
    y = Flatten (pooled)
"""


@pytest.fixture
def graph(tmp_path):
    """A ResNet's block behind a stem; channel 7 is dead but for its bias."""
    random = np.random.default_rng(0)
    shapes = {"w_stem": (WIDTH, 3, 3, 3), "w_deep": (WIDTH, 1, 3, 3)}
    shapes |= dict.fromkeys(("w_first", "w_last"), (WIDTH, WIDTH, 1, 1)) | {"bias": (WIDTH,)}
    stored = {}
    for name, shape in shapes.items():
        spread = 1.0 if name == "bias" else 10.0 ** random.uniform(-2, 2, (WIDTH, 1, 1, 1))
        spread = spread if name == "w_stem" else 1.0
        fan = max(1, int(np.prod(shape[1:])))
        stored[name] = (random.normal(0, 1, shape) * spread / fan**0.5).astype(np.float32)
    stored["w_first"][7] = 0
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 20]> '
        f"m (uint8[1, {SIZE}, {SIZE}, 3] images) => (float[1, {WIDTH}] y) {{ {BODY} }}"
    )
    model.graph.node[5].input.append("")  # `deep` has no bias, which may be said so
    for node in model.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in stored.items())
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def images():
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (1, SIZE, SIZE, 3), np.uint8) for _ in range(4)]


def loaded(path, images):
    """What a session gives for the images, and the operators that it runs."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    outputs = np.concatenate([session.run(None, {"images": image})[0] for image in images])
    optimized = onnx.load(options.optimized_model_filepath)
    return outputs, [node.op_type for node in optimized.graph.node]


def decibels(path, other, images):
    want, got = (loaded(p, images)[0].astype(np.float64) for p in (path, other))
    return 10 * np.log10(np.square(want).sum() / np.square(got - want).sum())


def test_weights_alone_are_made_float_once_when_the_graph_is_loaded(graph, images, tmp_path):
    model, layers = ptq(graph, images, RECIPE, CPU)
    assert [(layer.quantized, layer.stored) for layer in layers] == [(False, True)] * 4
    assert all(layer.why.startswith("weights alone in INT8: ") for layer in layers)
    assert not any(
        t.data_type == 1 and len(t.dims) == 4 and t.dims[1] > 1 and np.prod(t.dims) > 999
        for t in model.graph.initializer
    )
    path = tmp_path / "stored.onnx"
    onnx.save(model, path)
    assert decibels(graph, path, images) > 35  # though channels span four orders of magnitude
    plain, stored = (loaded(p, images)[1] for p in (graph, path))
    assert sorted(stored) == sorted(plain)
    structure = Structure(model)
    tensors = [tensor for tensor in structure.quantizers() if tensor.constant]
    assert {tensor.dtype for tensor in tensors} == {"int8"} and len(tensors) == 4
    assert sum(stored_integers(node) is not None for node in structure.nodes) == 4


def test_convolutions_with_enough_to_multiply_run_in_int8(graph, images, tmp_path):
    model, layers = ptq(graph, images, RECIPE, VNNI)
    assert {layer.node: layer.quantized for layer in layers} == {
        "Conv_stem": False,
        "Conv_shifted": True,
        "Conv_deep": True,
        "Conv_last": True,
    }
    whys = {layer.node: layer.why for layer in layers}
    assert whys["Conv_deep"] == "between layers in INT8"
    # its weights are too few of the model's for INT8 to save anything
    assert whys["Conv_stem"] == "27 MACs for each value it reads and writes: INT8 pays from 64 on"
    assert not any(layer.stored for layer in layers)
    path = tmp_path / "products.onnx"
    onnx.save(model, path)
    assert decibels(graph, path, images) > 25
    operators = loaded(path, images)[1]
    assert operators.count("QLinearConv") == 3 and "Relu" not in operators


def test_a_layer_of_few_macs_does_not_pay_for_the_layout_around_it(graph, images):
    _, layers = ptq(graph, images, RECIPE, SHIPPED)
    assert not any(layer.quantized for layer in layers)
    (why,) = {layer.why for layer in layers if layer.node == "Conv_last"}
    assert re.search(r"[\d.]+ million MACs an image: INT8 pays from 8 on$", why)


def test_where_products_cost_too_much_weights_alone_are_in_int8(graph, images):
    _, layers = ptq(graph, images, msgspec.structs.replace(RECIPE, weight_bits=4), VNNI)
    assert {layer.node for layer in layers if layer.stored} == {f"Conv_{n}" for n in REST}
    assert not any(layer.quantized for layer in layers)
    why = next(layer.why for layer in layers if layer.node == "Conv_last")
    assert "INT8 products leave the model's output" in why and "dB on calibration images" in why


def test_estimators_are_compared_with_the_biases_that_they_would_have(graph, images, tmp_path):
    recipe = msgspec.structs.replace(RECIPE, activations="auto")
    model, layers = ptq(graph, images, recipe, VNNI)
    assert sum(layer.quantized for layer in layers) == 3
    path = tmp_path / "auto.onnx"
    onnx.save(model, path)
    assert decibels(graph, path, images) > 25


def test_weights_of_outlying_channels_are_rescaled(tmp_path):
    path = build(tmp_path, PAIRS["Conv, ReLU, Conv"][0])
    model, _ = ptq(path, IMAGES, msgspec.structs.replace(RECIPE, equalize=0.5), CPU)
    onnx.save(model, tmp_path / "stored.onnx")
    want, got = run(path), run(tmp_path / "stored.onnx")
    assert 10 * np.log10(np.square(want).sum() / np.square(got - want).sum()) > 30
