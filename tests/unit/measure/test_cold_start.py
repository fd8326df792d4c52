"""Cold start and peak memory are the artifact's, not those of the process that asks."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vitedge.core import manifest
from vitedge.core.bundle import Golden, open_bundle, seal
from vitedge.core.errors import InputError, VitedgeError
from vitedge.core.spec import Preprocess, Target, load_toml
from vitedge.measure.latency.cold_start import cold_starts, fresh_process

MIB = 2**20
TARGET = load_toml(Path(__file__).parents[3] / "targets/onnxruntime-cpu.toml", Target)


def bundle(folder, classes, batch=1):
    """A linear classifier of 8x8 images as a bundle; 768 bytes of weights a class."""
    weight = numpy_helper.from_array(np.ones((192, classes), dtype=np.float32), "w")
    flat = numpy_helper.from_array(np.array([-1, 192], dtype=np.int64), "flat")
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["pixels", "flat"], ["rows"]),
            helper.make_node("MatMul", ["rows", "w"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, classes])],
        [weight, flat],
    )
    opset = [helper.make_opsetid("", 17)]
    folder.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")
    images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    Golden(images, np.zeros((2, 1), np.float32), np.array([-1, -1])).write(folder)
    seal(
        folder,
        manifest.Manifest(
            schema=manifest.SCHEMA,
            name="linear",
            precision="fp32",
            model=manifest.Model(
                name="linear",
                source="test",
                task="classification",
                num_classes=classes,
                weights_sha256="",
            ),
            inputs=(),
            outputs=(),
            preprocessing=manifest.Preprocessing(
                host=Preprocess(height=8, width=8), graph=("cast to float32",)
            ),
            target=TARGET,
            quantization=None,
            parity=manifest.ExportParity(max_abs_error=0, max_rel_error=0),
            accuracy="not measurable",
            accuracy_note="",
            reference=None,
            tools={},
            files={},
        ),
    )
    return folder


def test_a_larger_model_needs_its_weights_more_memory(tmp_path):
    small = fresh_process(bundle(tmp_path / "small", 10)).peak_rss_bytes
    large = fresh_process(bundle(tmp_path / "large", 2**17)).peak_rss_bytes  # 96 MiB of weights
    assert 10 * MIB < small < 400 * MIB
    assert 90 * MIB < large - small < 600 * MIB


def test_memory_of_the_asking_process_does_not_count(tmp_path):
    path = bundle(tmp_path / "small", 10)
    ballast = np.ones(600 * MIB, dtype=np.uint8)
    assert fresh_process(path).peak_rss_bytes < 400 * MIB
    assert ballast[-1]


@pytest.mark.parametrize("batch", [3, "batch"])
def test_any_batch_runs(tmp_path, batch):
    assert fresh_process(bundle(tmp_path / "b", 10, batch)).peak_rss_bytes > 10 * MIB


def test_a_damaged_artifact_is_the_users_mistake(tmp_path):
    path = bundle(tmp_path / "b", 10)
    (path / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"model\.onnx") as caught:
        fresh_process(path)
    assert caught.value.fix
    shutil.rmtree(path)
    with pytest.raises(InputError, match="no artifact"):
        fresh_process(path)


def test_a_model_that_the_runtime_refuses_is_named(tmp_path):
    path = bundle(tmp_path / "b", 10)
    described = open_bundle(path).manifest
    (path / "model.onnx").write_bytes(b"no model")
    seal(path, described)
    with pytest.raises(VitedgeError, match=r"cannot load.*(?i:protobuf|model)"):
        fresh_process(path)


def test_a_cold_start_is_longer_than_its_parts(tmp_path):
    cold, memory = cold_starts(bundle(tmp_path / "b", 10), threads=1, duration_s=1e-6)
    assert cold.n == 1
    assert cold.first_inference_ms > 0
    assert 0 < cold.load_ms < cold.process_to_ready_ms
    assert memory.peak_rss_bytes > 10 * MIB
    assert memory.device_bytes is None
