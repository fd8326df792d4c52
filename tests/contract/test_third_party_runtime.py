"""A third party's runtimes: one class and one TOML each, and every command takes them.

Its package is registered as any other, by an entry point; nothing in vitedge knows its name.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager

import numpy as np
import pytest

from vitedge.core.bundle import open_bundle
from vitedge.core.runtime import registrations

RUNTIME = """
import os
import time
from contextlib import contextmanager
from pathlib import Path

import onnxruntime

from vitedge.core.manifest import Build
from vitedge.core.runtime import Rule, TensorSpec

MODEL = "{file}"


def gelus(graph, target):
    for node in graph.nodes:
        if node.op_type == "Gelu":
            yield node.name, "it counts a Gelu by hand"


class Abacus:
    name = "abacus"
    title = "Abacus"
    packages = {packages}
    extra = ""
    processor = "{processor}"
    options = frozenset(["beads"])

    def probe(self, host):
        return "" if host.cores else "fingers"

    def accelerator(self, host):
        return self.title

    def rules(self):
        return (Rule("gelu", "slower", "take ReLU", gelus),)

    def files(self, manifest):
        return (MODEL,)

    def lower(self, model, target, out, progress):
        import onnx

        (out / MODEL).write_bytes(onnx.load(model).SerializeToString()[::-1])
        return {build}

    @contextmanager
    def open(self, verified, target):
        model = verified.path(MODEL).read_bytes()[::-1]
        yield Opened(onnxruntime.InferenceSession(model), target.options["beads"])


class Opened:
    def __init__(self, session, beads):
        self._session, self.beads = session, beads
        dtypes = dict([("tensor(uint8)", "uint8"), ("tensor(float)", "float32")])
        self.inputs, self.outputs = (
            tuple(TensorSpec(v.name, tuple(v.shape), dtypes[v.type]) for v in values)
            for values in (session.get_inputs(), session.get_outputs())
        )

    def run(self, feed):
        names = [spec.name for spec in self.outputs]
        fault = os.environ.get("ABACUS_FAULT", "")
        time.sleep(0.08 if fault == "slow" else 0)
        factor = dict(wrong=1.5, nan=float("nan")).get(fault, 1)
        return dict(zip(names, (v * factor for v in self._session.run(names, dict(feed)))))
"""
TARGET = """
name = "desk"
description = "An abacus on the desk"
runtime = "abacus"
versions = ["1.0", "2"]
machines = ["x86_64", "AMD64", "aarch64", "arm64"]
precisions = ["fp32", "int8"]
opset = 20

[quantization]
activations = "int8"
weights = "full"
attention = ["qk"]
operators = ["MatMul"]

[options]
beads = "7"
"""


KINDS = {
    "npu": {"file": "model.abacus", "packages": '("abacus-npu",)', "build": 'Build(state="done")'},
    "browser": {"file": "beads.wasm", "packages": "()", "build": "None"},
}
"""Of processor: one that compiles an engine, one that needs no package and names its own file."""


@pytest.fixture(scope="module", params=KINDS)
def processor(request):
    return request.param


def register(folder, entry_point, version):
    """What pip leaves behind of a package that brings the runtime."""
    info = folder / f"abacus_npu-{version}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: abacus-npu\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata)
    (info / "entry_points.txt").write_text(f"[vitedge.runtimes]\nabacus = {entry_point}\n")


@pytest.fixture(scope="module")
def installed(processor, tmp_path_factory):
    """A folder as pip leaves it behind: the module, and what its package registers."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "abacus_npu.py").write_text(RUNTIME.format(processor=processor, **KINDS[processor]))
    register(folder, "abacus_npu:Abacus", "1.5")
    (folder / "desk.toml").write_text(TARGET)
    return folder


