"""The processes that train together: one prepares and writes, the others join for training."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list

from vitedge.core.errors import VitedgeError
from vitedge.core.machine import describe_machine
from vitedge.core.spec import Training

_PATIENCE = timedelta(hours=12)
"""That others wait while one exports and calibrates."""


def gather() -> Accelerator:
    """This process's place among those that `accelerate launch` or `torchrun` started; or alone."""
    return Accelerator(
        cpu=not torch.accelerator.is_available(),  # else processes on CPUs do not find each other
        mixed_precision="no",  # else a prepared model computes in bf16 wherever it is used
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )


def bf16(settings: Training, device: torch.device) -> bool:
    """Whether steps are computed in bf16: where `settings` say so, or hardware multiplies in it."""
    if settings.floats != "auto":
        return settings.floats == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    isa = describe_machine(threads=0).isa or ()
    return device.type == "cpu" and bool({"amx_int8", "avx512_bf16"} & set(isa))


def share(accelerator: Accelerator, work: Any) -> Any:
    """What the first process gives, in every process; a VitedgeError is raised in every one."""
    held = [work]
    if accelerator.num_processes > 1:
        broadcast_object_list(held)
    if isinstance(held[0], VitedgeError):
        raise held[0]
    return held[0]
