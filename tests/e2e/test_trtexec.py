"""`vitedge inspect --as trtexec`: the commands of NVIDIA's tools, of each version's own flags."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.support.machine import ONNXRUNTIME
from tests.support.qdq import QDQ, WIDTH

ONLY_10 = {"--stronglyTyped", "--noDataTransfers", "--useCudaGraph", "--useSpinWait"}
"""trtexec 11 and tensorrt_rtx do so by default; 11 warns of each."""
REMOVED = {"--fp16", "--bf16", "--int8", "--best", "--calib", "--workspace", "--buildOnly"}


@pytest.fixture
def model(tmp_path):
    """An ONNX file with x (batch, 16, 64)."""

    def make(batch):
        graph = QDQ()
        graph.linear("x", "y")
        path = tmp_path / "my model.onnx"
        path.write_bytes(graph.model(batch=batch).SerializeToString())
        return path

    return make


def commands(vitedge, path, *more):
    found = vitedge("inspect", path, "--as", "trtexec", *more, "--json").document
    assert found["schema"] == "vitedge.commands/1"
    for command in found["commands"]:
        assert not {flag.split("=")[0] for flag in command["argv"]} & REMOVED
        if command["versions"] != "TensorRT 10.x":
            assert not set(command["argv"]) & ONLY_10
    return found["commands"]


def test_a_fixed_batch_for_tensorrt(vitedge, model):
    path = model(4)
    build = [f"--onnx={path}", "--saveEngine=model.engine", "--timingCacheFile=timing.cache"]
    as_11 = ["--noDataTransfers", "--useCudaGraph", "--useSpinWait"]
    assert [command["argv"] for command in commands(vitedge, path)] == [
        ["trtexec", *build, "--stronglyTyped", *as_11],
        ["trtexec", *build],
        shlex.split(f"polygraphy run '{path}' --trt --strongly-typed --save-engine model.engine"),
    ]


def test_a_dynamic_batch_on_a_jetson_has_its_profile_and_its_memory_limit(vitedge, model):
    ten, eleven, polygraphy = commands(vitedge, model("batch"), "--target", "jetson-orin")
    assert (ten["versions"], eleven["versions"]) == ("TensorRT 10.x", "TensorRT 11.x")
    profile = [f"--{k}Shapes=x:{n}x16x{WIDTH}" for k, n in (("min", 1), ("opt", 1), ("max", 8))]
    for command in (ten, eleven):
        assert command["argv"][4:8] == [*profile, "--memPoolSize=workspace:2048M"]
    assert polygraphy["argv"][5:11] == [
        *("--trt-min-shapes", "x:[1,16,64]", "--trt-opt-shapes", "x:[1,16,64]"),
        *("--trt-max-shapes", "x:[8,16,64]"),
    ]
    assert polygraphy["argv"][11:13] == ["--pool-limit", "workspace:2048M"]


def test_an_rtx_pc_builds_anywhere_and_times_on_the_device(vitedge, model):
    build, run, polygraphy = commands(vitedge, model("batch"), "--target", "rtx-40")
    assert build["argv"][:3] == ["tensorrt_rtx", *build["argv"][1:3]]
    assert build["argv"][-2:] == ["--computeCapabilities=89", "--skipInference"]
    assert run["argv"] == ["tensorrt_rtx", "--loadEngine=model.engine", "--shapes=x:8x16x64"]
    assert polygraphy["environment"] == {"POLYGRAPHY_USE_TENSORRT_RTX": "1"}


def test_what_a_target_asks_of_the_engine_becomes_flags(vitedge, model, tmp_path):
    shipped = Path(__file__).parents[2] / "targets" / "tensorrt.toml"
    target = tmp_path / "own.toml"
    text = shipped.read_text(encoding="utf-8").replace('["10.3", "12"]', '["10.3", "11"]')
    more = 'version_compatible = true\nhardware_compatible = true\nweights = "stripped"\n'
    target.write_text(text + more, encoding="utf-8")
    trtexec, polygraphy = commands(vitedge, model(1), "--target", str(target))
    assert trtexec["versions"] == "TensorRT 10.x"  # the target does not take 11
    wanted = ["--versionCompatible", "--hardwareCompatibilityLevel=ampere+", "--stripWeights"]
    assert [flag for flag in trtexec["argv"] if flag in wanted] == wanted
    wanted = ["--version-compatible", "ampere_plus", "--strip-plan"]
    assert [flag for flag in polygraphy["argv"] if flag in wanted] == wanted


def test_the_lines_can_be_pasted_into_a_shell(vitedge, model):
    path = model("batch")
    lines = vitedge("inspect", path, "--as", "trtexec").stdout.splitlines()
    assert lines[0] == "# trtexec, TensorRT 10.x" and lines[2] == "# trtexec, TensorRT 11.x"
    argv = [shlex.split(line) for line in lines[1::2]]
    assert argv == [command["argv"] for command in commands(vitedge, path)]


def test_an_artifact_has_its_own_input(vitedge, bundles):
    artifact = bundles["onnxruntime", "int8"]
    ten, *_ = commands(vitedge, artifact, "--target", "tensorrt")
    assert ten["argv"][1] == f"--onnx={artifact / 'model.onnx'}"


@pytest.mark.parametrize(
    ("which", "arguments", "says"),
    [
        ("onnxruntime", [], f"{ONNXRUNTIME} is of onnxruntime"),
        ("openvino", ["--target", "tensorrt"], "no ONNX graph"),
        ("model", ["--target", "openvino-cpu"], "for TensorRT"),
        ("model", ["--html", "page.html"], "--html writes a page"),
        ("open", [], "open beyond the batch"),
        ("missing.onnx", [], "no ONNX file"),
    ],
)
def test_where_there_is_no_command_one_line_says_why(
    vitedge, model, bundles, tmp_path, which, arguments, says
):
    if which == "open":
        graph = QDQ()
        graph.add("Relu", ["x"], "y")
        made = graph.model()
        made.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "tokens"
        path = tmp_path / "open.onnx"
        path.write_bytes(made.SerializeToString())
    elif which == "model":
        path = model(1)
    elif which in ("onnxruntime", "openvino"):
        path = bundles[which, "int8"]
    else:
        path = tmp_path / which
    ran = vitedge("inspect", path, "--as", "trtexec", *arguments, code=2, cwd=tmp_path)
    assert ran.stdout == "" and says in ran.stderr and "\n  fix: " in ran.stderr
