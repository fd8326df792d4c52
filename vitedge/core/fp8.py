"""Which GPUs multiply in FP8, and what an FP8 export makes of a target that is for others, too."""

from __future__ import annotations

import msgspec

from vitedge.core import catalog
from vitedge.core.errors import InputError
from vitedge.core.host import Host
from vitedge.core.spec import Target

CAPABILITIES = ("8.9", "9.0", "10.0", "10.3", "11.0", "12.0", "12.1")
"""Compute capabilities of those there are."""
GPUS = "8.9 (Ada), 9.0 (Hopper), 10.x and 12.x (Blackwell) or 11.0 (Thor)"
_LEAST = (8, 9)


def fp8_target(target: Target, machine: Host) -> Target:
    """`target` with FP8 products, for those of its GPUs that have them.

    INT8's limits on attention are not FP8's: TensorRT-RTX 1.7 fuses heads of any size, and more
    tokens. Raises InputError where none of its GPUs has FP8, or its runtime has not; for a target
    of any GPU, where the one of this `machine` has not.
    """
    capabilities = target.compute_capabilities
    if not capabilities:
        capabilities = CAPABILITIES
        here = machine.gpus[0] if machine.gpus else None
        if here and "fp8" in target.precisions and not _has_fp8(here.compute_capability):
            raise _refused(
                f"the GPU here, {here.name}, has compute capability {here.compute_capability}"
            )
    capable = tuple(filter(_has_fp8, capabilities))
    if "fp8" not in target.precisions or not capable:
        gpus = " and ".join(target.compute_capabilities)
        of = f" (compute capability {gpus})" if gpus else ""
        raise _refused(f"target '{target.name}'{of} does not run fp8")
    quantization = msgspec.structs.replace(
        target.quantization, number_format="fp8", attention_head_sizes=(), attention_max_tokens=0
    )
    return msgspec.structs.replace(target, compute_capabilities=capable, quantization=quantization)


def _has_fp8(capability: str) -> bool:
    major, minor = capability.split(".")
    return (int(major), int(minor)) >= _LEAST


def _refused(why: str) -> InputError:
    known = catalog.targets().values()
    names = [f"`targets={target.name!r}`" for target in known if "fp8" in target.precisions]
    return InputError(
        f"{why}: FP8 takes TensorRT and an NVIDIA GPU of compute capability {GPUS}",
        fix=f"pass {' or '.join(names)}, or `precision='int8'`",
    )
