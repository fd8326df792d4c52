"""The QDQ graph is symmetric INT8, and the runtimes compute in INT8 exactly what it says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from tests.support.graphs import EVERYTHING, NORM, build
from tests.support.graphs import IMAGES as IMAGES_OF_GRAPHS
from tests.support.ptq import ptq
from vitedge.core import catalog
from vitedge.core.manifest import Layer
from vitedge.core.spec import Target
from vitedge.graph.run import Runner

IMAGES = 64
EXACT_DB = 45.0
"""Float rounding and INT8 rounding at ties leave about 50 dB; one saturated sum leaves 25."""
RECIPE = msgspec.structs.replace(catalog.calibrations()["default"], num_samples=IMAGES)
CPUS = ("onnxruntime", "openvino")  # TensorRT's dialect has tests of its own
TARGETS = [target for target in catalog.targets().values() if target.runtime in CPUS]
PAIR_SAFE = [target for target in TARGETS if target.quantization.weights == "pair_safe"]


@dataclass(frozen=True)
class Quantized:
    path: Path
    model: ModelProto
    layers: list[Layer]
    target: Target

    def makers(self):
        return {name: node for node in self.model.graph.node for name in node.output}

    def constants(self):
        return {t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer}

    def planned(self):
        chosen = {layer.node for layer in self.layers if layer.quantized}
        return [node for node in self.model.graph.node if node.name in chosen]


@pytest.fixture(scope="module")
def quantized(tmp_path_factory, digits_graph, calibration_batches):
    """`digits` quantized for the target of a name, once each."""

    @cache
    def quantize(name):
        target, images = catalog.targets()[name], calibration_batches(IMAGES, 16)
        model, layers = ptq(digits_graph("dynamic").path, images, RECIPE, target.quantization)
        path = tmp_path_factory.mktemp(name) / "model.onnx"
        onnx.save(model, path)
        return Quantized(path, onnx.load(path), layers, target)

    return quantize


@pytest.fixture(params=TARGETS, ids=lambda target: target.name)
def qdq(request, quantized):
    return quantized(request.param.name)


def run_ort(path, images, optimized=""):
    """The output, every fusion allowed; the graph as fused goes to the file `optimized`."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = optimized
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def exactly(path, images):
    """What the QDQ graph says: every operator on its own, between Q and DQ in float."""
    return Runner(path, as_written=True)(images)[0]


def run_openvino(path, images):
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(images)[0]


RUNS = {"onnxruntime": run_ort, "openvino": run_openvino}


# -- the graph ----------------------------------------------------------------------------------


def test_the_graph_is_one_valid_file_with_unique_names_and_nothing_unused(qdq):
    onnx.checker.check_model(qdq.path, full_check=True)
    nodes = [node.name for node in qdq.model.graph.node]
    tensors = [tensor.name for tensor in qdq.model.graph.initializer]
    assert len(nodes) == len(set(nodes)) and all(nodes)
    assert len(tensors) == len(set(tensors))
    assert set(tensors) <= {name for node in qdq.model.graph.node for name in node.input}
    bare = onnx.load(qdq.path, load_external_data=False)
    assert all(t.data_location == TensorProto.DEFAULT for t in bare.graph.initializer)


def test_an_activation_has_one_scale_and_the_type_and_zero_that_the_target_takes(qdq):
    constants = qdq.constants()
    kind = qdq.target.quantization.activations
    inputs = []
    for node in qdq.model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = constants[node.input[1]], constants[node.input[2]]
        assert (scale > 0).all() and np.isfinite(scale).all()
        central = {0} if zero.dtype == np.int8 else {0, 128}
        any_zero = qdq.target.quantization.zero_points and zero.dtype == np.uint8
        assert any_zero or set(np.unique(zero).tolist()) <= central
        if node.op_type == "QuantizeLinear":
            inputs.append(node.input[0])
            assert scale.shape == ()
            assert str(zero.dtype) in ({"int8", "uint8"} if kind == "mixed" else {kind})
    assert len(inputs) == len(set(inputs)) > 0  # layers that share an input share its quantizer


