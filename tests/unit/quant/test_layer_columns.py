"""Rows times columns are what the layer computes, whatever its kernel."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from vitedge.quant.columns import Columns

FLOAT = onnx.TensorProto.FLOAT
LAYERS = {
    "MatMul": ("MatMul", (2, 5, 12), (12, 7), {}),
    "Gemm": ("Gemm", (6, 12), (12, 7), {}),
    "Gemm, transposed": ("Gemm", (6, 12), (7, 12), {"transB": 1}),
    "Conv": ("Conv", (2, 4, 9, 8), (6, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
    "strided": ("Conv", (1, 3, 16, 16), (8, 3, 4, 4), {"strides": [4, 4]}),
    "dilated, one margin": (
        "Conv",
        (1, 4, 9, 9),
        (6, 4, 3, 2),
        {"dilations": [2, 3], "pads": [0, 1, 2, 0]},
    ),
    "grouped": ("Conv", (1, 6, 7, 7), (4, 3, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "depthwise": ("Conv", (2, 6, 7, 7), (6, 1, 3, 3), {"group": 6, "strides": [2, 2]}),
    "along a line": ("Conv", (2, 4, 15), (6, 4, 3), {"strides": [2], "pads": [1, 1]}),
}


def layer(op, read, weight, settings):
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in (read, weight))
    node = helper.make_node(op, ["x", "w"], ["y"], "layer", **settings)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, read)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [onnx.numpy_helper.from_array(w, "w")],
    )
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return node, x, w, session.run(None, {"x": x})[0]


@pytest.mark.parametrize("kind", LAYERS.values(), ids=LAYERS)
def test_rows_times_columns_are_what_the_layer_gives(kind):
    node, x, weight, want = layer(*kind)
    columns = Columns.of(node, weight.shape)
    rows, total = columns.rows(node, x, 10**6, np.random.default_rng(0))
    assert rows.shape == (columns.groups, total, columns.inputs)
    got = np.moveaxis(rows @ columns.split(weight), 0, 1).reshape(total, -1)
    channels_last = np.moveaxis(want, 1, -1) if node.op_type == "Conv" else want
    np.testing.assert_allclose(got, channels_last.reshape(total, -1), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(columns.join(columns.split(weight)), weight)


@pytest.mark.parametrize("kind", LAYERS.values(), ids=LAYERS)
def test_some_rows_are_rows_of_all(kind):
    node, x, weight, _ = layer(*kind)
    columns = Columns.of(node, weight.shape)
    every, total = columns.rows(node, x, 10**6, np.random.default_rng(0))
    some, of = columns.rows(node, x, 3, np.random.default_rng(1))
    assert (some.shape[1], of) == (3, total)
    known = {row.tobytes() for row in np.moveaxis(every, 0, 1)}
    assert len({row.tobytes() for row in np.moveaxis(some, 0, 1)} & known) == 3


@pytest.mark.parametrize(
    "settings", [{"auto_pad": "SAME_UPPER"}, {"transA": 1}, {"alpha": 0.5}], ids=str
)
def test_rows_that_are_not_known_are_not_guessed(settings):
    node = helper.make_node("Gemm", ["x", "w"], ["y"], **settings)
    assert Columns.of(node, (12, 7)) is None
