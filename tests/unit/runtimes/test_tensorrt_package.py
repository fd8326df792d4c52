"""What keeps an engine from being built on a machine, and what a bundle says then."""

import importlib.util
import re

import msgspec
import pytest

from tests.support import small_graphs
from tests.support.machine import HERE, machine_with
from vitedge.core import catalog
from vitedge.core.catalog import in_range
from vitedge.core.errors import InputError, UnavailableError
from vitedge.core.progress import SILENT
from vitedge.core.runtime import VerifiedFiles, runtimes
from vitedge.runtimes.package import load
from vitedge.runtimes.tensorrt.package import obstacle

pytest.importorskip("tensorrt_rtx")

TARGETS = catalog.targets()
NO_TENSORRT = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed"
)


def rtx(**changes):
    return msgspec.structs.replace(TARGETS["rtx-40"], **changes)


def why(target, machine):
    blocked = obstacle(target, machine)
    assert blocked.fix
    return blocked.what


@pytest.mark.parametrize(
    ("target", "machine", "reason"),
    [
        ("tensorrt", machine_with("x86_64"), "this machine has no NVIDIA GPU"),
        ("jetson-orin", machine_with("aarch64"), "this machine has no NVIDIA GPU"),
        (
            "jetson-orin",
            machine_with("x86_64", "8.7"),
            "this machine is x86_64, and the target aarch64",
        ),
        (
            "jetson-orin",
            machine_with("aarch64", "8.6", "8.7"),
            "the GPU here, GPU 8.6, has compute capability 8.6, and the target needs 8.7",
        ),
    ],
)
def test_tensorrt_needs_the_gpu_that_the_engine_is_for(target, machine, reason):
    blocked = obstacle(TARGETS[target], machine)
    assert blocked.what == reason
    assert "vitedge build" in blocked.fix
    assert "TensorRT 10.3 or newer" in blocked.fix
    assert "pip install 'vitedge[tensorrt]'" in blocked.fix and "JetPack" in blocked.fix
    assert ("CUDA_VISIBLE_DEVICES" in blocked.fix) == (len(machine.gpus) > 1)


@NO_TENSORRT
@pytest.mark.parametrize(
    ("target", "architecture"), [("tensorrt", "x86_64"), ("jetson-orin", "aarch64")]
)
def test_with_the_gpu_it_needs_the_package(target, architecture):
    blocked = obstacle(TARGETS[target], machine_with(architecture, "8.7"))
    assert blocked.what == "TensorRT is not installed"
    assert "pip install 'vitedge[tensorrt]'" in blocked.fix


@pytest.mark.parametrize("name", ["rtx-30", "rtx-40", "rtx-50"])
def test_tensorrt_rtx_compiles_for_any_gpu_on_any_machine(name):
    for machine in (("x86_64",), ("x86_64", "8.6"), ("aarch64", "8.7")):
        assert obstacle(TARGETS[name], machine_with(*machine)) is None


@pytest.mark.parametrize("weights", ["refittable", "stripped"])
def test_weights_that_are_replaced_later_take_the_gpu(weights):
    options = msgspec.structs.replace(TARGETS["rtx-40"].compile, weights=weights)
    assert why(rtx(compile=options), machine_with("x86_64")) == "this machine has no NVIDIA GPU"
    assert obstacle(rtx(compile=options), machine_with("x86_64", "8.9")) is None


@pytest.mark.parametrize("versions", [("1.0", "1.7"), ("2", "3"), ("99", "")])
def test_a_version_out_of_range_is_named_with_the_range(versions):
    blocked = obstacle(rtx(versions=versions), HERE)
    assert load("tensorrt_rtx").__version__ in blocked.what and "out of range" in blocked.what
    assert f"takes {versions[0]} to before {versions[1]}" in blocked.what
    assert f"tensorrt-rtx>={versions[0]}" in blocked.fix


@pytest.mark.parametrize(
    ("versions", "inside", "outside"),
    [
        (("10.3", "12"), ("10.3.0", "10.16.1.11", "11.4.1"), ("10.2.9", "9.0.1", "12.0.0", "12")),
        (("1.7", "2"), ("1.7.1.116",), ("1.6.9",)),
        (("", ""), ("8.6",), ()),
        (("", "8"), (), ("8.6",)),
    ],
)
def test_versions_are_compared_by_their_numbers(versions, inside, outside):
    assert all(in_range(version, versions) for version in inside)
    assert not any(in_range(version, versions) for version in outside)


# -- the bundle that comes of it ----------------------------------------------------------------


def test_a_bundle_for_another_machine_says_why_it_waits_and_what_int8_becomes(tmp_path):
    model = small_graphs.write(small_graphs.ATTENTION, tmp_path / "graph.onnx")
    target = TARGETS["jetson-thor" if HERE.machine != "aarch64" else "jetson-orin"]
    out = tmp_path / "bundle"
    out.mkdir()
    build = runtimes()["tensorrt"].lower(model, target, out, SILENT)
    assert (build.state, build.why) == ("on the device", why(target, HERE))
    assert (build.compiled.planned, build.compiled.int8, build.compiled.fused) == (6, 6, 1)
    assert [path.name for path in out.iterdir()] == ["model.onnx"]
    with pytest.raises(UnavailableError, match=re.escape(build.why)):  # now it is wanted
        runtimes()["tensorrt"].lower(out / "model.onnx", target, out, SILENT)


def test_a_bundle_for_an_rtx_pc_has_its_engine(tmp_path):
    model = small_graphs.write(small_graphs.LINEAR, tmp_path / "graph.onnx")
    out = tmp_path / "bundle"
    out.mkdir()
    build = runtimes()["tensorrt_rtx"].lower(model, TARGETS["rtx-50"], out, SILENT)
    assert (build.state, build.why) == ("done", "")
    assert build.compiled.compute_capability == "12.0"
    assert sorted(path.name for path in out.iterdir()) == ["model.engine", "model.onnx"]


@pytest.mark.parametrize(
    ("target", "missing"), [("tensorrt", "tensorrt"), ("rtx-40", "cuda-bindings")]
)
def test_an_engine_that_cannot_be_opened_says_what_is_missing(tmp_path, target, missing):
    runtime = runtimes()[TARGETS[target].runtime]
    with (
        pytest.raises(InputError, match="no engine yet: it is built on the device") as no_engine,
        runtime.open(VerifiedFiles(tmp_path, ()), TARGETS[target]),
    ):
        pass
    assert f"vitedge build {tmp_path}" in no_engine.value.fix
    if importlib.util.find_spec(missing.partition("-")[0]):
        pytest.skip(f"{missing} is installed")
    with (
        pytest.raises(UnavailableError, match=f"'{missing}'") as no_package,
        runtime.open(VerifiedFiles(tmp_path, ("model.engine",)), TARGETS[target]),
    ):
        pass
    assert f"vitedge[{runtime.extra}]" in no_package.value.fix
