"""Names become targets and recipes, for the machine one is on."""

from pathlib import Path

import msgspec
import pytest

from tests.support.machine import HERE, machine_with
from vitedge.core import catalog
from vitedge.core.errors import InputError, UnavailableError

ROOT = Path(__file__).parents[3]


def machine(name, *isa):
    return msgspec.structs.replace(HERE, machine=name, isa=isa)


X86 = machine("x86_64", "avx2")
VNNI = machine("x86_64", "avx2", "avx512f", "avx512_vnni")
ARM = machine("aarch64", "asimddp")
ZEN4 = machine("x86_64", "avx2", "avx512f", "avx512_vnni", "avx512_bf16")
AMX = machine("x86_64", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
GRAVITON3 = machine("aarch64", "asimddp", "i8mm", "bf16")


PC, ORIN = machine_with("x86_64", "8.9"), machine_with("aarch64", "8.7")


def test_every_shipped_file_is_in_the_catalogue():
    assert set(catalog.targets()) == {p.stem for p in (ROOT / "targets").glob("*.toml")}
    assert set(catalog.calibrations()) == {p.stem for p in (ROOT / "calibration").glob("*.toml")}


@pytest.mark.parametrize("name", catalog.targets())
def test_a_target_is_found_by_its_name_on_any_machine(name):
    for user_host in (X86, VNNI, ARM, machine("riscv64")):
        assert catalog.find_target(name, user_host).name == name


@pytest.mark.parametrize(
    ("runtime", "user_host", "target"),
    [
        ("onnxruntime", X86, "onnxruntime-cpu"),
        ("onnxruntime", VNNI, "onnxruntime-vnni"),
        ("onnxruntime", machine("x86_64", "avx_vnni"), "onnxruntime-vnni"),
        ("onnxruntime", ARM, "onnxruntime-arm"),
        ("onnxruntime", machine("arm64"), "onnxruntime-arm"),
        ("openvino", X86, "openvino-cpu"),
        ("openvino", VNNI, "openvino-vnni"),
        ("openvino", machine("AMD64"), "openvino-cpu"),
        ("openvino", ZEN4, "openvino-bf16"),
        ("openvino", AMX, "openvino-bf16"),
        ("onnxruntime", AMX, "onnxruntime-vnni"),
        ("onnxruntime", machine("aarch64", "asimddp", "i8mm"), "onnxruntime-arm"),
        ("onnxruntime", GRAVITON3, "onnxruntime-arm-bf16"),
        ("onnxruntime", msgspec.structs.replace(X86, isa=None), "onnxruntime-cpu"),  # not known
        ("tensorrt", PC, "tensorrt"),
        ("tensorrt", ORIN, "tensorrt"),
        ("tensorrt_rtx", PC, "rtx-40"),
        ("tensorrt_rtx", machine_with("AMD64", "8.6", "8.9"), "rtx-30"),
        ("tensorrt_rtx", machine_with("x86_64", "12.0"), "rtx-50"),
    ],
)
def test_a_runtime_stands_for_its_target_that_fits_the_machine(runtime, user_host, target):
    chosen = catalog.find_target(runtime, user_host)
    assert chosen.name == target
    assert catalog.runs_on(chosen, user_host)


def test_a_runtime_without_a_target_for_this_machine_is_unavailable():
    with pytest.raises(UnavailableError, match="riscv64") as caught:
        catalog.find_target("onnxruntime", machine("riscv64"))
    assert "targets list" in caught.value.fix


def test_a_bundle_for_tensorrt_is_made_on_a_machine_without_gpu():
    for user_host in (machine_with("x86_64"), machine("riscv64")):
        assert catalog.find_target("tensorrt", user_host).name == "tensorrt"


@pytest.mark.parametrize(
    ("user_host", "said"),
    [(machine_with("x86_64"), "no GPU"), (machine_with("x86_64", "7.5"), "GPU 7.5 7.5")],
)
def test_a_machine_that_is_no_rtx_pc_is_answered_with_those_to_name(user_host, said):
    with pytest.raises(UnavailableError, match=f"fits this machine .x86_64, {said}") as caught:
        catalog.find_target("tensorrt_rtx", user_host)
    assert "rtx-30, rtx-40, rtx-50" in caught.value.fix


@pytest.mark.parametrize(
    ("target", "user_host", "lacking"),
    [
        ("rtx-40", PC, ""),
        ("rtx-30", PC, "an NVIDIA GPU of compute capability 8.6"),
        ("rtx-30", machine_with("x86_64", "8.9", "8.6"), "an NVIDIA GPU of compute capability 8.6"),
        ("rtx-40", machine_with("x86_64", "8.9", "8.6"), ""),
        ("tensorrt", PC, ""),
        ("tensorrt", machine_with("x86_64"), "an NVIDIA GPU"),
        ("jetson-orin", ORIN, ""),
        ("jetson-orin", PC, "aarch64"),
        ("jetson-thor", ORIN, "an NVIDIA GPU of compute capability 11.0"),
        ("openvino-vnni", PC, "avx512_vnni or avx_vnni or amx_int8"),
        ("openvino-vnni", X86, "avx512_vnni or avx_vnni or amx_int8"),
        ("openvino-vnni", VNNI, ""),
        ("openvino-vnni", ARM, "x86_64 or AMD64"),
        ("openvino-cpu", machine_with("x86_64"), ""),
        ("openvino-bf16", X86, "avx512_vnni or amx_int8"),
        ("openvino-bf16", VNNI, "avx512_bf16"),
        ("openvino-bf16", AMX, ""),
        ("onnxruntime-arm-bf16", ARM, "bf16"),
        ("onnxruntime-arm-bf16", GRAVITON3, ""),
        ("openvino-cpu", VNNI, ""),
    ],
)
def test_a_target_runs_where_machine_cpu_features_and_the_first_gpu_are_its_own(
    target, user_host, lacking
):
    known = catalog.targets()[target]
    assert catalog.lacks(known, user_host) == lacking
    assert catalog.runs_on(known, user_host) == (not lacking)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("openvino-cpuu", "did you mean 'openvino-cpu'"),
        ("onnx-runtime", "did you mean 'onnxruntime'"),
        ("opnvino", "did you mean 'openvino'"),
        ("zzz", ", ".join(sorted({*catalog.targets(), "onnxruntime", "openvino"})[:4])),
    ],
)
def test_a_misspelt_target_is_answered_with_the_nearest_or_all(name, nearest):
    with pytest.raises(InputError, match=f"unknown target '{name}'") as caught:
        catalog.find_target(name, X86)
    assert nearest in caught.value.fix


