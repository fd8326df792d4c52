"""Layers whose INT8 ruins the output stay in float, and no more of them than that takes."""

from dataclasses import replace

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.support.graphs import IMAGES, PAIRS, build
from vitedge.core import catalog
from vitedge.core.progress import SILENT
from vitedge.quant.calibrate import calibrate
from vitedge.quant.quality import LEAST_DB, quality_db
from vitedge.quant.spare import spare_layers, spare_values

FAST = msgspec.structs.replace(catalog.calibrations()["fast"], num_samples=4, equalize="off")


def calibrated(path, images, target, **recipe):
    recipe = msgspec.structs.replace(FAST, **recipe)
    dialect = catalog.targets()[target].quantization
    return calibrate(path, iter(images), recipe, dialect, SILENT)[0]


def with_outliers(fp32, folder, nodes):
    """An equal model whose weights at `nodes` span five decades, so that no INT8 takes them."""
    model = onnx.load(fp32)
    norms = {name: n for n in model.graph.node for name in n.output}
    tensors = {t.name: t for t in model.graph.initializer}
    for node in (n for n in model.graph.node if n.name in nodes):
        norm = norms[node.input[0]]
        assert norm.op_type == "LayerNormalization"
        for name, factor in ((norm.input[1], 1e4), (norm.input[2], 1e4), (node.input[1], 1e-4)):
            values = numpy_helper.to_array(tensors[name]).copy()
            values[5] *= factor
            tensors[name].CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights")
    return folder / "model.onnx"


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu"])
def test_the_fewest_layers_stay_in_float(target, digits_graph, calibration_batches, tmp_path):
    nodes = [f"blocks.{block}.mlp.fc1/MatMul" for block in (0, 2)]
    path = with_outliers(digits_graph(1).path, tmp_path, nodes)
    whole = calibrated(path, calibration_batches(4, 1), target)
    assert quality_db(whole) < LEAST_DB

    spared = spare_layers(whole, SILENT)

    kept = {layer.node: layer.why for layer in spared.layers}
    before = {layer.node for layer in whole.layers if layer.quantized or layer.stored}
    after = {layer.node for layer in spared.layers if layer.quantized or layer.stored}
    assert before - after == set(nodes) == {layer.node for layer in spared.spared.kept}
    assert all("kept in float" in kept[node] and "dB" in kept[node] for node in nodes)
    assert spared.spared.sqnr_db == pytest.approx(quality_db(spared), abs=0.1)
    assert spared.spared.full_sqnr_db < LEAST_DB < spared.spared.sqnr_db


def test_what_leaves_enough_is_as_it_was(digits_graph, calibration_batches):
    whole = calibrated(digits_graph(1).path, calibration_batches(4, 1), "openvino-cpu")
    assert spare_layers(whole, SILENT) is whole
    assert whole.spared is None


def test_where_all_would_have_to_stay_float_it_is_int8_as_before(tmp_path):
    """Weights of one layer, which alone are INT8: a second artifact in float would be no gain."""
    path = build(tmp_path, PAIRS["Conv, ReLU, Conv"][0])
    whole = calibrated(path, IMAGES, "onnxruntime-cpu")
    assert quality_db(whole) < LEAST_DB
    spared = spare_layers(whole, SILENT)
    assert np.isfinite(quality_db(spared))


def test_values_stay_float_where_their_int8_costs_more_than_the_target_lets(
    digits_graph, calibration_batches
):
    """A digit has few tokens: what rounding their probabilities costs is not averaged away."""
    dialect = catalog.targets()["openvino-vnni"].quantization
    path, batches = digits_graph(1).path, calibration_batches(8, 1)
    whole, _ = calibrate(path, iter(batches), FAST, dialect, SILENT)
    spared = spare_values(whole)
    products = [layer for layer in spared.layers if layer.role == "pv"]
    assert products
    assert not any(layer.quantized for layer in products)
    assert all("costs the model's output" in layer.why for layer in products)
    assert all(x.quantized for x in spared.layers if x.role == "qk")
    assert quality_db(spared) > quality_db(whole) + dialect.pv_within_db
    generous = msgspec.structs.replace(dialect, pv_within_db=20.0)
    assert all(x.quantized for x in spare_values(replace(whole, target=generous)).layers)
