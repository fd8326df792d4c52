"""What OpenVINO calls the processor of a runtime of ours."""

from __future__ import annotations

from vitedge.core.runtime import runtimes
from vitedge.runtimes.openvino import OpenVINO


def device(runtime: str) -> str:
    """`CPU`, `GPU` or `NPU`; `CPU`, too, of a runtime that is not OpenVINO."""
    record = runtimes()[runtime]
    return record.device if isinstance(record, OpenVINO) else "CPU"
