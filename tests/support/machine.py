"""The CPU targets that every machine of this architecture runs, whatever its CPU has beside.

A test that runs what it exports names one of these, so that its figures are the same on each CPU.
`--target onnxruntime` takes the best one instead: with VNNI or AMX, `onnxruntime-vnni`.
"""

import pytest
from msgspec.structs import replace

from vitedge.core import catalog
from vitedge.core.gpu import Gpu
from vitedge.core.machine import describe_machine
from vitedge.core.runtime import runtime_of

HERE = describe_machine(threads=0)
TARGETS = {
    target.runtime: target.name
    for target in catalog.targets().values()
    if runtime_of(target).processor == "cpu" and HERE.machine in target.machines
    if not target.isa and not target.bf16_isa
}
"""By runtime. OpenVINO has none on Arm."""
ONNXRUNTIME = TARGETS["onnxruntime"]


def machine_with(name, *capabilities):
    """A machine of the architecture `name` with a GPU of each of these compute capabilities."""
    gpus = tuple(Gpu(f"GPU {capability}", capability, 2**33) for capability in capabilities)
    return replace(HERE, machine=name, isa=("avx2",), gpus=gpus)


def target_of(runtime):
    """The target of `runtime`; skips the test where there is none."""
    if runtime not in TARGETS:
        pytest.skip(f"no target of the runtime '{runtime}' fits {HERE.machine}")
    return TARGETS[runtime]
