"""Cold start and peak memory are the artifact's, not those of the process that asks."""

import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from vitedge.core.bundle import open_bundle, seal
from vitedge.core.errors import InputError, VitedgeError
from vitedge.measure.latency.cold_start import cold_starts, fresh_process

MIB = 2**20


@pytest.fixture
def bundle(tmp_path, small_bundle):
    """A linear classifier of 8x8 images as a bundle; 768 bytes of weights a class."""

    def make(classes=10, batch=1):
        model = onnx.parser.parse_model(f"""
            <ir_version: 8, opset_import: ["": 17]>
            linear (uint8[{batch}, 8, 8, 3] images) => (float[{batch}, {classes}] logits)
            <int64[2] flat = {{-1, 192}}>
            {{ pixels = Cast <to = 1> (images) rows = Reshape(pixels, flat)
               logits = MatMul(rows, w) }}""")
        weight = np.ones((192, classes), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
        return small_bundle(tmp_path / f"of-{classes}", model.SerializeToString())

    return make


def peak(path):
    """Peak memory of one process that runs the bundle at `path`."""
    _, memory = fresh_process(path)
    return memory.peak_rss_bytes


def test_a_larger_model_needs_its_weights_more_memory(bundle):
    small, large = peak(bundle()), peak(bundle(2**17))  # 96 MiB of weights
    assert 10 * MIB < small < 400 * MIB
    assert 90 * MIB < large - small < 600 * MIB


def test_memory_of_the_asking_process_does_not_count(bundle):
    path = bundle()
    ballast = np.ones(600 * MIB, dtype=np.uint8)
    assert peak(path) < 400 * MIB
    assert ballast[-1]


@pytest.mark.parametrize("batch", [3, "batch"])
def test_any_batch_runs(bundle, batch):
    assert peak(bundle(batch=batch)) > 10 * MIB


def test_a_damaged_artifact_is_the_users_mistake(bundle):
    path = bundle()
    (path / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"model\.onnx") as caught:
        fresh_process(path)
    assert caught.value.fix
    shutil.rmtree(path)
    with pytest.raises(InputError, match="no artifact"):
        fresh_process(path)


def test_a_model_that_the_runtime_refuses_is_named(bundle):
    path = bundle()
    described = open_bundle(path).manifest
    (path / "model.onnx").write_bytes(b"no model")
    seal(path, described)
    with pytest.raises(VitedgeError, match=r"model\.onnx is not an ONNX file"):
        fresh_process(path)


def test_a_cold_start_is_longer_than_its_parts(bundle):
    cold, memory = cold_starts(bundle(), threads=1, duration_s=1e-6)
    assert cold.n == 1
    assert cold.first_inference_ms > 0
    assert 0 < cold.load_ms < cold.process_to_ready_ms
    assert memory.peak_rss_bytes > 10 * MIB
    assert memory.device_bytes is None
