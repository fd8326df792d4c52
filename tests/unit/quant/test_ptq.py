"""The QDQ graph is symmetric INT8, and the runtimes compute in INT8 exactly what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.support.graphs import EVERYTHING, NORM, build
from tests.support.graphs import IMAGES as IMAGES_OF_GRAPHS
from tests.support.ptq import ptq
from vitedge.core import catalog
from vitedge.core.errors import InputError
from vitedge.core.manifest import Layer
from vitedge.core.spec import Target
from vitedge.data.imageset import Batch

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

    def makers(self) -> dict[str, NodeProto]:
        return {name: node for node in self.model.graph.node for name in node.output}

    def constants(self) -> dict[str, NDArray[Any]]:
        return {t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer}

    def planned(self) -> list[NodeProto]:
        chosen = {layer.node for layer in self.layers if layer.quantized}
        return [node for node in self.model.graph.node if node.name in chosen]


@pytest.fixture(scope="module")
def quantized(
    tmp_path_factory: pytest.TempPathFactory,
    digits_graph: Callable[..., Any],
    calibration_batches: Callable[..., Any],
) -> Callable[[Target], Quantized]:
    """`digits` quantized for a target, once each."""
    made: dict[str, Quantized] = {}

    def make(target: Target) -> Quantized:
        if target.name not in made:
            fp32 = digits_graph("dynamic").path
            images = calibration_batches(IMAGES, 16)
            model, layers = ptq(fp32, images, RECIPE, target.quantization)
            path = tmp_path_factory.mktemp(target.name) / "model.onnx"
            onnx.save(model, path)
            made[target.name] = Quantized(path, onnx.load(path), layers, target)
        return made[target.name]

    return make


@pytest.fixture(params=TARGETS, ids=lambda target: target.name)
def qdq(request: pytest.FixtureRequest, quantized: Callable[[Target], Quantized]) -> Quantized:
    return quantized(request.param)


def run_ort(path: Path, images: NDArray[np.uint8], **settings: Any) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    for name, value in settings.items():
        setattr(options, name, value)
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def exactly(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the QDQ graph says: every operator on its own, between Q and DQ in float."""
    off = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return run_ort(path, images, graph_optimization_level=off)


def run_openvino(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(images)[0]


RUNS = {"onnxruntime": run_ort, "openvino": run_openvino}


# -- the graph ----------------------------------------------------------------------------------


def test_the_graph_is_valid_onnx_with_unique_names(qdq: Quantized) -> None:
    onnx.checker.check_model(qdq.path, full_check=True)
    nodes = [node.name for node in qdq.model.graph.node]
    tensors = [tensor.name for tensor in qdq.model.graph.initializer]
    assert len(nodes) == len(set(nodes)) and all(nodes)
    assert len(tensors) == len(set(tensors))


def test_its_weights_are_inside_the_file(qdq: Quantized) -> None:
    bare = onnx.load(qdq.path, load_external_data=False)
    assert all(t.data_location == TensorProto.DEFAULT for t in bare.graph.initializer)


def test_no_unused_tensor_is_left_in_the_file(qdq: Quantized) -> None:
    used = {name for node in qdq.model.graph.node for name in node.input}
    assert {tensor.name for tensor in qdq.model.graph.initializer} <= used


def test_quantization_is_symmetric(qdq: Quantized) -> None:
    constants = qdq.constants()
    for node in qdq.model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = constants[node.input[1]], constants[node.input[2]]
            assert (scale > 0).all() and np.isfinite(scale).all()
            allowed = {0} if zero.dtype == np.int8 else {0, 128}
            assert set(np.unique(zero).tolist()) <= allowed


def test_activations_have_one_scale_and_the_targets_type(qdq: Quantized) -> None:
    constants = qdq.constants()
    quantizers = [n for n in qdq.model.graph.node if n.op_type == "QuantizeLinear"]
    assert quantizers
    for node in quantizers:
        assert constants[node.input[1]].shape == ()
        kind = qdq.target.quantization.activations
        allowed = {"int8", "uint8"} if kind == "mixed" else {kind}
        assert str(constants[node.input[2]].dtype) in allowed


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("int8", {"n": ("int8", 0), "r": ("int8", 0), "centred": ("int8", 0)}),
        ("uint8", {"n": ("uint8", 128), "r": ("uint8", 0), "centred": ("uint8", 128)}),
        ("mixed", {"n": ("int8", 0), "r": ("uint8", 0), "centred": ("uint8", 128)}),
    ],
)
def test_activations_are_stored_by_their_sign_and_by_what_reads_them(
    tmp_path, kind, stored
) -> None:
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


