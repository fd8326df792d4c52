"""Weights rounded by what layers read: less is lost, of a ViT and of convolutions."""

from functools import partial

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.support.graphs import IMAGES, PAIRS, build
from vitedge.core import catalog
from vitedge.core.progress import SILENT, Steps
from vitedge.graph.external import with_constants
from vitedge.graph.run import Runner
from vitedge.quant import adapt as adapting
from vitedge.quant.adapt import adapt
from vitedge.quant.calibrate import calibrate
from vitedge.quant.qdq import quantize, weight_integers
from vitedge.quant.quality import quality_db

RECIPE = msgspec.structs.replace(
    catalog.calibrations()["default"], num_samples=32, rounding="adaptive"
)
BOTH = msgspec.structs.replace(RECIPE, bias_correction=True)


def calibrated(path, batches, recipe=RECIPE, target="onnxruntime-cpu"):
    dialect = catalog.targets()[target].quantization
    return calibrate(path, iter(batches), recipe, dialect, SILENT)[0]


def adapted(plain, batches, recipe=RECIPE, steps=SILENT):
    recipe = msgspec.structs.replace(recipe, num_samples=sum(map(len, batches)))
    return adapt(plain, recipe, partial(iter, batches), steps)


@pytest.fixture(scope="module")
def batches(calibration_batches):
    return calibration_batches(32, 1)


@pytest.fixture(scope="module")
def digits(digits_graph, batches):
    """The embedded model as PTQ leaves it, in 8 bits and in 4, and with adaptive rounding."""
    four = msgspec.structs.replace(RECIPE, weight_bits=4)
    made = {}
    for name, recipe in (("8 bits", RECIPE), ("4 bits", four)):
        plain = calibrated(digits_graph(1).path, batches, recipe)
        made[name] = plain, adapted(plain, batches, recipe)
    return made


def output(path, images):
    run = Runner(path, as_written=True)
    return np.concatenate([run(image[None])[0] for image in images])


def of_weights_alone(used, path, folder):
    """The FP32 graph at `path` with the weights that `used` has, its activations in float."""
    stored = {t.name: t for t in onnx.load(used.path).graph.initializer}
    placed = adapting.place(
        onnx.load(used.path).graph, used, {layer.node: layer for layer in used.layers}
    )
    changed = {}
    for name, weight in placed.weights.items():
        value = numpy_helper.to_array(stored[name]).astype(np.float32)
        integers, scales = weight_integers(used, name, weight, value)
        channels = [-1 if axis == weight.axis else 1 for axis in range(value.ndim)]
        changed[name] = integers.astype(np.float32) * scales.reshape(channels)
    rounded = used.path.with_name("weights-alone.onnx")  # beside its external data
    with_constants(used.path, changed, rounded)
    return rounded


@pytest.mark.parametrize(("bits", "gain_db"), [("8 bits", 6), ("4 bits", 6)])
def test_the_error_of_weights_alone_is_less_on_images_not_seen(
    digits, digits_graph, held_out, tmp_path, sqnr_db, bits, gain_db
):
    images = held_out.images[:64]
    want = output(digits_graph(1).path, images)
    plain, better = (
        sqnr_db(want, output(of_weights_alone(used, digits_graph(1).path, tmp_path), images))
        for used in digits[bits]
    )
    assert better > plain + gain_db


def test_int8_as_a_whole_is_no_worse_and_four_bits_much_better(
    digits, digits_graph, held_out, tmp_path, sqnr_db
):
    images = held_out.images[:128]
    want = output(digits_graph(1).path, images)
    levels = {}
    for bits, pair in digits.items():
        for used, name in zip(pair, ("nearest", "adaptive"), strict=True):
            model, _ = quantize(used, SILENT, {})
            onnx.save(model, tmp_path / "int8.onnx")
            levels[bits, name] = sqnr_db(want, output(tmp_path / "int8.onnx", images))
    assert levels["8 bits", "adaptive"] > levels["8 bits", "nearest"]
    assert levels["4 bits", "adaptive"] > levels["4 bits", "nearest"] + 5


