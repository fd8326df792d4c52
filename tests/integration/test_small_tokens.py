"""A token of 100 times the norm takes one scale for itself: what reads it does so in two parts."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.helper import make_tensor_value_info

import vitedge as ve
from tests.support.graphs import IMAGES, TOKENS, WIDTH, build
from tests.support.machine import TARGETS, target_of
from vitedge.core.spec import Preprocess
from vitedge.runtimes import open_session

BODY = "tokens_of_all = Add(x, one_token)\n p = MatMul(tokens_of_all, w_plain)\n y = Add(p, b)"
PIXELS = Preprocess(height=8, width=8)


@pytest.fixture(scope="module", params=TARGETS)
def made(request, tmp_path_factory):
    """INT8 of a Linear that reads the residual stream as it is, one token far larger."""
    target, folder = target_of(request.param), tmp_path_factory.mktemp("small")
    one_token = np.zeros((1, TOKENS, WIDTH), np.float32)
    one_token[0, 5] = 200 * np.random.default_rng(1).standard_normal(WIDTH)
    path = build(folder, BODY, one_token=one_token)
    graph = onnx.load(path)
    shape = (1, TOKENS, WIDTH)
    graph.graph.output[0].CopyFrom(make_tensor_value_info("y", TensorProto.FLOAT, shape))
    onnx.save(graph, path)
    model = ve.load(str(path), task="dense", preprocess=PIXELS)
    images = np.concatenate(IMAGES * 4)
    return ve.export(
        model,
        targets=[target],
        precision="int8",
        only=True,
        calib_data=images,
        duration_s=0,
        output=folder / "out",
    )


def test_the_smallest_token_keeps_20_db_in_int8(made):
    int8 = made[-1]
    (layer,) = int8.bundle.manifest.quantization.layers
    assert layer.quantized and "in two parts" in layer.why
    assert layer.figures.token_sqnr_db > 35
    assert int8.report.numerics.worst_token_db > 20


def test_both_products_are_in_int8(made):
    int8 = made[-1].bundle
    if int8.manifest.target.runtime == "onnxruntime":
        graph = onnx.load(int8.path / "model.onnxruntime.onnx").graph
        kinds = [node.op_type for node in graph.node]
        assert kinds.count("MatMulIntegerToFloat") == 2 and "MatMul" not in kinds
    with open_session(int8) as session:
        assert session.outputs[0].shape == (1, TOKENS, WIDTH)