def test_weights_have_one_scale_for_each_output_channel(qdq: Quantized) -> None:
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


def test_only_the_planned_operators_read_quantized_values(qdq: Quantized) -> None:
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


def test_biases_stay_float(qdq: Quantized) -> None:
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


def test_layers_that_share_an_input_share_its_quantizer(qdq: Quantized) -> None:
    inputs = [n.input[0] for n in qdq.model.graph.node if n.op_type == "QuantizeLinear"]
    assert len(inputs) == len(set(inputs))


def test_the_fp32_file_is_left_as_it_was(tmp_path, digits_graph, calibration_batches) -> None:
    for file in ("model.onnx", "model.onnx.data"):
        (tmp_path / file).write_bytes((digits_graph("dynamic").path.parent / file).read_bytes())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    images = calibration_batches(16, 16)
    ptq(tmp_path / "model.onnx", images, RECIPE, TARGETS[0].quantization)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    beside = {name: after.pop(name) for name in after.keys() - before.keys()}
    assert after == before
    assert beside.keys() == {"equalized-0.5.onnx", "equalized-0.5.onnx.data"}


def test_the_same_images_give_the_same_bytes(digits_graph, calibration_batches, quantized) -> None:
    target = TARGETS[0]
    fp32 = digits_graph("dynamic").path
    model, _ = ptq(fp32, calibration_batches(IMAGES, 16), RECIPE, target.quantization)
    assert model.SerializeToString() == quantized(target).model.SerializeToString()


# -- what the runtimes make of it ---------------------------------------------------------------


ORT_TARGETS = [target for target in TARGETS if target.runtime == "onnxruntime"]


def fused_and_float(qdq: Quantized, images: NDArray[np.uint8]) -> tuple[list[str], list[str]]:
    """The layers with weights that ONNX Runtime runs in INT8, and those it runs in float."""
    optimized = qdq.path.with_name("optimized.onnx")
    run_ort(qdq.path, images, optimized_model_filepath=str(optimized))
    graph = onnx.load(optimized).graph
    constant = {tensor.name for tensor in graph.initializer}
    constant |= {n.output[0] for n in graph.node if n.input and n.input[0] in constant}
    fused = [n.name for n in graph.node if "QLinear" in n.op_type or "ToFloat" in n.op_type]
    products = ("MatMul", "FusedMatMul", "Gemm", "FusedGemm")
    plain = [n.name for n in graph.node if n.op_type in products and n.input[1] in constant]
    return fused, plain


@pytest.mark.parametrize("target", ORT_TARGETS, ids=lambda target: target.name)
def test_onnx_runtime_computes_every_layer_of_every_block_in_int8(
    target, quantized, held_out
) -> None:
    fused, plain = fused_and_float(quantized(target), held_out.images[:2])
    assert len(fused) >= 16
    assert not [name for name in plain if name.startswith("blocks.")]


@pytest.mark.parametrize("target", ORT_TARGETS, ids=lambda target: target.name)
def test_what_the_manifest_calls_int8_is_int8_on_onnx_runtime(target, quantized, held_out) -> None:
    fused, plain = fused_and_float(quantized(target), held_out.images[:2])
    assert plain == [d.node for d in quantized(target).layers if d.op == "Gemm" and not d.quantized]
    assert len(fused) == len(quantized(target).planned())


@pytest.mark.parametrize("runtime", RUNS)
@pytest.mark.parametrize("target", PAIR_SAFE, ids=lambda target: target.name)
def test_a_runtime_computes_what_the_graph_says(
    target: Target,
    runtime: str,
    quantized: Callable[[Target], Quantized],
    held_out: Batch,
    sqnr_db: Callable[..., float],
) -> None:
    path, images = quantized(target).path, held_out.images[:256]
    assert sqnr_db(exactly(path, images), RUNS[runtime](path, images)) >= EXACT_DB


