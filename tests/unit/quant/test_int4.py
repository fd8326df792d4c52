"""Weights of 4 bits: INT4 where ONNX has it, the same values in 8 bits where it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
def models(digits_graph: Callable[..., Any], calibration_batches: Any) -> dict[int, Any]:
    made = {}
    path = digits_graph(1).path
    for opset in (20, 21):
        model = onnx.load(path)
        model.opset_import[0].version = opset
        fp32 = path.with_name(f"opset{opset}.onnx")
        onnx.save(model, fp32, save_as_external_data=True, location=f"{fp32.name}.data")
        made[opset], _ = ptq(fp32, calibration_batches(8, 1), RECIPE, TARGET)
    return made


def weights(model: Any) -> dict[str, Any]:
    found = (t for t in model.graph.initializer if t.name.endswith(".quantized"))
    return {tensor.name: tensor for tensor in found}


def test_no_weight_is_beyond_four_bits(models: dict[int, Any]) -> None:
    for tensor in weights(models[20]).values():
        integers = numpy_helper.to_array(tensor)
        assert tensor.data_type == TensorProto.INT8 and np.abs(integers).max() == 7


def test_from_opset_21_on_they_are_stored_in_four_bits(models: dict[int, Any]) -> None:
    for name, tensor in weights(models[21]).items():
        assert tensor.data_type == TensorProto.INT4
        same = numpy_helper.to_array(weights(models[20])[name])
        np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.int8), same)


def test_both_compute_the_same(models: dict[int, Any], calibration_batches, tmp_path: Path) -> None:
    outputs = []
    for opset, model in models.items():
        write(model, tmp_path / f"{opset}.onnx")
        run = Runner(tmp_path / f"{opset}.onnx", as_written=True)
        outputs.append(np.concatenate([run(image)[0] for image in calibration_batches(8, 1)]))
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=0, atol=1e-5)
