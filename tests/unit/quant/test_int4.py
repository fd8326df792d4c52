"""Weights of 4 bits: INT4 where ONNX has it, the same values in 8 bits where it does not."""

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from tests.support.ptq import ptq
from vitedge.core import catalog
from vitedge.graph.io import write
from vitedge.graph.run import Runner

RECIPE = msgspec.structs.replace(catalog.find_calibration("default"), weight_bits=4)
TARGET = catalog.targets()["onnxruntime-cpu"].quantization


@pytest.fixture(scope="module")
def models(digits_graph, calibration_batches):
    models = {}
    path = digits_graph(1).path
    for opset in (20, 21):
        model = onnx.load(path)
        model.opset_import[0].version = opset
        fp32 = path.with_name(f"opset{opset}.onnx")
        onnx.save(model, fp32, save_as_external_data=True, location=f"{fp32.name}.data")
        models[opset], _ = ptq(fp32, calibration_batches(8, 1), RECIPE, TARGET)
    return models


def multiplied(graph):
    """Weights of INT8 products; what is only stored in INT8 has eight bits."""
    return {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}


def test_no_weight_is_beyond_four_bits_and_from_opset_21_on_they_are_stored_in_them(models):
    eight, four = (
        {tensor.name: tensor for tensor in graph.initializer if tensor.name in multiplied(graph)}
        for graph in (models[20].graph, models[21].graph)
    )
    assert eight.keys() == four.keys()
    for name, tensor in eight.items():
        integers = numpy_helper.to_array(tensor)
        assert tensor.data_type == TensorProto.INT8 and np.abs(integers).max() == 7
        assert four[name].data_type == TensorProto.INT4
        narrow = numpy_helper.to_array(four[name]).astype(np.int8)
        np.testing.assert_array_equal(narrow, integers)


def test_both_compute_the_same(models, calibration_batches, tmp_path):
    outputs = []
    for opset, model in models.items():
        write(model, tmp_path / f"{opset}.onnx")
        run = Runner(tmp_path / f"{opset}.onnx", as_written=True)
        outputs.append(np.concatenate([run(image)[0] for image in calibration_batches(8, 1)]))
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=0, atol=1e-5)