def test_a_recipe_is_found_by_its_name_and_a_misspelt_one_answered_with_the_nearest():
    for name in catalog.calibrations():
        assert catalog.find_calibration(name).name == name
    with pytest.raises(InputError, match="unknown calibration recipe 'thorogh'") as caught:
        catalog.find_calibration("thorogh")
    assert "'thorough'" in caught.value.fix


def test_a_file_of_ones_own_is_found_by_its_path(tmp_path):
    text = (ROOT / "targets" / "onnxruntime-cpu.toml").read_text()
    file = tmp_path / "mine.toml"
    file.write_text(text.replace('"onnxruntime-cpu"', '"mine"', 1))
    assert catalog.find_target(str(file), X86).name == "mine"
    with pytest.raises(InputError, match=r"absent\.toml"):
        catalog.find_target(str(tmp_path / "absent.toml"), X86)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('runtime = "openvin"', "there is no runtime 'openvin'"),
        ('CACHE_DIR = "/tmp"', "'CACHE_DIR' in its options, which OpenVINO does not take"),
    ],
)
def test_a_target_is_checked_against_its_runtime(tmp_path, line, says):
    text = (ROOT / "targets" / "openvino-cpu.toml").read_text(encoding="utf-8")
    key = line.split()[0]
    changed = [line if row.startswith(key) else row for row in text.splitlines()]
    file = tmp_path / "mine.toml"
    file.write_text("\n".join(changed if line in changed else [*changed, line]))
    with pytest.raises(InputError) as caught:
        catalog.find_target(str(file), X86)
    assert says in caught.value.what and caught.value.fix


@pytest.mark.parametrize("versions", [("1.0", "2.0"), ("", "2.0"), ("99", "")])
def test_versions_are_honoured_for_every_runtime(versions):
    for name in ("onnxruntime-cpu", "openvino-cpu"):
        target = msgspec.structs.replace(catalog.targets()[name], versions=versions)
        installed = msgspec.structs.replace(X86, runtimes={target.runtime: "2026.4.1"})
        needs = catalog.lacks(target, installed)
        if versions[0] == "99":
            assert not needs
        else:
            assert "before 2.0; 2026.4.1 is installed" in needs
        bare = msgspec.structs.replace(X86, runtimes={})
        assert not catalog.lacks(target, bare), "who opens it says what is not installed"
