"""What OpenVINO computes wrongly of a graph as it is read."""

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
from onnx import parser

from tests.support.ptq import ptq
from vitedge.core import catalog
from vitedge.core.progress import SILENT
from vitedge.runtimes.openvino import OpenVINO, attention

TURN = "Transpose <perm = [0, 2, 1, 3]>"


@pytest.mark.parametrize(
    ("query", "output"),
    [(TURN, "Identity"), ("Identity", TURN), (TURN, TURN)],
    ids=["query turned", "output turned", "both turned"],
)
def test_attention_of_as_many_heads_as_tokens_is_right(tmp_path, query, output):
    graph = parser.parse_graph(f"""
        g (float[1, 4, 4, 32] x) => (float[1, 4, 4, 32] y) {{
            sine = Sin(x)
            q = {query} (sine)
            k = Cos(x)
            kt = Transpose <perm = [0, 1, 3, 2]> (k)
            v = Neg(x)
            scores = MatMul(q, kt)
            probabilities = Softmax(scores)
            context = MatMul(probabilities, v)
            y = {output} (context)
        }}
    """)
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "model.onnx"
    )
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 32)).astype(np.float32)
    (want,) = ort.InferenceSession(tmp_path / "model.onnx").run(None, {"x": x})
    target = catalog.targets()["openvino-cpu"]
    OpenVINO().lower(tmp_path / "model.onnx", target, tmp_path, SILENT)
    got = ov.compile_model(tmp_path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_integers_are_moved_and_not_the_floats_that_are_rounded_to_them(
    tmp_path, digits_graph, calibration_batches
):
    path = digits_graph(1).path
    dialect = catalog.targets()["openvino-vnni"].quantization
    batches = calibration_batches(4, 1)
    onnx.save(ptq(path, batches, catalog.calibrations()["fast"], dialect)[0], tmp_path / "q.onnx")
    plain, edited = (ov.Core().read_model(tmp_path / "q.onnx") for _ in range(2))
    attention.fit(edited, ov)
    assert sum(map(moves_before_rounding, plain.get_ops())) > 0
    assert not any(map(moves_before_rounding, edited.get_ops()))
    assert all(k_as_it_lies(node) for node in edited.get_ops() if node.get_type_name() == "MatMul")
    want, got = (
        ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(batches[0])[0]
        for model in (plain, edited)
    )
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def moves_before_rounding(node):
    """Whether a quantizer rounds what was floats moved about, for it alone."""
    if node.get_type_name() != "FakeQuantize":
        return False
    source = node.input_value(0)
    alone = len(source.get_target_inputs()) == 1
    return alone and source.get_node().get_type_name() in attention.MOVES


def k_as_it_lies(product):
    """Whether no Transpose of its last two axes is before the right side of `product`."""
    turned = product.input_value(1).get_node()
    if turned.get_type_name() != "Transpose":
        return True
    order = turned.input_value(1).get_node().data.tolist()
    return order[-2] < order[-1]
