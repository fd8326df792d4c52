"""The harm of a layer is what quantizing it alone does to the output."""

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
from onnx import TensorProto, helper, numpy_helper

from vitedge.core import catalog
from vitedge.data.imageset import Batch
from vitedge.quant.calibrate import calibrate
from vitedge.quant.parameters import Calibrated
from vitedge.quant.qdq import quantize
from vitedge.quant.sensitivity import harm

FAST = msgspec.structs.replace(catalog.calibrations()["fast"], num_samples=32, equalize="off")
Images = NDArray[np.uint8]
SQNR = Callable[[NDArray[Any], NDArray[Any]], float]


def silent(*step: object) -> None:
    """Shows no progress."""


@dataclass(frozen=True)
class Made:
    calibrated: Calibrated
    int8: Path
    layers: list[str]

    def alone(self, node: str) -> Path:
        """The graph with that one layer quantized, built on its own."""
        others = {name: "" for name in self.layers if name != node}
        path = self.int8.with_name(f"{self.layers.index(node)}.onnx")
        onnx.save(quantize(self.calibrated, silent, others)[0], path)
        return path


def make(fp32: Path, images: list[Images], target: str, folder: Path) -> Made:
    dialect = catalog.targets()[target].quantization
    calibrated, _ = calibrate(fp32, iter(images), FAST, dialect, silent)
    model, decisions = quantize(calibrated, silent, {})
    path = folder / "int8.onnx"
    onnx.save(model, path)
    return Made(calibrated, path, [d.node for d in decisions if d.quantized])


def run(path: Path, images: Images, level: str = "ORT_DISABLE_ALL") -> NDArray[np.float32]:
    """The output; by default every operator on its own, between Q and DQ in float."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


@pytest.mark.parametrize("target", ["openvino-cpu", "openvino-vnni", "onnxruntime-vnni"])
def test_harm_is_that_of_a_graph_with_one_layer_quantized(
    target: str,
    digits_graph: Callable[..., Any],
    calibration_batches: Callable[..., list[Images]],
    tmp_path: Path,
    sqnr_db: SQNR,
) -> None:
    """Linears, a convolution, a Gemm and attention products; saturating kernels, too."""
    images = calibration_batches(32, 8)
    fp32 = digits_graph("dynamic").path
    made = make(fp32, images, target, tmp_path)
    found = harm(made.calibrated.path, made.int8, made.layers, images[:2], silent)
    assert list(found) == made.layers
    both = np.concatenate(images[:2])
    wanted = run(made.calibrated.path, both)
    for node, ratio in found.items():
        alone = sqnr_db(wanted, run(made.alone(node), both))
        assert -10 * np.log10(ratio) == pytest.approx(alone, abs=0.5), node


def test_the_ranking_is_that_of_measuring_every_layer_on_the_runtime(
    digits_graph: Callable[..., Any],
    calibration_batches: Callable[..., list[Images]],
    held_out: Batch,
    tmp_path: Path,
    sqnr_db: SQNR,
) -> None:
    """Eight calibration images against every layer's own INT8 model on 240 others."""
    images = calibration_batches(32, 1)
    made = make(digits_graph("dynamic").path, images, "onnxruntime-cpu", tmp_path)
    found = harm(made.calibrated.path, made.int8, made.layers, images[:8], silent)
    others = held_out.images[:240]
    wanted = run(made.calibrated.path, others, "ORT_ENABLE_ALL")
    exhaustive = [
        -sqnr_db(wanted, run(made.alone(n), others, "ORT_ENABLE_ALL")) for n in made.layers
    ]
    ranks = [np.argsort(np.argsort(v)) for v in (list(found.values()), exhaustive)]
    spearman = float(np.corrcoef(*ranks)[0, 1])
    print(f"Spearman's ρ over {len(made.layers)} layers: {spearman:.3f}")
    assert spearman > 0.8


def test_a_layer_with_outliers_is_the_most_harmful(
    digits_graph: Callable[..., Any],
    calibration_batches: Callable[..., list[Images]],
    tmp_path: Path,
) -> None:
    """One LayerNorm channel grown a thousandfold, and the weights that read it shrunk."""
    fp32 = digits_graph("dynamic").path
    model = onnx.load(fp32)
    node = next(n for n in model.graph.node if n.name == "blocks.2.mlp.fc1/MatMul")
    norm = next(n for n in model.graph.node if node.input[0] in n.output)
    assert norm.op_type == "LayerNormalization"
    tensors = {t.name: t for t in model.graph.initializer}
    for name, factor in ((norm.input[1], 1e3), (norm.input[2], 1e3), (node.input[1], 1e-3)):
        values = numpy_helper.to_array(tensors[name]).copy()
        values[5] *= factor
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data")
    images = calibration_batches(32, 1)
    made = make(path, images, "openvino-cpu", tmp_path)
    found = harm(made.calibrated.path, made.int8, made.layers, images[:4], silent)
    assert max(found, key=found.__getitem__) == node.name
    assert found[node.name] > 100 * sorted(found.values())[-2]


def test_layers_that_share_their_weights_have_harms_of_their_own(tmp_path: Path) -> None:
    """Two layers and a dead branch; beside the second's input lies a large constant."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], "Cast", to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["float", "shape"], ["flat"], "Reshape"),
        helper.make_node("MatMul", ["flat", "weight"], ["one"], "first"),
        helper.make_node("Concat", ["one", "large"], ["wide"], "Concat", axis=1),
        helper.make_node("MatMul", ["wide", "weight"], ["two"], "second"),
        helper.make_node("Sub", ["two", "two"], ["dead"], "dead"),
        helper.make_node("Identity", ["two"], ["logits"], "Identity"),
    ]
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.1, (12, 11)).astype(np.float32)
    weight[11] = 0
    constants = {"shape": np.array([-1, 12]), "weight": weight, "large": np.full((1, 1), 1e5)}
    graph = helper.make_graph(
        nodes,
        "shared",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 2, 2, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 11])],
        [
            numpy_helper.from_array(v.astype(np.float32) if v.dtype == float else v, name)
            for name, v in constants.items()
        ],
    )
    path = tmp_path / "model.onnx"
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    images = [rng.integers(0, 256, (1, 2, 2, 3), np.uint8) for _ in range(8)]
    made = make(path, images, "onnxruntime-cpu", tmp_path)
    assert made.layers == ["first", "second"]
    found = harm(made.calibrated.path, made.int8, made.layers, images, silent)
    assert found["second"] == pytest.approx(1, rel=0.1)
    assert found["first"] < 1e-3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["int8.onnx", "model.onnx"]