def hostile(folder: Path, black: float = 0) -> Path:
    """A linear layer that overflows 16-bit sums: bright images on large weights of one sign.

    It reads pixels less `black`.
    """
    weight = np.full((192, 8), 1.0, np.float32)
    weight[:, 1::2] = -1.0
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["pixels"], "cast", to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["pixels", "flat"], ["bright"], "bright"),
            helper.make_node("Sub", ["bright", "black"], ["rows"], "rows"),
            helper.make_node("MatMul", ["rows", "weight"], ["logits"], "linear"),
        ],
        "hostile",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1, 8])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.float32(black), "black"),
            numpy_helper.from_array(np.array([1, 1, 192], np.int64), "flat"),
        ],
    )
    opset = [helper.make_opsetid("", 20)]
    path = folder / "hostile.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


@pytest.mark.parametrize("runtime", RUNS)
@pytest.mark.parametrize("target", PAIR_SAFE, ids=lambda target: target.name)
@pytest.mark.parametrize("black", [0, 127.5], ids=["never negative", "signed"])
def test_the_worst_weights_and_the_brightest_image_do_not_saturate(
    tmp_path, black, target, runtime
) -> None:
    bright = np.full((1, 8, 8, 3), 255, np.uint8)
    images = [bright, np.zeros_like(bright)]
    model, _ = ptq(hostile(tmp_path, black), images, RECIPE, target.quantization)
    path = tmp_path / "qdq.onnx"
    onnx.save(model, path)
    expected = np.tile([(255.0 - black) * 192, (black - 255.0) * 192], 4)
    np.testing.assert_allclose(RUNS[runtime](path, bright).ravel(), expected, rtol=0.01)


def unshifted(folder: Path, norm_inputs: list[str]) -> Path:
    """LayerNorm without a shift, mean over tokens, linear layer: Swin's head without biases."""
    rng = np.random.default_rng(0)
    stored = {
        "tokens": np.array([1, 16, 12]),
        "gamma": rng.uniform(0.4, 2.4, 12).astype(np.float32),
        "beta": np.zeros(12, np.float32),
        "axis": np.array([1]),
        "weight": rng.standard_normal((12, 8)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["pixels"], "cast", to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["pixels", "tokens"], ["x"], "reshape"),
            helper.make_node("LayerNormalization", norm_inputs, ["n"], "norm"),
            helper.make_node("ReduceMean", ["n", "axis"], ["mean"], "mean", keepdims=0),
            helper.make_node("MatMul", ["mean", "weight"], ["logits"], "linear"),
        ],
        "unshifted",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 8])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    path = folder / "model.onnx"
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


@pytest.mark.parametrize("runtime", RUNS)
@pytest.mark.parametrize("inputs", [["x", "gamma", "beta"], ["x", "gamma"]], ids=["zero", "absent"])
def test_a_norm_without_a_shift_before_a_mean_is_computed_as_the_graph_says(
    tmp_path, inputs, runtime, sqnr_db
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (1, 8, 8, 3), np.uint8)
    target = catalog.targets()["openvino-cpu"].quantization
    model, _ = ptq(unshifted(tmp_path, inputs), [image], RECIPE, target)
    path = tmp_path / "qdq.onnx"
    onnx.save(model, path)
    assert sqnr_db(exactly(path, image), RUNS[runtime](path, image)) >= EXACT_DB


# -- what cannot be quantized -------------------------------------------------------------------


def test_a_model_without_weights_to_quantize_is_refused(tmp_path) -> None:
    model = onnx.load(hostile(tmp_path))
    model.graph.node[3].CopyFrom(helper.make_node("Identity", ["rows"], ["logits"], "none"))
    path = tmp_path / "empty.onnx"
    onnx.save(model, path)
    with pytest.raises(InputError, match="nothing in this model") as caught:
        ptq(path, [], RECIPE, TARGETS[0].quantization)
    assert "--fp32" in caught.value.fix


def test_an_activation_that_overflows_is_named(tmp_path) -> None:
    model = onnx.load(hostile(tmp_path))
    model.graph.node.insert(1, helper.make_node("Div", ["pixels", "zero"], ["broken"], "divide"))
    model.graph.node[2].input[0] = "broken"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
    path = tmp_path / "overflow.onnx"
    onnx.save(model, path)
    images = [np.ones((1, 8, 8, 3), np.uint8)]
    with pytest.raises(InputError, match="'rows', the output of rows, is NaN") as caught:
        ptq(path, images, RECIPE, TARGETS[0].quantization)
    assert caught.value.fix
