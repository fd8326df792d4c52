"""The record of a quantized file says what it was calibrated on, and how it was settled."""

import msgspec
import pytest

from vitedge.core import catalog, manifest
from vitedge.core.errors import InputError
from vitedge.core.progress import Steps
from vitedge.data.calibration import CalibrationImages
from vitedge.data.open import open_images
from vitedge.models.zoo import ZOO
from vitedge.quant.int8 import Quantizer

DIGITS = ZOO["digits"]
IMAGES = 16


def written(digits_graph, folder, recipe, opset=20, train=None):
    images = open_images("digits", "calibration", DIGITS.preprocess, DIGITS.labels)
    target = catalog.targets()["onnxruntime-cpu"]
    target = msgspec.structs.replace(target, batch="dynamic", opset=opset)
    exported = digits_graph("dynamic")
    chosen = CalibrationImages(images, recipe, Steps(None))
    return Quantizer(exported, target, chosen, Steps(None), train).write(folder / "int8", {})


@pytest.fixture(scope="module")
def auto(digits_graph, tmp_path_factory):
    recipe = msgspec.structs.replace(catalog.calibrations()["auto"], num_samples=IMAGES)
    return written(digits_graph, tmp_path_factory.mktemp("auto"), recipe)


def test_the_manifest_says_what_auto_tried_best_first_and_took(auto):
    settled = auto.record.settled
    assert len(settled.tried) == 16
    measured = [one.sqnr_db for one in settled.tried]
    assert measured == sorted(measured, reverse=True)
    best = settled.tried[0]
    assert (settled.equalize, settled.activations) == (best.equalize, best.activations)
    assert auto.record.calibration.recipe.activations == "auto"


def test_the_record_is_the_same_after_json(auto):
    text = msgspec.json.encode(auto.record)
    assert msgspec.json.decode(text, type=type(auto.record)) == auto.record


def test_a_recipe_with_nothing_open_tries_nothing(digits_graph, tmp_path):
    recipe = msgspec.structs.replace(catalog.calibrations()["fast"], num_samples=IMAGES)
    made = written(digits_graph, tmp_path, recipe)
    settled = made.record.settled
    assert (settled.equalize, settled.activations, settled.tried) == (0.5, "minmax", ())
    assert made.record.equalization.pairs
    assert made.record.equalization.max_rel_error <= 1e-4
    used = made.record.calibration
    assert (used.images, len(set(used.image_digests))) == (IMAGES, IMAGES)
    assert made.record.scheme == manifest.INT8_SCHEME


def test_what_is_trained_is_not_rounded_before(digits_graph, tmp_path):
    recipe = msgspec.structs.replace(catalog.calibrations()["adaptive"], num_samples=IMAGES)
    given = []

    def train(calibrated):
        given.append(calibrated)
        raise InputError("seen", fix="")

    with pytest.raises(InputError):
        written(digits_graph, tmp_path, recipe, train=train)
    assert (given[0].integers, given[0].bias_shifts, given[0].rounding) == ({}, {}, None)
    assert written(digits_graph, tmp_path, recipe).record.rounding.layers == 16


def test_the_record_says_how_many_bits_weights_have_and_take(digits_graph, tmp_path):
    fast = catalog.calibrations()["fast"]
    recipe = msgspec.structs.replace(fast, num_samples=2, weight_bits=4)
    for opset, stored in ((20, "INT8"), (21, "INT4")):
        folder = tmp_path / str(opset)
        folder.mkdir()
        made = written(digits_graph, folder, recipe, opset)
        assert made.record.scheme.endswith(f"4-bit weights per output channel, stored as {stored}")
