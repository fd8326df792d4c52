"""Names become targets and recipes, for the machine one is on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from vitedge import catalog, host
from vitedge.errors import InputError, UnavailableError
from vitedge.host import Host

ROOT = Path(__file__).parents[2]
HERE = host.describe(threads=0)


def machine(name: str, *isa: str) -> Host:
    return msgspec.structs.replace(HERE, machine=name, isa=isa)


X86 = machine("x86_64", "avx2")
VNNI = machine("x86_64", "avx2", "avx512f", "avx512_vnni")
ARM = machine("aarch64", "asimddp")


def test_every_shipped_file_is_in_the_catalogue() -> None:
    assert set(catalog.targets()) == {p.stem for p in (ROOT / "targets").glob("*.toml")}
    assert set(catalog.calibrations()) == {p.stem for p in (ROOT / "calibration").glob("*.toml")}


@pytest.mark.parametrize("name", catalog.targets())
def test_a_target_is_found_by_its_name_on_any_machine(name: str) -> None:
    for here in (X86, VNNI, ARM, machine("riscv64")):
        assert catalog.find_target(name, here).name == name


@pytest.mark.parametrize("name", catalog.calibrations())
def test_a_recipe_is_found_by_its_name(name: str) -> None:
    assert catalog.find_calibration(name).name == name


@pytest.mark.parametrize(
    ("runtime", "here", "target"),
    [
        ("onnxruntime", X86, "onnxruntime-cpu"),
        ("onnxruntime", VNNI, "onnxruntime-vnni"),
        ("onnxruntime", machine("x86_64", "avx_vnni"), "onnxruntime-vnni"),
        ("onnxruntime", ARM, "onnxruntime-arm"),
        ("onnxruntime", machine("arm64"), "onnxruntime-arm"),
        ("openvino", X86, "openvino-cpu"),
        ("openvino", VNNI, "openvino-vnni"),
        ("openvino", machine("AMD64"), "openvino-cpu"),
    ],
)
def test_a_runtime_stands_for_its_target_that_fits_the_machine(
    runtime: str, here: Host, target: str
) -> None:
    found = catalog.find_target(runtime, here)
    assert found.name == target
    assert catalog.runs_on(found, here)


def test_a_cpu_of_unknown_features_gets_what_every_cpu_runs() -> None:
    unknown = msgspec.structs.replace(HERE, machine="x86_64", isa=None)
    assert catalog.find_target("onnxruntime", unknown).name == "onnxruntime-cpu"


def test_a_runtime_without_a_target_for_this_machine_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match="riscv64") as caught:
        catalog.find_target("onnxruntime", machine("riscv64"))
    assert "targets list" in caught.value.fix


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("openvino-cpuu", "openvino-cpu"), ("onnx-runtime", "onnxruntime"), ("opnvino", "openvino")],
)
def test_a_misspelt_target_is_answered_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"unknown target '{name}'") as caught:
        catalog.find_target(name, X86)
    assert f"'{nearest}'" in caught.value.fix


def test_a_target_like_no_other_is_answered_with_all() -> None:
    with pytest.raises(InputError) as caught:
        catalog.find_target("zzz", X86)
    assert all(name in caught.value.fix for name in ("openvino-cpu", "onnxruntime"))


def test_a_misspelt_recipe_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown calibration recipe 'thorogh'") as caught:
        catalog.find_calibration("thorogh")
    assert "'thorough'" in caught.value.fix


def test_a_file_of_ones_own_is_found_by_its_path(tmp_path: Path) -> None:
    text = (ROOT / "targets" / "onnxruntime-cpu.toml").read_text()
    mine = tmp_path / "mine.toml"
    mine.write_text(text.replace('"onnxruntime-cpu"', '"mine"', 1))
    assert catalog.find_target(str(mine), X86).name == "mine"
    with pytest.raises(InputError, match=r"absent\.toml"):
        catalog.find_target(str(tmp_path / "absent.toml"), X86)


def test_a_target_runs_only_on_its_architecture_and_cpu_features() -> None:
    known = catalog.targets()
    assert catalog.runs_on(known["openvino-vnni"], VNNI)
    assert not catalog.runs_on(known["openvino-vnni"], X86)
    assert not catalog.runs_on(known["openvino-vnni"], ARM)
    assert catalog.runs_on(known["openvino-cpu"], VNNI)
