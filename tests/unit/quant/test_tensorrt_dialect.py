"""The graph that TensorRT's targets get: strongly typed float16 around INT8, attention to fuse."""

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from tests.support.ptq import ptq
from vitedge.core import catalog
from vitedge.core.progress import SILENT
from vitedge.graph.half import halve
from vitedge.graph.prepare import prepare
from vitedge.graph.run import Runner

BLOCKS = 4
TENSORRT = [t for t in catalog.targets().values() if t.runtime.startswith("tensorrt")]
RECIPE = msgspec.structs.replace(catalog.calibrations()["default"], num_samples=32)


class Deployed:
    """`digits` in INT8 for TensorRT: FP32, with floats in float32, and as it is deployed."""

    def __init__(self, fp32, qdq, half, path):
        self.fp32, self.qdq, self.half, self.path = fp32, qdq, half, path
        self.model = onnx.load(path)
        graph = onnx.shape_inference.infer_shapes(self.model, strict_mode=True).graph
        self.types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
        self.types |= {tensor.name: tensor.data_type for tensor in graph.initializer}

    def nodes(self, *ops):
        return [node for node in self.model.graph.node if node.op_type in ops]


@pytest.fixture(scope="module", params=[1, "dynamic"], ids=["static", "dynamic"])
def made(request, tmp_path_factory, digits_graph, calibration_batches):
    folder = tmp_path_factory.mktemp("tensorrt")
    exported = digits_graph(request.param).path
    images = list(calibration_batches(32, 1))
    path = exported.with_name(f"tensorrt-{request.param}.onnx")
    prepare(exported, path, np.concatenate(images[: 2 if request.param == "dynamic" else 1]))
    model, _ = ptq(path, images, RECIPE, TENSORRT[0].quantization)
    qdq = folder / "qdq.onnx"
    onnx.save(model, qdq)
    (folder / "half").mkdir()
    half = halve(qdq, path, folder / "half", lambda: iter(images[:8]), 8, "images", SILENT)
    return Deployed(exported, qdq, half, folder / "half" / "model.onnx")


def outputs(path, images):
    run = Runner(path)
    return np.concatenate([run(image[None])[0] for image in images]).astype(np.float64)


def test_every_target_of_the_family_asks_for_the_same_graph():
    assert len(TENSORRT) == 6
    assert len({msgspec.json.encode(target.quantization) for target in TENSORRT}) == 1


def test_the_graph_is_valid_with_bytes_in_and_float32_out(made):
    onnx.checker.check_model(made.model, full_check=True)
    graph = made.model.graph
    names = [node.name for node in graph.node]
    assert len(names) == len(set(names)) and all(names)
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_products_of_linears_and_attention_are_int8_and_float16(made):
    makers = {name: node for node in made.model.graph.node for name in node.output}
    products = made.nodes("MatMul")
    assert len(products) == BLOCKS * (3 + 1 + 2 + 2)  # q, k, v; proj; fc1, fc2; both of attention
    for node in products:
        for name in node.input:
            assert makers[name].op_type == "DequantizeLinear"
            assert made.types[name] == TensorProto.FLOAT16


def test_scales_are_float16_and_zero_points_int8_zero(made):
    stored = {tensor.name: tensor for tensor in made.model.graph.initializer}
    for node in made.nodes("QuantizeLinear", "DequantizeLinear"):
        scale, zero = (stored[name] for name in node.input[1:])
        assert scale.data_type == TensorProto.FLOAT16
        assert (numpy_helper.to_array(scale) > 0).all()
        assert zero.data_type == TensorProto.INT8
        assert not numpy_helper.to_array(zero).any()


def test_the_rest_is_float16_and_quantized_nowhere(made):
    makers = {name: node for node in made.model.graph.node for name in node.output}
    for node in made.nodes("LayerNormalization", "Gelu", "Softmax", "Gemm"):
        assert made.types[node.input[0]] == TensorProto.FLOAT16, node.name
        maker = makers.get(node.input[0])
        assert maker is None or maker.op_type != "DequantizeLinear"
    assert made.half.kept == ()


def test_onnx_runtime_stays_close_to_fp32(made, held_out, sqnr_db):
    images, labels = held_out.images[::2], held_out.labels[::2]
    want, int8, deployed = (outputs(p, images) for p in (made.fp32, made.qdq, made.path))
    assert sqnr_db(want, deployed) >= 30.0
    assert sqnr_db(want, deployed) >= sqnr_db(want, int8) - 0.5
    right = [(logits.argmax(1) == labels).mean() for logits in (want, deployed)]
    assert right[0] - right[1] <= 0.003