def test_the_record_says_what_was_rounded_and_what_it_gives(digits):
    plain, better = digits["8 bits"]
    record = better.rounding
    assert (record.layers, record.biases, plain.rounding) == (len(better.integers), 0, None)
    assert record.adaptive == record.layers - len(record.nearest) == 16
    assert record.nearest_sqnr_db == pytest.approx(quality_db(plain), abs=0.01)
    assert record.sqnr_db == pytest.approx(quality_db(better), abs=0.01)
    assert record.sqnr_db > record.nearest_sqnr_db


@pytest.mark.parametrize(
    "kind", ["Conv, ReLU, Conv", "Conv, pool, grouped Conv", "LayerNorm to Gemm"]
)
def test_layers_of_every_kind_are_rounded_and_their_biases_corrected(kind, tmp_path):
    body, *_ = PAIRS[kind]
    plain = calibrated(build(tmp_path, body), IMAGES, BOTH, "openvino-cpu")
    better = adapted(plain, IMAGES, BOTH)
    layers = [layer.node for layer in plain.layers if layer.quantized]
    assert better.rounding.layers == len(layers) > 0
    assert better.rounding.sqnr_db >= better.rounding.nearest_sqnr_db
    shifted = adapted(plain, IMAGES, msgspec.structs.replace(BOTH, rounding="nearest"))
    assert not shifted.integers and set(shifted.bias_shifts) in ({*layers}, set())


def test_a_corrected_bias_keeps_the_mean_output(tmp_path):
    """Weights of 4 bits read what is never negative: their errors add up to a shift."""
    recipe = msgspec.structs.replace(BOTH, rounding="nearest", weight_bits=4)
    body = "r = Relu(x)\n p = MatMul(r, w_plain)\n y = Add(p, b)"
    plain = calibrated(build(tmp_path, body), IMAGES, recipe)
    better = adapted(plain, IMAGES, recipe)
    assert better.rounding.biases == 1
    want = output(plain.path, np.concatenate(IMAGES))
    off = []
    for used in (plain, better):
        onnx.save(quantize(used, SILENT, {})[0], tmp_path / "int8.onnx")
        got = output(tmp_path / "int8.onnx", np.concatenate(IMAGES))
        off.append(np.abs((got - want).mean(axis=(0, 1))).max())
    assert off[1] < 1e-4 < off[0]


def test_too_few_images_for_a_layer_leave_it_to_the_nearest_and_say_how_many_it_wants(
    digits_graph, calibration_batches, capsys
):
    few = calibration_batches(8, 1)
    plain = calibrated(digits_graph(1).path, few, target="openvino-cpu")
    better = adapted(plain, few, steps=Steps(None))
    whys = {layer.node: layer.why for layer in better.rounding.nearest}
    assert better.rounding.adaptive == better.rounding.layers - len(whys) > 8
    assert whys["head/Gemm"] == "96 inputs, and 8 images give it 8 rows: 96 images would do"
    first, *_ = whys
    said = capsys.readouterr().err
    assert f"{len(whys)} of {better.rounding.layers} weights are rounded to the nearest" in said
    assert f"'{first}' first ({whys[first]})" in said


def test_after_the_budget_no_further_pass_is_begun(digits_graph, batches, monkeypatch):
    monkeypatch.setattr(adapting, "MOMENT_BYTES", 1)  # a pass for each layer
    plain = calibrated(digits_graph(1).path, batches)
    recipe = msgspec.structs.replace(RECIPE, rounding_budget_s=1)
    ticks = iter(np.arange(0, 100, 0.5))
    monkeypatch.setattr(adapting.time, "monotonic", lambda: float(next(ticks)))
    better = adapted(plain, batches, recipe)
    assert better.rounding.adaptive == 2
    assert {layer.why for layer in better.rounding.nearest} == {"the 1 s for rounding were over"}


def test_parts_of_any_size_come_to_the_same(digits, digits_graph, batches, monkeypatch):
    monkeypatch.setattr(adapting, "MOMENT_BYTES", 2**18)
    plain, whole = digits["8 bits"]
    parts = adapted(plain, batches)
    assert parts.integers.keys() == whole.integers.keys()
    for name, (integers, scales) in whole.integers.items():
        np.testing.assert_array_equal(parts.integers[name][0], integers)
        np.testing.assert_array_equal(parts.integers[name][1], scales)
