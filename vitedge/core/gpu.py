"""The NVIDIA GPUs of this machine, as the CUDA driver names them; no package is needed to ask."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import msgspec

_SUCCESS = 0
_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""


class Gpu(msgspec.Struct, frozen=True):
    """One GPU."""

    name: str
    compute_capability: str
    """As NVIDIA numbers them, e.g. `8.7`."""
    memory_bytes: int


@cache
def gpus() -> tuple[Gpu, ...]:
    """Every GPU the driver shows this process, in CUDA's order; none where there is no driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int()
        if driver.cuInit(0) != _SUCCESS or driver.cuDeviceGetCount(ctypes.byref(count)) != _SUCCESS:
            return ()
        return tuple(_gpu(driver, ordinal) for ordinal in range(count.value))
    except (OSError, AttributeError):  # no driver, or none that knows these calls
        return ()


def _gpu(driver: ctypes.CDLL, ordinal: int) -> Gpu:
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    driver.cuDeviceGetName(name, len(name), ordinal)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), ordinal)
    version = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, ordinal)
        version.append(str(value.value))
    return Gpu(name.value.decode(errors="replace"), ".".join(version), memory.value)
