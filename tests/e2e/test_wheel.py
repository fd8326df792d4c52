"""The wheel in a clean venv, as a device has it: one runtime, no torch, no onnx."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vitedge.measure.remote.wheel import pack

ROOT = Path(__file__).parents[2]


def run(*command, cwd, code=0, stream=""):
    """What it prints on stdout, or on stderr where it fails."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    words = [str(part) for part in command]
    done = subprocess.run(words, cwd=cwd, env=clean, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return getattr(done, stream or ("stderr" if code else "stdout"))


@pytest.fixture(scope="module")
def device(once):
    """A folder whose `venv` holds nothing but the wheel and ONNX Runtime."""
    return once("wheel", install)


def install(folder, extras="onnxruntime"):
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    run(*build, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    pip = (folder / "venv" / "bin" / "pip", "install", "--quiet", "--no-compile")
    run(*pip, "-c", ROOT / "constraints.txt", f"{wheel}[{extras}]", cwd=folder)


def test_a_device_validates_and_benches_without_torch(device, bundles):
    vitedge = device / "venv" / "bin" / "vitedge"
    for precision in ("fp32", "int8"):
        bundle = bundles["onnxruntime", precision]
        shutil.copytree(bundle, device / bundle.name, dirs_exist_ok=True)
    listed = run(device / "venv" / "bin" / "pip", "list", cwd=device)
    assert not {"torch", "onnx", "nncf"} & {line.split()[0] for line in listed.splitlines()}
    name = bundles["onnxruntime", "int8"].name
    assert json.loads(run(vitedge, "validate", name, "--json", cwd=device))["accuracy"]["n"] == 719
    report = json.loads(run(vitedge, "bench", name, "--duration", "0.5", "--json", cwd=device))
    assert report["latency"]["speedup"] > 0
    assert len(json.loads(run(vitedge, "targets", "list", "--json", cwd=device))) >= 5
    assert len(json.loads(run(vitedge, "calibrations", "--json", cwd=device))) >= 3


def test_a_device_inspects_and_judges_an_artifact_without_a_runtime(device, bundles):
    vitedge = device / "venv" / "bin" / "vitedge"
    for runtime in ("onnxruntime", "openvino"):
        found = json.loads(run(vitedge, "inspect", bundles[runtime, "int8"], "--json", cwd=device))
        assert found["summary"]["worst"] and found["lint"] == []
    shutil.copy(bundles["openvino", "int8"] / "report.json", device)
    python = (device / "venv" / "bin" / "python", "-X", "importtime", "-m", "vitedge")
    for command in (
        ("inspect", bundles["openvino", "int8"], "--html", "page.html"),
        ("gate", "report.json", "--max-drop=1"),
    ):
        log = run(*python, *command, cwd=device, stream="stderr")
        imported = {line.rpartition("|")[2].strip() for line in log.splitlines()}
        assert "numpy" in imported and "onnxruntime" not in imported
    page = (device / "page.html").read_text(encoding="utf-8")
    assert page.count('class="own-dot"') >= 17 and "patch_embed" in page
    model = bundles["onnxruntime", "int8"] / "model.onnx"
    for arguments in ((model,), (model.parent, "--target", "openvino-cpu")):
        message = run(vitedge, "inspect", *arguments, cwd=device, code=3)
        assert "onnx" in message and "vitedge[export]" in message


def test_a_device_says_what_it_can_run_and_what_it_cannot_build(device, bundles):
    vitedge = device / "venv" / "bin" / "vitedge"
    checks = json.loads(run(vitedge, "doctor", "--json", cwd=device))["checks"]
    found = {check["name"]: check["status"] for check in checks}
    assert found["onnxruntime"] == "yes" and found["torch"] == "no"
    message = run(vitedge, "build", bundles["onnxruntime", "int8"], cwd=device, code=2)
    assert "nothing to build" in message


def test_the_wheel_that_a_device_gets_over_ssh_is_that_which_is_released(device, tmp_path):
    (released,) = device.glob("*.whl")
    packed = pack(tmp_path)
    assert packed.name == released.name
    with zipfile.ZipFile(released) as one, zipfile.ZipFile(packed) as other:
        files = {name for name in one.namelist() if ".dist-info/" not in name}
        assert files == {name for name in other.namelist() if ".dist-info/" not in name}
        assert all(one.read(file) == other.read(file) for file in files)
    before = packed.read_bytes()
    assert pack(tmp_path).read_bytes() == before


def test_a_device_says_what_it_lacks(device, bundles):
    vitedge = device / "venv" / "bin" / "vitedge"
    message = run(vitedge, "export", "--target", "onnxruntime", cwd=device, code=3)
    assert "torch" in message and "vitedge[export]" in message
    message = run(vitedge, "bench", bundles["openvino", "int8"], cwd=device, code=3)
    assert "vitedge[openvino]" in message


HF_CLASSIFIER = """
import transformers
config = transformers.ViTConfig(
    hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
    image_size=64, patch_size=16, num_labels=7,
)
transformers.ViTForImageClassification(config).save_pretrained("vit")
processor = transformers.ViTImageProcessorPil(size={"height": 64, "width": 64})
processor.save_pretrained("vit")
"""


@pytest.mark.heavy
def test_the_hf_extra_needs_no_torchvision(tmp_path):
    install(tmp_path, "hf,onnxruntime,openvino")
    binaries = tmp_path / "venv" / "bin"
    listed = run(binaries / "pip", "list", cwd=tmp_path)
    assert "torchvision" not in listed and "transformers" in listed
    run(binaries / "python", "-c", HF_CLASSIFIER, cwd=tmp_path)
    targets = ("--target", "onnxruntime-cpu", "--target", "openvino-cpu")
    noise = ("--calib-data", "random", "--num-samples", "4", "--duration", "0")
    run(binaries / "vitedge", "export", "hf:vit", *targets, "--int8", *noise, cwd=tmp_path)
    for target in ("onnxruntime-cpu", "openvino-cpu"):
        bundle = tmp_path / "artifacts" / f"vit-{target}-int8"
        shown = json.loads(run(binaries / "vitedge", "inspect", bundle, "--json", cwd=tmp_path))
        assert shown["summary"]["worst"]
