"""`vitedge build`, and exports whose engine it makes: from a machine with no GPU to RTX PCs."""

from __future__ import annotations

import os
import shutil

import msgspec
import onnx
import pytest

from tests.support import small_graphs
from tests.support.keys import pair
from tests.support.page_reports import measured
from vitedge.core import catalog, manifest
from vitedge.core.bundle import open_bundle, seal, sha256
from vitedge.core.machine import describe_machine

pytest.importorskip("tensorrt_rtx")

GPUS = describe_machine(threads=0).gpus
NO_GPU = pytest.mark.skipif(bool(GPUS), reason="this machine has a GPU")


@pytest.fixture(scope="module")
def exported(tmp_path_factory, vitedge):
    """`digits` in FP32 for TensorRT and for an RTX PC. Copy what you change."""
    output = tmp_path_factory.mktemp("exported")
    vitedge("export", "--target", "tensorrt", "--target", "rtx-40", "--output", output)
    return output


@pytest.fixture
def rtx(exported, tmp_path):
    return shutil.copytree(exported / "digits-rtx-40-fp32", tmp_path / "digits-rtx-40-fp32")


def made(path):
    return open_bundle(path).manifest.build


def test_an_engine_for_an_rtx_pc_is_built_where_it_is_exported(exported):
    bundle = open_bundle(exported / "digits-rtx-40-fp32")
    assert made(bundle.path).state == "done"
    assert set(bundle.model_files) == {"model.onnx", "model.engine"}
    assert bundle.size_bytes == (bundle.path / "model.engine").stat().st_size


@NO_GPU
def test_without_a_gpu_an_engine_waits_for_the_device(exported, vitedge):
    bundle = open_bundle(exported / "digits-tensorrt-fp32")
    build = made(bundle.path)
    assert (build.state, build.why) == ("on the device", "this machine has no NVIDIA GPU")
    assert build.compiled.attention == 4
    assert set(bundle.model_files) == {"model.onnx"}
    ran = vitedge("build", bundle.path, code=3)
    assert "cannot be built here: this machine has no NVIDIA GPU" in ran.stderr
    assert "pip install 'vitedge[tensorrt]'" in ran.stderr
    assert "needs an NVIDIA GPU" in vitedge("doctor").stdout


@NO_GPU
def test_what_needs_a_gpu_to_run_says_so(exported, vitedge):
    for name in ("digits-rtx-40-fp32", "digits-tensorrt-fp32"):
        assert "an NVIDIA GPU" in vitedge("bench", exported / name, code=3).stderr


def test_building_again_takes_force_and_gives_the_same_engine(rtx, tmp_path, vitedge):
    engine = sha256(rtx / "model.engine")
    assert "--force" in vitedge("build", rtx, code=2).stderr
    keys = pair(tmp_path, "release")
    vitedge("sign", rtx, "--key", keys.private)
    ran = vitedge("build", rtx, "--force", "--trust", keys.public)
    assert f"{rtx} was signed without this engine: sign it again" in ran.stderr
    assert not (rtx / "signature.json").exists()
    assert "has its engine" in ran.stdout and "4 attentions" in ran.stdout
    assert f"vitedge bench {rtx}" in ran.stdout
    assert sha256(rtx / "model.engine") == engine == open_bundle(rtx).model_files["model.engine"]
    document = vitedge("build", rtx, "--force", "--json").document
    assert document["build"] == msgspec.to_builtins(made(rtx))


def test_a_lost_engine_is_built_from_the_graph_in_the_bundle(rtx, exported, vitedge):
    whole = open_bundle(rtx)
    (rtx / "model.engine").unlink()
    assert "'model.engine' is missing" in vitedge("build", rtx, code=2).stderr
    _reseal(whole, manifest.Build(state="on the device", why="exported elsewhere"))
    report = msgspec.json.decode((rtx / "report.json").read_bytes())
    simulated = report["simulation"]
    latency = measured(rtx.name, "fp32", p50_ms=1.0, accuracy=0.99).latency
    (rtx / "report.json").write_bytes(msgspec.json.encode({**report, "latency": latency}))
    vitedge("build", rtx)
    assert sha256(rtx / "model.engine") == sha256(exported / rtx.name / "model.engine")
    assert made(rtx).state == "done"
    report = msgspec.json.decode((rtx / "report.json").read_bytes())
    assert report["size"]["bytes"] == (rtx / "model.engine").stat().st_size
    assert "latency" not in report and report["simulation"] == simulated
    assert not list(rtx.parent.glob(".vitedge-*"))


def test_a_graph_that_was_changed_is_not_compiled(rtx, vitedge):
    with (rtx / "model.onnx").open("ab") as file:
        file.write(b"\0")
    assert "SHA-256 differs" in vitedge("build", rtx, "--force", code=2).stderr


def test_a_graph_that_the_compiler_refuses_leaves_the_bundle_as_it_was(rtx, vitedge):
    whole = open_bundle(rtx)
    small_graphs.write("y = Det2(x)", rtx / "model.onnx")
    _reseal(whole, whole.manifest.build)
    before = (rtx / "manifest.json").read_bytes()
    assert "node 'y' (Det2)" in vitedge("build", rtx, "--force", code=2).stderr
    assert (rtx / "manifest.json").read_bytes() == before
    assert made(rtx) == whole.manifest.build


def test_a_cpu_runtime_and_no_artifact_have_nothing_to_build(small_bundle, tmp_path, vitedge):
    for name in ("onnxruntime-cpu", "openvino-cpu"):
        path = small_bundle(tmp_path / name, target=catalog.targets()[name])
        ran = vitedge("build", path, "--force", code=2)
        assert "nothing to build" in ran.stderr and "vitedge bench" in ran.stderr
    assert "no artifact at" in vitedge("build", tmp_path / "absent", code=2).stderr


def test_a_version_out_of_range_is_not_built_with(small_bundle, tmp_path, vitedge):
    target = msgspec.structs.replace(catalog.targets()["rtx-40"], versions=("99", "100"))
    waiting = manifest.Build(state="on the device", why="exported elsewhere")
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 20]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
    )
    content = model.SerializeToString()
    path = small_bundle(tmp_path / "later", content, target=target, build=waiting)
    ran = vitedge("build", path, code=3)
    assert "out of range" in ran.stderr and "tensorrt-rtx>=99" in ran.stderr


def test_without_onnx_and_torch_an_engine_is_built_all_the_same(rtx, tmp_path, vitedge_process):
    for name in ("onnx", "torch", "onnxruntime", "openvino"):
        (tmp_path / "bare" / name).mkdir(parents=True)
        code = f"raise ModuleNotFoundError('not here', name='{name}')"
        (tmp_path / "bare" / name / "__init__.py").write_text(code)
    before = made(rtx)
    path = os.pathsep.join([str(tmp_path / "bare"), os.environ.get("PYTHONPATH", "")])
    vitedge_process("build", rtx, "--force", PYTHONPATH=path)
    assert made(rtx) == before


def _reseal(bundle, build):
    seal(bundle.path, msgspec.structs.replace(bundle.manifest, build=build))
