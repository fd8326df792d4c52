"""The harm of a layer is what quantizing it alone does to the output."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from tests.support import several_outputs
from tests.support.graphs import IMAGES, build
from vitedge.core import catalog
from vitedge.core.progress import SILENT
from vitedge.graph.run import Runner
from vitedge.quant.calibrate import calibrate
from vitedge.quant.parameters import Calibrated
from vitedge.quant.qdq import quantize
from vitedge.quant.quality import quality_db
from vitedge.quant.sensitivity import harm

FAST = msgspec.structs.replace(catalog.calibrations()["fast"], num_samples=32, equalize="off")


@dataclass(frozen=True)
class Quantized:
    calibrated: Calibrated
    int8: Path
    layers: list[str]

    def harm(self, images):
        return harm(self.calibrated.path, onnx.load(self.int8), self.layers, images, SILENT)

    def with_only(self, node):
        """The graph with that one layer quantized, built on its own."""
        others = {name: "" for name in self.layers if name != node}
        path = self.int8.with_name(f"{self.layers.index(node)}.onnx")
        onnx.save(quantize(self.calibrated, SILENT, others)[0], path)
        return path


def quantized(fp32, images, target, folder):
    dialect = catalog.targets()[target].quantization
    calibrated, _ = calibrate(fp32, iter(images), FAST, dialect, SILENT)
    model, decisions = quantize(calibrated, SILENT, {})
    path = folder / "int8.onnx"
    onnx.save(model, path)
    return Quantized(calibrated, path, [d.node for d in decisions if d.quantized])


def run_fused(path, images):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # the tests beside this one have the other cores
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


@pytest.mark.parametrize("target", ["openvino-cpu", "openvino-vnni", "onnxruntime-vnni"])
def test_harm_is_that_of_a_graph_with_one_layer_quantized(
    target, digits_graph, calibration_batches, tmp_path, sqnr_db
):
    """Linears, a convolution, a Gemm and attention products; saturating kernels, too."""
    images = calibration_batches(32, 4)
    graph = quantized(digits_graph("dynamic").path, images, target, tmp_path)
    harms = graph.harm(images[:2])
    assert list(harms) == graph.layers
    both = np.concatenate(images[:2])
    (want,) = Runner(graph.calibrated.path, as_written=True)(both)
    for node, ratio in harms.items():
        (got,) = Runner(graph.with_only(node), as_written=True)(both)
        assert -10 * np.log10(ratio) == pytest.approx(sqnr_db(want, got), abs=0.5), node


def test_the_ranking_is_that_of_measuring_every_layer_on_the_runtime(
    digits_graph, calibration_batches, held_out, tmp_path, sqnr_db
):
    """32 calibration images against every layer's own INT8 model on 120 others."""
    images = calibration_batches(32, 1)
    graph = quantized(digits_graph("dynamic").path, images, "onnxruntime-cpu", tmp_path)
    harms = graph.harm(images)
    others = held_out.images[:120]
    want = run_fused(graph.calibrated.path, others)
    exhaustive = [-sqnr_db(want, run_fused(graph.with_only(n), others)) for n in graph.layers]
    ranks = [np.argsort(np.argsort(v)) for v in (list(harms.values()), exhaustive)]
    spearman = float(np.corrcoef(*ranks)[0, 1])
    print(f"Spearman's ρ over {len(graph.layers)} layers: {spearman:.3f}")
    assert spearman > 0.8


def test_a_layer_with_outliers_is_the_most_harmful(digits_graph, calibration_batches, tmp_path):
    """One LayerNorm channel grown a thousandfold, and the weights that read it shrunk."""
    model = onnx.load(digits_graph("dynamic").path)
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
    harms = quantized(path, images, "openvino-cpu", tmp_path).harm(images[:4])
    assert max(harms, key=harms.__getitem__) == node.name
    assert harms[node.name] > 100 * sorted(harms.values())[-2]


def test_layers_that_share_their_weights_have_harms_of_their_own(tmp_path):
    """Two layers and a dead branch; beside the second's input lies a large constant."""
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.1, (12, 11)).astype(np.float32)
    shared[11] = 0
    body = """
        flat = Reshape(raw, flat_shape)
        early = MatMul(flat, shared)
        wide = Concat <axis = 1> (early, large)
        late = MatMul(wide, shared)
        dead = Sub(late, late)
        y = Identity(late)"""
    stored = {"shared": shared, "flat_shape": np.array([16, 12]), "large": np.full((16, 1), 1e5)}
    stored["large"] = stored["large"].astype(np.float32)
    path = build(tmp_path, body, **stored)
    graph = quantized(path, IMAGES, "onnxruntime-cpu", tmp_path)
    assert graph.layers == ["MatMul_early", "MatMul_late"]
    harms = graph.harm(IMAGES)
    assert harms["MatMul_late"] == pytest.approx(1, rel=0.1)
    assert harms["MatMul_early"] < 1e-3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["int8.onnx", "model.onnx"]


def test_queries_in_another_order_do_no_harm(tmp_path):
    """Where scores choose the order, a layer that turns near ties around costs what it loses."""
    (tmp_path / "model").mkdir()
    path = several_outputs.write(tmp_path / "model", "classes")
    random = np.random.default_rng(0)
    images = [random.normal(size=(1, 3, 32, 32)).astype(np.float32) for _ in range(8)]
    dialect = catalog.targets()["openvino-cpu"].quantization
    levels = []
    for orders in ((), ("best",)):
        calibrated, _ = calibrate(path, iter(images), FAST, dialect, SILENT, orders)
        model = quantize(calibrated, SILENT, {})[0]
        layers = [layer.node for layer in calibrated.layers if layer.quantized]
        harms = harm(calibrated.path, model, layers, images, SILENT, orders)
        levels.append((quality_db(calibrated), *(-ratio for ratio in harms.values())))
    by_place, matched = np.array(levels)
    assert (matched >= by_place - 1e-9).all() and matched[0] > by_place[0] + 5


def test_a_layer_that_harms_another_output_alone_is_seen_where_that_counts(tmp_path):
    (tmp_path / "model").mkdir()
    path = several_outputs.write(tmp_path / "model", "logits", "dense")
    random = np.random.default_rng(0)
    images = [random.normal(size=(1, 3, 32, 32)).astype(np.float32) for _ in range(4)]
    dialect = catalog.targets()["openvino-cpu"].quantization
    calibrated, _ = calibrate(path, iter(images), FAST, dialect, SILENT, ("", ""))
    model = quantize(calibrated, SILENT, {})[0]
    layers = [layer.node for layer in calibrated.layers if layer.quantized]
    main, both = (
        harm(calibrated.path, model, layers, images, SILENT, ("", ""), count) for count in (1, 2)
    )
    assert main["dense"] == 0 < both["dense"]
    assert all(both[name] >= main[name] for name in layers)