@contextmanager
def plugged_in(folder):
    """Let this process and those it starts find what is installed in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder))
        registrations.cache_clear()
        yield
    sys.modules.pop("abacus_npu", None)
    registrations.cache_clear()


@pytest.fixture
def abacus(installed):
    with plugged_in(installed):
        yield


@pytest.fixture(scope="module")
def int8(installed, onnx_model, vitedge, held_out):
    """`digits` exported for it in INT8, beside FP32."""
    images = installed / "digits.npz"
    np.savez(images, images=held_out.images[:300], labels=held_out.labels[:300])
    with plugged_in(installed):
        ran = vitedge(
            *("export", onnx_model, "--target", installed / "desk.toml", "--int8"),
            *("--calibration", "fast", "--calib-data", "digits"),
            *("--eval-data", images, "--duration", 0.2, "--output", installed / "out"),
        )
    assert "model on desk: ship " in ran.stdout, "it was timed, and recommended"
    return installed / "out" / "model-desk-int8"


@pytest.mark.usefixtures("abacus")
def test_every_command_takes_its_bundle(int8, installed, processor, vitedge):
    others = {"manifest.json", "report.json", "evidence.npz", "golden.npz", "labels.txt"}
    files = {path.name for path in int8.iterdir()} - others
    assert files == {KINDS[processor]["file"]}
    version = "1.5" if processor == "npu" else None
    assert open_bundle(int8).manifest.tools.get("abacus-npu") == version

    inspected = vitedge("inspect", int8, "--json").document
    assert {finding["rule"] for finding in inspected["lint"]} == {"gelu"}
    assert any(row["quantized"] and row["role"] == "qk" for row in inspected["layers"])

    validated = vitedge("validate", int8, "--data", installed / "digits.npz", "--json").document
    assert validated["accuracy"]["artifact"] > 0.98
    assert 30 < validated["numerics"]["sqnr_db"] < 80

    report = vitedge("bench", int8, "--duration", 0.3, "--json").document
    assert report["latency"]["against"] == "fp32" and report["parity"]["broken"] == ""
    assert report["size"]["bytes"] == (int8 / KINDS[processor]["file"]).stat().st_size
    assert report["host"]["accelerator"] == "Abacus"
    assert report["host"]["runtimes"].get("abacus") == version
    assert report["energy"]["source"] is None, "the CPU's meter is not its own"

    verdict = vitedge("gate", int8, "--max-drop", 5, "--max-size-mb", 9, "--json")
    assert verdict.document["answer"] == "passed"
    vitedge("gate", int8, "--max-size-mb", 0.001, code=1)

    checks = {check["name"]: check for check in vitedge("doctor", "--json").document["checks"]}
    assert checks["abacus"]["status"] == "yes"


def its_selftest(vitedge, int8, folder, **environment):
    """The record of its selftest, and what failed in it."""
    fp32 = int8.with_name(int8.name.replace("int8", "fp32"))
    code = 1 if environment else 0
    options = ("--quick", "--output", folder, "--json")
    ran = vitedge("selftest", fp32, int8, *options, code=code, **environment)
    failed = [line for line in ran.stderr.splitlines() if line.startswith("failed: ")]
    return {step["name"]: step for step in ran.document["steps"]}, failed


@pytest.mark.usefixtures("abacus")
def test_it_has_a_selftest_for_nothing(int8, processor, vitedge, tmp_path):
    steps, failed = its_selftest(vitedge, int8, tmp_path / "evidence")
    left_out = {name: step["says"] for name, step in steps.items() if step["status"] != "passed"}
    assert not failed
    assert left_out.pop("what is executed of model int8") == "Abacus does not tell what it executes"
    assert "GPU" in left_out.pop("refuse too little device memory model fp32")
    if processor == "browser":
        assert "no version" in left_out.pop("refuse another version's model fp32")
    assert not left_out
    assert steps["bench model"]["figures"]["int8_p50_ms"] > 0


@pytest.mark.usefixtures("abacus")
@pytest.mark.parametrize(
    ("fault", "step", "says"),
    [
        ("wrong", "parity of model int8", "dB SQNR"),
        ("nan", "parity of model fp32", "its outputs are not finite"),
        pytest.param("slow", "bench model", "model fp32: slow: ", marks=pytest.mark.heavy),
    ],
)
def test_a_selftest_of_a_sabotaged_one_says_what_is_wrong(
    int8, processor, vitedge, tmp_path, fault, step, says
):
    if processor == "browser":
        pytest.skip("once is enough")
    steps, failed = its_selftest(vitedge, int8, tmp_path / "evidence", ABACUS_FAULT=fault)
    assert steps[step]["status"] == "failed" and says in steps[step]["says"]
    assert any(line.startswith(f"failed: {step}: ") and says in line for line in failed)
    assert "✗ failed</span>" in (tmp_path / "evidence" / "selftest.html").read_text()


@pytest.mark.usefixtures("abacus")
def test_what_has_no_meaning_for_it_is_refused(int8, vitedge, tmp_path):
    ran = vitedge("bench", int8, "--sweep", "threads", code=2)
    assert "does not run on the CPU" in ran.stderr
    ran = vitedge("build", int8, "--force", code=2)
    assert "nothing to build" in ran.stderr or "keeps no graph" in ran.stderr
    ran = vitedge("export", "--target", "abacus", "--output", tmp_path, code=2)
    assert "no target of the runtime 'abacus' is shipped" in ran.stderr


@pytest.mark.usefixtures("abacus")
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('beads = "7"', "", ("abacus cannot load", "beads")),
        ('runtime = "abacus"', 'runtime = "abacos"', ("no runtime 'abacos'", "did you mean")),
        ('beads = "7"', 'bead = "7"', ("Abacus does not take", "did you mean")),
    ],
)
def test_what_it_raises_and_what_a_target_cannot_say_is_one_message(
    onnx_model, vitedge, tmp_path, old, new, says
):
    target = tmp_path / "desk.toml"
    target.write_text(TARGET.replace(old, new))
    ran = vitedge("export", onnx_model, "--target", target, "--output", tmp_path / "out", code=2)
    assert all(text in ran.stderr for text in says)


def test_versions_of_a_target_are_honoured(int8, processor, installed, vitedge, tmp_path):
    if processor == "browser":
        pytest.skip("it comes in no package, so it has no version")
    register(tmp_path, "abacus_npu:Abacus", "2.0")
    (tmp_path / "abacus_npu.py").write_text((installed / "abacus_npu.py").read_text())
    with plugged_in(tmp_path):
        ran = vitedge("validate", int8, code=3)
    assert "Abacus 1.0 to before 2; 2.0 is installed" in ran.stderr


def test_without_its_package_an_artifact_says_what_is_missing(int8, vitedge):
    ran = vitedge("bench", int8, code=3)
    assert "runtime 'abacus'" in ran.stderr and "is not known here" in ran.stderr


def test_a_runtime_that_does_not_load_is_named_and_left_out(vitedge, tmp_path):
    register(tmp_path, "broken_npu:Broken", "1")
    with plugged_in(tmp_path):
        ran = vitedge("doctor", "--json")
    assert "runtime 'abacus' does not load: No module named 'broken_npu'" in ran.stderr
    assert "abacus" not in {check["name"] for check in ran.document["checks"]}
