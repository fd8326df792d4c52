"""Intel's GPUs and NPUs of this machine, as the kernel lists them; no package is needed to ask."""

from __future__ import annotations

import sys
from pathlib import Path

_VENDOR = "0x8086"
_NODES = {"GPU": "sys/class/drm/renderD*", "NPU": "sys/class/accel/accel*"}


def intel_devices(root: Path) -> tuple[str, ...] | None:
    """`GPU` and `NPU`, as OpenVINO names them, where `root` has one; None but on Linux."""
    if sys.platform != "linux":
        return None
    return tuple(
        name
        for name, pattern in _NODES.items()
        if any(_vendor(node) == _VENDOR for node in sorted(root.glob(pattern)))
    )


def _vendor(node: Path) -> str:
    try:
        return (node / "device" / "vendor").read_text().strip()
    except OSError:
        return ""
