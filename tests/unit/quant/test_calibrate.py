"""`auto` is settled by the output, measured; a recipe may fix any part of it."""

import msgspec
import onnx
import pytest

from tests.support.graphs import run
from tests.support.outliers import write_digits
from tests.support.ptq import ptq
from vitedge.core import catalog
from vitedge.core.progress import SILENT
from vitedge.export.onnx import export
from vitedge.graph.run import Runner
from vitedge.models.sources import ModelRequest, resolve
from vitedge.quant.calibrate import STRENGTHS, calibrate
from vitedge.quant.ranges import ESTIMATORS

IMAGES = 32
TARGET = catalog.targets()["onnxruntime-cpu"].quantization
AUTO = msgspec.structs.replace(catalog.calibrations()["auto"], num_samples=IMAGES)
RECIPES = {
    name: msgspec.structs.replace(catalog.calibrations()[name], num_samples=32)
    for name in ("fast", "default")
}


def calibrated(fp32, images, **fixed):
    recipe = msgspec.structs.replace(AUTO, **fixed)
    return calibrate(fp32, iter(images), recipe, TARGET, SILENT)


@pytest.fixture(scope="module")
def settled(digits_graph, calibration_batches):
    return calibrated(digits_graph("dynamic").path, calibration_batches(IMAGES, 16))


def test_auto_tries_every_strength_with_every_estimator_best_first(settled):
    used, tried = settled
    ways = {(recipe.equalize, recipe.activations) for recipe in tried}
    assert ways == {(way, estimator) for way in STRENGTHS for estimator in ESTIMATORS}
    assert len(tried) == len(ways)
    measured = [recipe.sqnr_db for recipe in tried]
    assert measured == sorted(measured, reverse=True)
    assert measured[0] > measured[-1]
    best, settings = tried[0], used.settings
    assert (settings.equalize, settings.activations) == (best.equalize, best.activations)
    assert (settings.weights, settings.weight_bits) == (AUTO.weights, AUTO.weight_bits)


def test_what_auto_measured_is_what_the_fixed_recipe_gives(
    settled, digits_graph, calibration_batches, sqnr_db, tmp_path
):
    fp32, images = digits_graph("dynamic").path, calibration_batches(IMAGES, 16)
    used, tried = settled
    want = run(fp32, images[:1])
    for recipe in (tried[0], tried[len(tried) // 2], tried[-1]):
        way = {"equalize": recipe.equalize, "activations": recipe.activations}
        fixed = msgspec.structs.replace(AUTO, **way, weights=used.settings.weights)
        model, _ = ptq(fp32, images, fixed, TARGET)
        onnx.save(model, tmp_path / "fixed.onnx")
        (got,) = Runner(tmp_path / "fixed.onnx")(images[0])
        assert recipe.sqnr_db == pytest.approx(sqnr_db(want, got), abs=0.01), recipe


@pytest.mark.parametrize(
    ("fixed", "tries"),
    [
        ({"equalize": "off"}, len(ESTIMATORS)),
        ({"equalize": 0.5}, len(ESTIMATORS)),
        ({"activations": "minmax"}, len(STRENGTHS)),
        ({"activations": "entropy", "equalize": 1.0}, 0),
    ],
    ids=str,
)
def test_a_recipe_may_fix_any_part(fixed, tries, digits_graph, calibration_batches):
    used, tried = calibrated(digits_graph("dynamic").path, calibration_batches(16, 16), **fixed)
    assert len(tried) == tries
    for settings in (used.settings, *tried):
        for name, value in fixed.items():
            assert getattr(settings, name) == value


def test_auto_leaves_no_scratch_file(settled, digits_graph):
    names = {path.name for path in digits_graph("dynamic").path.parent.iterdir()}
    assert not {name for name in names if name.startswith(("tried", "tapped"))}


# -- outliers -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def export_outliers(tmp_path_factory):
    """`digits` with 5% of the channels of one place scaled up or down."""

    def make(site, strength):
        folder = tmp_path_factory.mktemp("outliers")
        file = write_digits(folder / "weights.safetensors", site, strength, seed=7)
        return export(resolve(ModelRequest("digits", weights=file)), folder, "dynamic", 20).path

    return make


@pytest.fixture(scope="module")
def noise_db(digits_graph, calibration_batches, held_out, sqnr_db, tmp_path_factory):
    """SQNR on held-out digits of a graph quantized for ONNX Runtime; FP32 is without outliers."""
    seen = [held_out.images[::2]]
    want = run(digits_graph("dynamic").path, seen)
    images = calibration_batches(32, 16)
    path = tmp_path_factory.mktemp("noise") / "model.onnx"

    def measure(fp32, recipe):
        model, _ = ptq(fp32, images, recipe, TARGET)
        onnx.save(model, path)
        return sqnr_db(want, run(path, seen))

    return measure


@pytest.mark.parametrize(
    ("site", "strength"),
    [
        pytest.param("value", 2, marks=pytest.mark.heavy),
        pytest.param("query", 1000, marks=pytest.mark.heavy),
        ("all", 1e6),
    ],
)
def test_outliers_cost_nothing(site, strength, digits_graph, export_outliers, noise_db):
    outliers = export_outliers(site, strength)
    for name, recipe in RECIPES.items():
        clean = noise_db(digits_graph("dynamic").path, recipe)
        assert noise_db(outliers, recipe) == pytest.approx(clean, abs=0.5), name


def test_without_equalisation_outliers_ruin_the_model(digits_graph, export_outliers, noise_db):
    off = msgspec.structs.replace(RECIPES["default"], equalize="off")
    clean = noise_db(digits_graph("dynamic").path, off)
    assert noise_db(export_outliers("all", 1000), off) < clean - 20
