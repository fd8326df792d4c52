"""The table of a selftest's steps: what a machine can run of it, and what it says of the rest."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.support.machine import HERE, machine_with
from vitedge.core import catalog
from vitedge.export.selftest.plan import plan
from vitedge.export.selftest.subjects import MODELS, exports, planned


def steps(target, host, *, quick=False):
    taken = planned(target, MODELS[:1] if quick else MODELS)
    return {step.record.name: step for step in plan(target, host, taken, quick=quick)}


@pytest.mark.parametrize("target", catalog.targets().values(), ids=lambda target: target.name)
def test_every_precision_of_a_target_is_built_once(target):
    made = [precision for _, group in exports(target) for precision in group]
    assert sorted(made) == sorted(target.precisions)
    places = [subject.place for subject in planned(target, MODELS)]
    assert len(set(places)) == len(places) == 2 * len(made)


def test_a_machine_with_the_gpu_runs_every_step():
    target = catalog.targets()["tensorrt"]
    host = replace(machine_with("x86_64", "8.9"), runtimes={**HERE.runtimes, "tensorrt": "10.16"})
    every = steps(target, host)
    assert {step.record.status for step in every.values()} == {"waiting"}
    for name in (
        *("engine of vit_tiny_patch16_224 fp8", "refuse another machine's digits fp32"),
        *("refuse too little device memory digits fp32", "what is compiled of digits fp8"),
    ):
        assert name in every
    assert every["parity of digits fp8"].after == "build digits fp8"


def test_a_gpu_without_fp8_is_told_so_and_all_else_runs():
    target = catalog.targets()["tensorrt"]
    host = replace(machine_with("x86_64", "8.6"), runtimes={**HERE.runtimes, "tensorrt": "10.16"})
    lacking = {n: s.record for n, s in steps(target, host).items() if s.record.status != "waiting"}
    assert set(lacking) == {f"build {model} fp8" for model in MODELS}
    assert all("8.6" in record.says for record in lacking.values())


def test_what_a_machine_lacks_is_the_reason():
    target = catalog.targets()["openvino-bf16"]
    old = replace(HERE, machine="x86_64", isa=("avx512_vnni",))
    says = {name: step.record.says for name, step in steps(target, old, quick=True).items()}
    assert says["parity of digits bf16"] == "BF16 needs avx512_bf16"
    assert says["parity of digits int8"] == says["bench digits"] == ""
    without = replace(old, runtimes={"onnxruntime": "1.31"})
    says = {name: step.record.says for name, step in steps(target, without, quick=True).items()}
    assert says["bench digits"] == "OpenVINO is not installed"
    assert "drift of digits" not in says, "a quick one leaves it out"
