"""Each rule finds its trap in a graph made for it, says nothing of the sound one, and of ours."""

from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from tests.support import qdq
from tests.support.qdq import QDQ
from vitedge.core import catalog
from vitedge.core.bundle import open_bundle
from vitedge.core.runtime import runtimes
from vitedge.runtimes.lint import lint

ORT = catalog.targets()["onnxruntime-cpu"]
OPENVINO = catalog.targets()["openvino-cpu"]
VNNI = catalog.targets()["onnxruntime-vnni"]
ARM = catalog.targets()["onnxruntime-arm"]
WIDTH = 8


class Graph(QDQ):
    """As ONNX Runtime takes it: x (1, 4, 8), or an image for a Conv, -> … -> y in float32."""

    def __init__(self):
        super().__init__(np.float32)

    def activation(self, name, scale=0.05, zero=128, kind=np.uint8):
        return super().activation(name, scale, zero, kind)

    def weight(self, name, values, axis=1, scale=0.01, zero=0):
        return super().weight(name, values.astype(np.int8), axis, scale, zero)

    def model(self, output="y", batch=1, opset=20):
        image = any(len(tensor.dims) == 4 for tensor in self.tensors)
        sizes = (3, 8, 8) if image else (4, WIDTH)
        return super().model(batch, opset, sizes=sizes, output=output)


integers = partial(qdq.integers, top=60)
WEIGHT = integers(WIDTH, WIDTH)


def linear(graph, source, output="y", bias_rank=3, **weight):
    """A sound quantized Linear: MatMul and Add."""
    left = graph.activation(source)
    right = graph.weight(f"{output}.w", weight.pop("values", WEIGHT), 1, **weight)
    graph.add("MatMul", [left, right], f"{output}.m")
    shape = (1,) * (bias_rank - 1) + (WIDTH,)
    bias = graph.constant(f"{output}.b", np.ones(shape, np.float32))
    graph.add("Add", [f"{output}.m", bias], output)
    return graph


def sound(batch=1, opset=20, **changed):
    return linear(Graph(), "x", **changed).model("y", batch, opset)


old_opset = partial(sound, opset=21)
dynamic = partial(sound, batch="batch")
zero_scale = partial(sound, scale=0.0)
nan_scale = partial(sound, scale=np.nan)
full_range = partial(sound, values=np.full((WIDTH, WIDTH), 127))
flat_bias = partial(sound, bias_rank=1)
shifted_weight = partial(sound, zero=-2)


def gemm(values=WEIGHT):
    graph = Graph()
    shape = graph.constant("shape", np.array([4, WIDTH], np.int64))
    graph.add("Reshape", ["x", shape], "flat")
    left, right = graph.activation("flat"), graph.weight("w", values, 0)
    bias = graph.constant("b", np.ones(WIDTH, np.float32))
    graph.add("Gemm", [left, right, bias], "y", transB=1)
    return graph.model()


def full_range_gemm():
    values = WEIGHT.copy()
    values[:, 2:4] = -100  # two neighbours along K, of one sign
    return gemm(values)


def conv_graph(values):
    graph = Graph()
    graph.add("Conv", [graph.activation("x"), graph.weight("w", values, 0)], "y")
    return graph


def conv():
    return conv_graph(integers(6, 3, 2, 2)).model()


def full_range_conv():
    values = integers(6, 3, 2, 2)
    values[0, 0, 0, 0] = values[0, 2, 1, 1] = 80  # far apart, but a kernel may pair them
    return conv_graph(values).model()


def conv_between_quantizers():
    graph = conv_graph(integers(6, 3, 2, 2))
    return graph.model(graph.activation("y"))


def residual():
    graph = linear(Graph(), "x", "h")
    graph.add("Add", [graph.activation("h"), "x"], "y")
    return graph.model()


def quantized(op, *constants):
    """An operator of the float rest reads what is quantized."""
    graph = linear(Graph(), "x", "h")
    ones = [graph.constant(name, np.ones(WIDTH, np.float32)) for name in constants]
    graph.add(op, [graph.activation("h"), *ones], "y")
    return graph.model()


def only_weights():
    graph = Graph()
    graph.add("MatMul", ["x", graph.weight("w", WEIGHT, 1)], "y")
    return graph.model()


def only_activation():
    graph = Graph()
    weight = graph.constant("w", np.ones((WIDTH, WIDTH), np.float32))
    graph.add("MatMul", [graph.activation("x"), weight], "y")
    return graph.model()


def product_of(**activation):
    graph = Graph()
    graph.add("MatMul", [graph.activation("x", **activation), graph.weight("w", WEIGHT, 1)], "y")
    return graph.model()


quantized_norm = partial(quantized, "LayerNormalization", "g")
channel_activation = partial(product_of, scale=np.linspace(0.1, 1, WIDTH))
shifted_activation = partial(product_of, zero=3, kind=np.int8)


def decomposed_norm():
    graph = Graph()
    last = graph.constant("last", np.array([-1], np.int64))
    two = graph.constant("two", np.float32(2))
    epsilon = graph.constant("e", np.float32(1e-6))
    graph.add("ReduceMean", ["x", last], "mean")
    graph.add("Sub", ["x", "mean"], "centred")
    graph.add("Pow", ["centred", two], "squared")
    graph.add("ReduceMean", ["squared", last], "variance")
    graph.add("Add", ["variance", epsilon], "safe")
    graph.add("Sqrt", ["safe"], "deviation")
    graph.add("Div", ["centred", "deviation"], "y")
    return graph.model()