INT8, UINT8, CENTRED = ("int8", 0), ("uint8", 0), ("uint8", 128)


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("int8", {"n": INT8, "r": INT8, "centred": INT8}),
        ("uint8", {"n": CENTRED, "r": UINT8, "centred": CENTRED}),
        ("mixed", {"n": INT8, "r": UINT8, "centred": CENTRED}),
    ],
)
def test_activations_are_stored_by_sign_and_by_what_reads_them(tmp_path, kind, stored):
    target = msgspec.structs.replace(EVERYTHING, activations=kind)
    body = f"""{NORM}
        p = MatMul(n, w)
        r = Relu(p)
        z = MatMul(r, w_plain)
        centred = Sub(pixels, middle)
        maps = Conv <pads = [1, 1, 1, 1]> (centred, c_grown)
        mean = ReduceMean(maps)
        y = Add(z, mean)"""
    path = build(tmp_path, body, middle=np.float32(2))
    model, _ = ptq(path, IMAGES_OF_GRAPHS, RECIPE, target)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    zeros = {node.input[0]: constants[node.input[2]] for node in quantizers}
    assert {name: (str(zero.dtype), int(zero)) for name, zero in zeros.items()} == stored


def test_weights_have_one_scale_for_each_output_channel(qdq):
    constants, makers = qdq.constants(), qdq.makers()
    weighted = [n for n in qdq.planned() if makers[n.input[1]].input[0] in constants]
    roles = {d.node: d.role for d in qdq.layers}
    assert [n.name for n in weighted] == [
        n.name for n in qdq.planned() if roles[n.name] in ("linear", "conv")
    ]
    for node in weighted:
        dequantize = makers[node.input[1]]
        weight, scale, _ = (constants[name] for name in dequantize.input)
        (axis,) = (a.i for a in dequantize.attribute if a.name == "axis")
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        assert axis == (0 if node.op_type == "Conv" or transposed else weight.ndim - 1)
        assert weight.dtype == np.int8
        assert scale.shape == (weight.shape[axis],)


def test_only_the_planned_operators_read_quantized_values(qdq):
    planned = {node.name for node in qdq.planned()}
    makers = qdq.makers()
    for node in qdq.model.graph.node:
        sources = [makers[n].op_type for n in node.input if n in makers]
        if node.name in planned:
            assert sources[:2].count("DequantizeLinear") == 2, node.name
        elif node.op_type == "DequantizeLinear":
            assert set(sources) <= {"QuantizeLinear"}
        else:
            assert "DequantizeLinear" not in sources, node.name


def test_biases_stay_float(qdq):
    makers, constants = qdq.makers(), qdq.constants()
    biases = [
        constants[name]
        for node in qdq.model.graph.node
        if node.op_type == "Add"
        for name, other in (node.input, reversed(node.input))
        if name in constants and other in makers and makers[other] in qdq.planned()
    ]
    assert len(biases) >= 16  # the head's is inside its Gemm, or one more Add
    assert all(bias.dtype == np.float32 for bias in biases)


def test_the_fp32_file_is_left_as_it_was(tmp_path, digits_graph, calibration_batches):
    for file in ("model.onnx", "model.onnx.data"):
        (tmp_path / file).write_bytes((digits_graph("dynamic").path.parent / file).read_bytes())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    images = calibration_batches(16, 16)
    ptq(tmp_path / "model.onnx", images, RECIPE, TARGETS[0].quantization)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    beside = {name: after.pop(name) for name in after.keys() - before.keys()}
    assert after == before
    assert beside.keys() == {"equalized-0.5.onnx", "equalized-0.5.onnx.data"}


def test_the_same_images_give_the_same_bytes(digits_graph, calibration_batches, quantized):
    target = TARGETS[0]
    fp32 = digits_graph("dynamic").path
    model, _ = ptq(fp32, calibration_batches(IMAGES, 16), RECIPE, target.quantization)
    assert model.SerializeToString() == quantized(target.name).model.SerializeToString()


# -- what the runtimes make of it ---------------------------------------------------------------


ORT_TARGETS = [target for target in TARGETS if target.runtime == "onnxruntime"]


