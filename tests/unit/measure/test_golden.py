"""Parity on the golden images: what an artifact computes here against what it did at export."""

import shutil

import msgspec
import numpy as np
import pytest

from vitedge.core.bundle import Golden, open_bundle, seal
from vitedge.core.bundle import read_manifest as open_manifest


@pytest.fixture
def foreign(bundles, tmp_path):
    """A bundle of a model that has no images of its own; FP32's outputs in it as `change` says."""

    def make(precision, change=None):
        path = tmp_path / precision
        shutil.copytree(bundles["onnxruntime", precision], path)
        (path / "report.json").unlink()
        bundle = open_bundle(path)
        golden, manifest = bundle.golden(), bundle.manifest
        if change:
            Golden(golden.images, change(golden), golden.labels).write(path)
        model = msgspec.structs.replace(manifest.model, source="somebody's")
        seal(path, msgspec.structs.replace(manifest, model=model))
        return path

    return make


def noisy(golden):
    """Outputs with a quarter of their power as noise."""
    noise = np.random.default_rng(0).normal(size=golden.outputs.shape)
    return (golden.outputs + noise * golden.outputs.std() / 2).astype(np.float32)


def test_export_remembers_the_parity_it_measured(bundles):
    for (_, precision), path in bundles.items():
        golden = open_bundle(path).manifest.golden
        assert golden and golden.n == 8 and golden.agreement == 1
        least = {"fp32": 80, "fp16": 40, "int8": 35}[precision]
        assert golden.sqnr_db is None or golden.sqnr_db > least


def test_validate_without_images_is_parity_and_says_that_it_is_no_accuracy(foreign, vitedge):
    path = foreign("int8")
    said = vitedge("validate", path).stdout
    assert "parity with FP32 on 8 golden images, which is no accuracy" in said
    assert "100% choose the same" in said
    report = vitedge("validate", path, "--json").document
    assert "accuracy" not in report
    assert report["parity"]["numerics"] == report["numerics"]
    assert report["numerics"]["data"] == "golden"
    before = report["parity"]["at_export_db"]
    assert report["numerics"]["sqnr_db"] == pytest.approx(before, abs=0.01)


def test_fp32_that_computes_something_else_here_fails(foreign, vitedge):
    done = vitedge("validate", foreign("fp32", noisy), code=1)
    assert "NO PARITY on 8 golden images" in done.stdout and "in FP32" in done.stdout
    assert "does not compute on this machine" in done.stderr


def test_int8_that_lost_what_it_had_at_export_fails_in_bench(foreign, vitedge):
    done = vitedge("bench", foreign("int8", noisy), "--duration", 0.05, "--json", code=1)
    assert "where it was exported" in done.document["parity"]["broken"]
    assert done.document["latency"]["p50_ms"] > 0
    assert "does not compute on this machine" in done.stderr


def test_outputs_that_are_not_finite_are_no_parity():
    from vitedge.measure.accuracy.parity import compare

    golden = Golden(np.zeros((2, 1, 1, 3), np.uint8), np.ones((2, 3), np.float32), np.zeros(2))
    outputs = np.array([[1, 2, 3], [1, np.nan, 3]], np.float32)
    parity = compare(golden, {"logits": outputs}, "int8", "classification", None)
    assert parity.broken == "its outputs are not finite" and parity.numerics is None


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_one_broken_output_of_several_breaks_parity_and_is_named(tmp_path, small_bundle, precision):
    from vitedge.core.manifest import GoldenParity, Tensor
    from vitedge.measure.accuracy.parity import compare

    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (2, 8, 8, 3), np.uint8), np.zeros(2, np.int64)
    tokens = rng.normal(size=(2, 4, 5)).astype(np.float32)
    logits = rng.normal(size=(2, 3)).astype(np.float32)
    path = small_bundle(
        tmp_path / "several",
        outputs=tuple(
            Tensor(name=name, shape=(), dtype="float32", layout="") for name in ("logits", "tokens")
        ),
    )
    Golden(images, logits, labels, {"tokens": tokens}).write(path)
    golden = seal(path, open_manifest(path)).golden()
    np.testing.assert_array_equal(golden.further["tokens"], tokens)
    before = GoldenParity(sqnr_db=45.0, agreement=1.0, n=2, further={"tokens": 40.0})
    slightly = {"logits": logits + np.float32(1e-5), "tokens": tokens + np.float32(1e-5)}
    sound = compare(golden, slightly, precision, "classification", before)
    assert not sound.broken and list(sound.numerics.outputs) == ["logits", "tokens"]
    assert sound.numerics.sqnr_db == sound.numerics.outputs["logits"].sqnr_db
    wrong = {**slightly, "tokens": tokens[:, ::-1]}
    parity = compare(golden, wrong, precision, "classification", before)
    assert parity.broken.startswith("output 'tokens': ") and parity.numerics.sqnr_db > 80


def test_bench_keeps_numerics_that_a_dataset_gave(bundles, tmp_path, vitedge):
    path = tmp_path / "int8"
    shutil.copytree(bundles["onnxruntime", "int8"], path)
    report = vitedge("bench", path, "--duration", 0.05, "--json").document
    assert report["numerics"]["data"] == "digits" and report["numerics"]["n"] == 719
    assert report["parity"]["numerics"]["n"] == 8 and not report["parity"]["broken"]
