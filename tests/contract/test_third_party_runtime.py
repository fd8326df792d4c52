"""A runtime of a third party: one class and one TOML, and every command takes it.

Its package is registered as any other, by an entry point; nothing in vitedge knows its name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Vitedge
from vitedge.core.runtime import runtimes
from vitedge.data.imageset import Batch

RUNTIME = """
from contextlib import contextmanager
from pathlib import Path

import onnxruntime

from vitedge.core.manifest import Build
from vitedge.core.runtime import Rule, TensorSpec

MODEL = "model.abacus"


def gelus(graph, target):
    for node in graph.nodes:
        if node.op_type == "Gelu":
            yield node.name, "it counts a Gelu by hand"


class Abacus:
    name = "abacus"
    title = "Abacus NPU"
    packages = ("abacus-npu",)
    extra = "abacus"
    processor = "npu"
    options = frozenset({"beads"})

    def probe(self, host):
        return "" if host.memory_bytes else "beads"

    def rules(self):
        return (Rule("gelu", "slower", "take ReLU", gelus),)

    def files(self, manifest):
        return (MODEL,)

    def lower(self, model, target, out, progress):
        import onnx

        (out / MODEL).write_bytes(onnx.load(model).SerializeToString()[::-1])
        return Build(state="done")

    @contextmanager
    def open(self, verified, target):
        model = verified.path(MODEL).read_bytes()[::-1]
        yield Opened(onnxruntime.InferenceSession(model), target.options["beads"])


class Opened:
    def __init__(self, session, beads):
        self._session, self.beads = session, beads
        dtypes = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
        self.inputs, self.outputs = (
            tuple(TensorSpec(v.name, tuple(v.shape), dtypes[v.type]) for v in values)
            for values in (session.get_inputs(), session.get_outputs())
        )

    def run(self, feed):
        names = [spec.name for spec in self.outputs]
        return dict(zip(names, self._session.run(names, dict(feed))))
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


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as pip leaves it behind: the module, and what its package registers."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "abacus_npu.py").write_text(RUNTIME)
    info = folder / "abacus_npu-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: abacus-npu\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[vitedge.runtimes]\nabacus = abacus_npu:Abacus\n")
    (folder / "desk.toml").write_text(TARGET)
    return folder


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Let this process and those it starts find what is installed in a folder, for one test."""

    def find(folder: Path) -> None:
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("PYTHONPATH", str(folder))
        runtimes.cache_clear()

    yield find
    sys.modules.pop("abacus_npu", None)
    runtimes.cache_clear()


@pytest.fixture
def abacus(installed: Path, plug_in: Callable[[Path], None]) -> None:
    plug_in(installed)


@pytest.fixture(scope="module")
def int8(installed: Path, onnx_model: Path, vitedge_process: Vitedge, held_out: Batch) -> Path:
    """`digits` exported for it in INT8, beside FP32."""
    images = installed / "digits.npz"
    np.savez(images, images=held_out.images[:300], labels=held_out.labels[:300])
    ran = vitedge_process(
        *("export", onnx_model, "--target", installed / "desk.toml", "--int8"),
        *("--calibration", "fast", "--calib-data", "digits"),
        *("--eval-data", images, "--duration", 0.2, "--output", installed / "out"),
        PYTHONPATH=str(installed),
    )
    assert "model on desk: ship " in ran.stdout, "it was timed, and recommended"
    return installed / "out" / "model-desk-int8"


@pytest.mark.usefixtures("abacus")
def test_an_export_lowers_proves_and_lints(int8: Path, vitedge: Vitedge) -> None:
    assert sorted(path.name for path in int8.glob("model.*")) == ["model.abacus"]
    report = vitedge("inspect", int8, "--json").document
    assert {finding["rule"] for finding in report["lint"]} == {"gelu"}
    assert any(row["quantized"] and row["role"] == "qk" for row in report["layers"])


@pytest.mark.usefixtures("abacus")
def test_validate_measures_its_accuracy(int8: Path, installed: Path, vitedge: Vitedge) -> None:
    images = installed / "digits.npz"
    ran = vitedge("validate", int8, "--data", images, "--json")
    assert ran.document["accuracy"]["artifact"] > 0.98
    assert 30 < ran.document["numerics"]["sqnr_db"] < 80


@pytest.mark.usefixtures("abacus")
def test_bench_times_it_on_its_own_processor(int8: Path, vitedge: Vitedge) -> None:
    ran = vitedge("bench", int8, "--duration", 0.3, "--json")
    report = ran.document
    assert report["latency"]["speedup"] > 0 and report["parity"]["broken"] == ""
    assert report["size"]["bytes"] == (int8 / "model.abacus").stat().st_size
    assert report["host"]["runtimes"]["abacus"] == "1.5"
    assert "INT8 dot product" not in ran.stderr, "that is said of CPUs"
    refused = vitedge("bench", int8, "--sweep", "threads", code=2)
    assert "runs on a NPU" in refused.stderr


@pytest.mark.usefixtures("abacus")
def test_gate_judges_it(int8: Path, vitedge: Vitedge) -> None:
    verdict = vitedge("gate", int8, "--max-drop", 5, "--max-size-mb", 9, "--json")
    assert verdict.document["answer"] == "passed"


@pytest.mark.usefixtures("abacus")
def test_doctor_knows_it(vitedge: Vitedge) -> None:
    checks = vitedge("doctor", "--json").document["checks"]
    assert {"name": "abacus", "status": "yes", "detail": "1.5"} in checks


@pytest.mark.usefixtures("abacus")
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('runtime = "abacus"', 'runtime = "abacos"', "there is no runtime 'abacos'"),
        ('beads = "7"', 'bead = "7"', "Abacus NPU does not take"),
    ],
)
def test_what_a_target_may_say_is_checked_against_its_runtime(
    vitedge: Vitedge, tmp_path: Path, old: str, new: str, says: str
) -> None:
    target = tmp_path / "desk.toml"
    target.write_text(TARGET.replace(old, new))
    ran = vitedge("export", "--target", target, "--output", tmp_path, code=2)
    assert says in ran.stderr and "did you mean" in ran.stderr


def test_versions_of_a_target_are_honoured(
    int8: Path,
    installed: Path,
    vitedge: Vitedge,
    plug_in: Callable[[Path], None],
    tmp_path: Path,
) -> None:
    info = installed / "abacus_npu-1.5.dist-info"
    newer = tmp_path / "abacus_npu-2.0.dist-info"
    newer.mkdir()
    for file in info.iterdir():
        (newer / file.name).write_text(file.read_text().replace("1.5", "2.0"))
    (tmp_path / "abacus_npu.py").write_text(RUNTIME)
    plug_in(tmp_path)
    ran = vitedge("validate", int8, code=3)
    assert "Abacus NPU 1.0 to before 2; 2.0 is installed" in ran.stderr


def test_without_its_package_an_artifact_says_what_is_missing(int8: Path, vitedge: Vitedge) -> None:
    ran = vitedge("bench", int8, code=3)
    assert "runtime 'abacus'" in ran.stderr and "is not known here" in ran.stderr


def test_a_runtime_that_does_not_load_is_named_and_left_out(
    vitedge_process: Vitedge, tmp_path: Path
) -> None:
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[vitedge.runtimes]\nbroken = broken_npu:Broken\n")
    ran = vitedge_process("doctor", "--json", PYTHONPATH=str(tmp_path))
    assert "runtime 'broken' does not load: No module named 'broken_npu'" in ran.stderr
    assert "broken" not in {check["name"] for check in ran.document["checks"]}
