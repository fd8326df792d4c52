"""What OpenVINO computes wrongly of a graph as it is read."""

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
from onnx import parser

from vitedge.core import catalog
from vitedge.core.progress import SILENT
from vitedge.runtimes.openvino import OpenVINO

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
