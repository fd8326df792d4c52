"""What keeps an engine from being built on a machine, and what a bundle says then."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests import small_graphs
from vitedge.core import catalog
from vitedge.core.catalog import in_range
from vitedge.core.errors import InputError, UnavailableError
from vitedge.core.gpu import Gpu
from vitedge.core.host import Host
from vitedge.core.machine import describe_machine
from vitedge.core.progress import SILENT
from vitedge.core.runtime import VerifiedFiles, runtimes
from vitedge.core.spec import Target
from vitedge.runtimes.package import load
from vitedge.runtimes.tensorrt.package import obstacle

pytest.importorskip("tensorrt_rtx")

TARGETS = catalog.targets()
HERE = describe_machine(threads=0)
NO_TENSORRT = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed"
)


def machine_with(name: str, *capabilities: str) -> Host:
    gpus = tuple(Gpu(f"GPU {capability}", capability, 2**33) for capability in capabilities)
    return msgspec.structs.replace(HERE, machine=name, gpus=gpus)


def rtx(**changes: Any) -> Target:
    return msgspec.structs.replace(TARGETS["rtx-40"], **changes)


def why(target: Target, machine: Host) -> str:
    blocked = obstacle(target, machine)
    assert blocked is not None and blocked.fix
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
def test_tensorrt_needs_the_gpu_that_the_engine_is_for(
    target: str, machine: Host, reason: str
) -> None:
    blocked = obstacle(TARGETS[target], machine)
    assert blocked is not None and blocked.what == reason
    assert "vitedge build" in blocked.fix
    assert "TensorRT 10.3 or newer" in blocked.fix
    assert "pip install 'vitedge[tensorrt]'" in blocked.fix and "JetPack" in blocked.fix
    assert ("CUDA_VISIBLE_DEVICES" in blocked.fix) == (len(machine.gpus) > 1)


@NO_TENSORRT
@pytest.mark.parametrize(
    ("target", "architecture"), [("tensorrt", "x86_64"), ("jetson-orin", "aarch64")]
)
def test_with_the_gpu_it_needs_the_package(target: str, architecture: str) -> None:
    blocked = obstacle(TARGETS[target], machine_with(architecture, "8.7"))
    assert blocked is not None and blocked.what == "TensorRT is not installed"
    assert "pip install 'vitedge[tensorrt]'" in blocked.fix


@pytest.mark.parametrize("name", ["rtx-30", "rtx-40", "rtx-50"])
def test_tensorrt_rtx_compiles_for_any_gpu_on_any_machine(name: str) -> None:
    for machine in (
        machine_with("x86_64"),
        machine_with("x86_64", "8.6"),
        machine_with("aarch64", "8.7"),
    ):
        assert obstacle(TARGETS[name], machine) is None


@pytest.mark.parametrize("weights", ["refittable", "stripped"])
def test_weights_that_are_replaced_later_take_the_gpu(weights: str) -> None:
    options = msgspec.structs.replace(TARGETS["rtx-40"].compile, weights=weights)
    assert why(rtx(compile=options), machine_with("x86_64")) == "this machine has no NVIDIA GPU"
    assert obstacle(rtx(compile=options), machine_with("x86_64", "8.9")) is None


@pytest.mark.parametrize("versions", [("1.0", "1.7"), ("2", "3"), ("99", "")])
def test_a_version_out_of_range_is_named_with_the_range(versions: tuple[str, str]) -> None:
    blocked = obstacle(rtx(versions=versions), HERE)
    assert blocked is not None
    assert load("tensorrt_rtx").__version__ in blocked.what and "out of range" in blocked.what
    assert f"takes {versions[0]} to before {versions[1]}" in blocked.what
    assert f"tensorrt-rtx>={versions[0]}" in blocked.fix


@pytest.mark.parametrize(
    ("version", "versions", "inside"),
    [
        ("10.3.0", ("10.3", "12"), True),
        ("10.16.1.11", ("10.3", "12"), True),
        ("11.4.1", ("10.3", "12"), True),
        ("10.2.9", ("10.3", "12"), False),
        ("9.0.1", ("10.3", "12"), False),
        ("12.0.0", ("10.3", "12"), False),
        ("12", ("10.3", "12"), False),
        ("1.7.1.116", ("1.7", "2"), True),
        ("8.6", ("", ""), True),
        ("8.6", ("", "8"), False),
    ],
)
def test_versions_are_compared_by_their_numbers(
    version: str, versions: tuple[str, str], inside: bool
) -> None:
    assert in_range(version, versions) is inside


# -- the bundle that comes of it ----------------------------------------------------------------


def test_a_bundle_for_another_machine_says_why_it_waits_and_what_int8_becomes(
    tmp_path: Path,
) -> None:
    model = small_graphs.write(small_graphs.ATTENTION, tmp_path / "graph.onnx")
    out = tmp_path / "bundle"
    out.mkdir()
    elsewhere = "jetson-thor" if HERE.machine != "aarch64" else "jetson-orin"
    engine_build = runtimes()["tensorrt"].lower(model, TARGETS[elsewhere], out, SILENT)
    assert engine_build is not None and engine_build.state == "on the device"
    assert engine_build.why == why(TARGETS[elsewhere], HERE)
    assert engine_build.compiled is not None
    assert (
        engine_build.compiled.planned,
        engine_build.compiled.int8,
        engine_build.compiled.fused,
    ) == (6, 6, 1)
    assert [path.name for path in out.iterdir()] == ["model.onnx"]


def test_a_bundle_for_an_rtx_pc_has_its_engine(tmp_path: Path) -> None:
    model = small_graphs.write(small_graphs.LINEAR, tmp_path / "graph.onnx")
    out = tmp_path / "bundle"
    out.mkdir()
    engine_build = runtimes()["tensorrt_rtx"].lower(model, TARGETS["rtx-50"], out, SILENT)
    assert engine_build is not None and (engine_build.state, engine_build.why) == ("done", "")
    assert engine_build.compiled is not None and engine_build.compiled.compute_capability == "12.0"
    assert sorted(path.name for path in out.iterdir()) == ["model.engine", "model.onnx"]


@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt_rtx"])
def test_no_engine_is_opened_where_there_is_none(tmp_path: Path, runtime: str) -> None:
    target = TARGETS["tensorrt" if runtime == "tensorrt" else "rtx-40"]
    with (
        pytest.raises(InputError, match="no engine yet: it is built on the device") as caught,
        runtimes()[runtime].open(VerifiedFiles(tmp_path, ()), target),
    ):
        pass
    assert f"vitedge build {tmp_path}" in caught.value.fix


@pytest.mark.parametrize(
    ("runtime", "missing"), [("tensorrt", "tensorrt"), ("tensorrt_rtx", "cuda-bindings")]
)
def test_a_package_that_running_needs_is_named_with_its_extra(
    tmp_path: Path, runtime: str, missing: str
) -> None:
    if importlib.util.find_spec(missing.partition("-")[0]):
        pytest.skip(f"{missing} is installed")
    (tmp_path / "model.engine").write_bytes(b"engine")
    target = TARGETS["tensorrt" if runtime == "tensorrt" else "rtx-40"]
    with (
        pytest.raises(UnavailableError, match=f"'{missing}'") as caught,
        runtimes()[runtime].open(VerifiedFiles(tmp_path, ("model.engine",)), target),
    ):
        pass
    assert f"vitedge[{runtime.replace('_', '-')}]" in caught.value.fix
