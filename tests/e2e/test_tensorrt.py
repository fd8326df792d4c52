"""INT8 for TensorRT from a machine with no GPU: what the export proves, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Vitedge
from vitedge import host
from vitedge.artifact import open_bundle
from vitedge.manifest import Build

pytest.importorskip("tensorrt_rtx")

pytestmark = pytest.mark.skipif(
    bool(host.describe(threads=0).gpus), reason="this machine has a GPU"
)


@pytest.fixture(scope="module", params=["1", "dynamic"], ids=["static", "dynamic"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, vitedge: Vitedge
) -> tuple[Path, str]:
    """`digits` in INT8 for TensorRT and for an RTX PC, and what the export said."""
    output = tmp_path_factory.mktemp(f"tensorrt-{request.param}")
    targets = ("--target", "tensorrt", "--target", "rtx-40", "--batch", request.param)
    ran = vitedge("export", *targets, "--int8", "--output", output)
    return output, ran.stdout + ran.stderr


def build(path: Path) -> Build:
    found = open_bundle(path).manifest.build
    assert found is not None
    return found


def report(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "report.json").read_text())
    return found


@pytest.mark.parametrize("target", ["tensorrt", "rtx-40"])
def test_every_product_compiles_to_int8_and_every_attention_to_one_kernel(
    exported: tuple[Path, str], target: str
) -> None:
    compiled = build(exported[0] / f"digits-{target}-int8").compiled
    assert compiled is not None
    assert compiled.lost == {}
    assert (compiled.planned, compiled.int8) == (32, 32)
    assert (compiled.attention, compiled.fused) == (4, 4)
    assert f"digits-{target}-int8: 32 of 32 planned products in INT8, 4 of 4" in exported[1]


@pytest.mark.parametrize("target", ["tensorrt", "rtx-40"])
def test_the_graph_keeps_its_accuracy_and_nothing_is_called_measured_on_the_gpu(
    exported: tuple[Path, str], target: str
) -> None:
    found = report(exported[0] / f"digits-{target}-int8")
    assert not {"accuracy", "numerics", "latency", "recommendation"} & set(found)
    simulated = found["simulation"]
    assert simulated["runtime"].startswith("onnxruntime ")
    assert simulated["accuracy"]["drop_pp"] <= 0.3
    assert simulated["accuracy"]["n"] > 700
    assert simulated["numerics"]["sqnr_db"] >= 30
    assert "not run: " in exported[1]


def test_its_own_lint_finds_nothing(exported: tuple[Path, str]) -> None:
    for target in ("tensorrt", "rtx-40"):
        made = open_bundle(exported[0] / f"digits-{target}-int8").manifest
        assert made.quantization is not None
        assert made.quantization.lint == ()
        assert made.half is not None and made.half.kept == ()


def test_fp16_is_made_beside_int8_to_be_compared_with_on_the_device(
    exported: tuple[Path, str],
) -> None:
    names = {path.name for path in exported[0].iterdir() if path.is_dir()}
    precisions = ("fp32", "fp16", "int8")
    assert names == {f"digits-{t}-{p}" for t in ("tensorrt", "rtx-40") for p in precisions}
    assert build(exported[0] / "digits-rtx-40-int8").state == "done"
    assert build(exported[0] / "digits-tensorrt-int8").state == "on the device"


@pytest.mark.parametrize("command", ["validate", "bench"])
def test_what_needs_the_gpu_says_so(
    exported: tuple[Path, str], vitedge: Vitedge, command: str
) -> None:
    ran = vitedge(command, exported[0] / "digits-rtx-40-int8", code=3)
    assert "GPU" in ran.stderr
    assert not ran.stdout


def test_inspect_shows_what_the_compiler_made_of_it(
    exported: tuple[Path, str], vitedge: Vitedge
) -> None:
    shown = vitedge("inspect", exported[0] / "digits-tensorrt-int8").stdout
    assert "32 of 32 planned products in INT8" in shown
    assert "lint for tensorrt: nothing found" in shown


def test_a_limit_on_the_drop_needs_the_device(tmp_path: Path, vitedge: Vitedge) -> None:
    limit = ("--max-drop", "0.1", "--output", tmp_path)
    ran = vitedge("export", "--target", "tensorrt", "--int8", *limit, code=2)
    assert "--max-drop cannot be checked" in ran.stderr
    assert not list(tmp_path.glob("digits*"))