def decomposed_gelu():
    graph = Graph()
    graph.add("Div", ["x", graph.constant("r", np.float32(1.414))], "d")
    graph.add("Erf", ["d"], "e")
    graph.add("Add", ["e", graph.constant("one", np.float32(1))], "p")
    graph.add("Mul", ["x", "p"], "y")
    return graph.model()


def dead_channel():
    values = WEIGHT.copy()
    values[:, 3] = 0
    return linear(Graph(), "x", values=values).model()


TRAPS = [
    ("opset-range", old_opset, ORT, ""),
    ("bad-scale", zero_scale, ORT, "y.w.dq/DequantizeLinear"),
    ("bad-scale", nan_scale, OPENVINO, "y.w.dq/DequantizeLinear"),
    ("saturation", full_range, ORT, "y.m/MatMul"),
    ("saturation", full_range_gemm, OPENVINO, "y/Gemm"),
    ("saturation", full_range_conv, OPENVINO, "y/Conv"),
    ("residual-quantized", residual, ORT, "y/Add"),
    ("residual-quantized", quantized_norm, OPENVINO, "y/LayerNormalization"),
    ("residual-quantized", partial(quantized, "Softmax"), ORT, "y/Softmax"),
    ("no-int8-kernel", gemm, ORT, "y/Gemm"),
    ("no-int8-kernel", conv, ORT, "y/Conv"),
    ("bias-rank-1", flat_bias, ORT, "y.m/MatMul"),
    ("one-operand", only_weights, ORT, "y/MatMul"),
    ("one-operand", only_activation, OPENVINO, "y/MatMul"),
    ("per-channel-activation", channel_activation, ORT, "x.q/QuantizeLinear"),
    ("asymmetric", shifted_activation, ARM, "x.q/QuantizeLinear"),
    ("asymmetric", shifted_weight, ORT, "y.w.dq/DequantizeLinear"),
    ("decomposed-layernorm", decomposed_norm, ORT, "deviation/Sqrt"),
    ("decomposed-gelu", decomposed_gelu, OPENVINO, "e/Erf"),
    ("dynamic-batch", dynamic, ORT, ""),
    ("dead-channel", dead_channel, ORT, "y.m/MatMul"),
]


@pytest.mark.parametrize(("rule", "make", "target", "node"), TRAPS)
def test_a_trap_is_found_named_and_comes_with_a_way_out(rule, make, target, node):
    (finding,) = lint(make(), target)
    assert (finding.rule, finding.node) == (rule, node)
    assert finding.what and finding.fix
    assert finding.consequence in ("rejected", "INT8 lost", "other numbers", "slower")


def test_every_rule_has_a_trap():
    assert {rule for rule, *_ in TRAPS} == {rule.id for rule in runtimes()["onnxruntime"].rules()}


@pytest.mark.parametrize(
    ("runtime", "page"), [("onnxruntime", "inspect.md"), ("tensorrt", "tensorrt.md")]
)
def test_the_manual_lists_every_rule_and_what_it_costs(runtime, page):
    lines = (Path(__file__).parents[3] / "docs" / page).read_text(encoding="utf-8").splitlines()
    for rule in runtimes()[runtime].rules():
        marks = f"`{rule.id}`", f"| {rule.consequence} |"
        assert any(all(mark in line for mark in marks) for line in lines)


@pytest.mark.parametrize(
    ("make", "target"),
    [
        (sound, ORT),
        (sound, OPENVINO),
        (sound, ARM),
        (full_range, VNNI),  # nothing saturates there
        (gemm, OPENVINO),  # has the kernels
        (conv, OPENVINO),
        (conv_between_quantizers, ORT),  # QLinearConv
        (flat_bias, OPENVINO),  # does not merge them
        (dynamic, msgspec.structs.replace(ORT, batch="dynamic")),
        (old_opset, msgspec.structs.replace(ORT, opset_max=21)),
    ],
)
def test_what_is_sound_for_a_target_is_not_mentioned(make, target):
    assert lint(make(), target) == ()


def test_a_weight_that_is_transposed_on_its_way_is_read_as_the_operator_reads_it():
    values = integers(WIDTH, WIDTH)
    values[4, 2:4] = 100  # (N, K): neighbours along K once it is transposed
    graph = Graph()
    graph.add("Transpose", [graph.weight("w", values, 0)], "t", perm=[1, 0])
    graph.add("MatMul", [graph.activation("x"), "t"], "y")
    assert [finding.rule for finding in lint(graph.model(), ORT)] == ["saturation"]


def test_scales_may_be_constant_nodes():
    model = sound()
    for tensor in list(model.graph.initializer):
        node = helper.make_node("Constant", [], [tensor.name], value=tensor)
        model.graph.node.insert(0, node)
    del model.graph.initializer[:]
    assert lint(model, ORT) == ()


def test_onnxruntime_does_lose_int8_to_a_bias_of_rank_1(tmp_path):
    def operators(make):
        options = ort.SessionOptions()
        path = tmp_path / "lowered.onnx"
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        model = make().SerializeToString()
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return {node.op_type for node in onnx.load(path).graph.node}

    assert operators(sound) & {"MatMulIntegerToFloat", "QLinearMatMul", "DynamicQuantizeMatMul"}
    assert not operators(flat_bias) & {"MatMulIntegerToFloat", "QLinearMatMul"}


def test_our_own_exports_have_no_traps(bundles):
    for precision in ("fp32", "int8"):
        path = bundles["onnxruntime", precision]
        model, target = onnx.load(path / "model.onnx"), open_bundle(path).manifest.target
        assert lint(model, target) == ()
    for runtime in ("onnxruntime", "openvino"):
        record = open_bundle(bundles[runtime, "int8"]).manifest.quantization
        assert record is not None and record.lint == ()