def fused_and_float(qdq, images):
    """The layers with weights that ONNX Runtime runs in INT8, and those it runs in float."""
    optimized = qdq.path.with_name("optimized.onnx")
    run_ort(qdq.path, images, str(optimized))
    graph = onnx.load(optimized).graph
    constant = {tensor.name for tensor in graph.initializer}
    constant |= {n.output[0] for n in graph.node if n.input and n.input[0] in constant}
    fused = [n.name for n in graph.node if "QLinear" in n.op_type or "ToFloat" in n.op_type]
    products = ("MatMul", "FusedMatMul", "Gemm", "FusedGemm")
    plain = [n.name for n in graph.node if n.op_type in products and n.input[1] in constant]
    return fused, plain


@pytest.mark.parametrize("target", ORT_TARGETS, ids=lambda target: target.name)
def test_what_the_manifest_calls_int8_is_int8_on_onnx_runtime(target, quantized, held_out):
    """Every layer of every block."""
    qdq = quantized(target.name)
    fused, plain = fused_and_float(qdq, held_out.images[:2])
    assert plain == [d.node for d in qdq.layers if d.op == "Gemm" and not d.quantized]
    assert len(fused) == len(qdq.planned()) >= 16
    assert not [name for name in plain if name.startswith("blocks.")]


@pytest.mark.parametrize("runtime", RUNS)
@pytest.mark.parametrize("target", PAIR_SAFE, ids=lambda target: target.name)
def test_a_runtime_computes_what_the_graph_says(target, runtime, quantized, held_out, sqnr_db):
    path, images = quantized(target.name).path, held_out.images[:256]
    assert sqnr_db(exactly(path, images), RUNS[runtime](path, images)) >= EXACT_DB


@pytest.mark.parametrize("runtime", RUNS)
@pytest.mark.parametrize("target", PAIR_SAFE, ids=lambda target: target.name)
@pytest.mark.parametrize("black", [0, 127.5], ids=["never negative", "signed"])
def test_the_worst_weights_and_the_brightest_image_do_not_saturate(
    tmp_path, black, target, runtime
):
    """A layer that overflows 16-bit sums: bright images on large weights of one sign."""
    weight = np.full((192, 8), 1.0, np.float32)
    weight[:, 1::2] = -1.0
    body = (
        "bright = Reshape(raw, flat)\n centred = Sub(bright, black)\n y = MatMul(centred, weight)"
    )
    stored = {"flat": np.array([1, 1, 192]), "black": np.float32(black), "weight": weight}
    bright = np.full((1, 8, 8, 3), 255, np.uint8)
    images = [bright, np.zeros_like(bright)]
    model, _ = ptq(build(tmp_path, body, **stored), images, RECIPE, target.quantization)
    path = tmp_path / "qdq.onnx"
    onnx.save(model, path)
    expected = np.tile([(255.0 - black) * 192, (black - 255.0) * 192], 4)
    np.testing.assert_allclose(RUNS[runtime](path, bright).ravel(), expected, rtol=0.01)


@pytest.mark.parametrize("runtime", RUNS)
@pytest.mark.parametrize("inputs", ["x, gamma, beta", "x, gamma"], ids=["zero", "absent"])
def test_a_norm_without_a_shift_before_a_mean_is_computed_as_the_graph_says(
    tmp_path, inputs, runtime, sqnr_db
):
    """LayerNorm, mean over tokens, linear layer: Swin's head without biases."""
    rng = np.random.default_rng(0)
    stored = {
        "gamma": rng.uniform(0.4, 2.4, 12).astype(np.float32),
        "beta": np.zeros(12, np.float32),
        "axis": np.array([1]),
        "weight": rng.standard_normal((12, 8)).astype(np.float32),
    }
    body = f"n = LayerNormalization({inputs})\n mean = ReduceMean <keepdims = 0> (n, axis)"
    fp32 = build(tmp_path, f"{body}\n y = MatMul(mean, weight)", **stored)
    image = np.random.default_rng(1).integers(0, 256, (1, 8, 8, 3), np.uint8)
    model, _ = ptq(fp32, [image], RECIPE, catalog.targets()["openvino-cpu"].quantization)
    path = tmp_path / "qdq.onnx"
    onnx.save(model, path)
    assert sqnr_db(exactly(path, image), RUNS[runtime](path, image)) >= EXACT_DB
