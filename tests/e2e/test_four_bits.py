"""Weights of 4 bits, stored as such: a target of one's own with an opset that has INT4."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from vitedge.core.bundle import open_bundle

pytestmark = pytest.mark.heavy

TARGETS = Path(__file__).parents[2] / "targets"
RECIPE = """
name = "w4"
description = "4-bit weights"
num_samples = 32
activations = "minmax"
weights = "mse"
weight_bits = 4
"""


@pytest.fixture(scope="module")
def made(vitedge, tmp_path_factory):
    """`digits` with 4-bit weights for both CPU runtimes, in opset 20 and 21; and what was said."""
    folder = tmp_path_factory.mktemp("int4")
    (folder / "w4.toml").write_text(RECIPE)
    targets = []
    for runtime in ("onnxruntime", "openvino"):
        known = (TARGETS / f"{runtime}-cpu.toml").read_text()
        path = folder / f"{runtime}-21.toml"
        path.write_text(
            known.replace("opset = 20", "opset = 21\nopset_max = 21").replace("-cpu", "-21")
        )
        targets += ["--target", path, "--target", f"{runtime}-cpu"]
    said = vitedge(
        *("export", "--int8", "--calibration", folder / "w4.toml", *targets),
        *("--duration", 0, "--output", folder / "out"),
    )
    (folder / "said.txt").write_text(said.stderr)
    return folder


def stored(made, runtime, kind):
    return open_bundle(made / "out" / f"digits-{runtime}-{kind}-int8")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_they_take_half_the_space_and_lose_what_they_lose_in_8_bits(made, runtime):
    eight, four = (stored(made, runtime, kind) for kind in ("cpu", "21"))
    kind = "model.onnx" if runtime == "onnxruntime" else "model.bin"
    sizes = [(each.path / kind).stat().st_size for each in (eight, four)]
    assert sizes[1] < 0.65 * sizes[0]
    assert four.manifest.quantization.scheme.endswith("stored as INT4")
    reports = [json.loads((each.path / "report.json").read_text()) for each in (eight, four)]
    drops = [each["accuracy"]["drop_pp"] for each in reports]
    noises = [each["numerics"]["sqnr_db"] for each in reports]
    assert abs(drops[0] - drops[1]) < 0.3 and abs(noises[0] - noises[1]) < 0.3
    said = (made / "said.txt").read_text()
    assert f"digits-{runtime}-21-int8: 4-bit weights are stored as INT4" in said


def test_every_quantized_weight_is_int4_in_the_file(made):
    graph = onnx.load(stored(made, "onnxruntime", "21").path / "model.onnx").graph
    weights = [tensor for tensor in graph.initializer if tensor.name.endswith(".quantized")]
    assert len(weights) == 16
    assert {tensor.data_type for tensor in weights} == {TensorProto.INT4}
