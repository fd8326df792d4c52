"""What NVIDIA's management library tells of the GPU in use. Never yet run on a GPU."""

from __future__ import annotations

import os
from typing import Any

from vitedge.core.errors import UnavailableError, error_line


class NvmlGpu:
    """The first GPU this process may use."""

    def __init__(self) -> None:
        """Raises UnavailableError without nvidia-ml-py, a driver or a GPU."""
        try:
            import pynvml
        except ImportError as error:
            raise UnavailableError(
                "the package 'nvidia-ml-py' is not installed", fix="pip install nvidia-ml-py"
            ) from error
        self._api = pynvml
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
        try:
            pynvml.nvmlInit()
            if first.isdigit():
                self._handle = pynvml.nvmlDeviceGetHandleByIndex(int(first))
            else:
                self._handle = pynvml.nvmlDeviceGetHandleByUUID(first)
        except pynvml.NVMLError as error:
            raise UnavailableError(f"NVML shows no GPU: {error_line(error)}") from error

    @property
    def name(self) -> str:
        return str(self._ask("nvmlDeviceGetName"))

    def used_bytes(self) -> int:
        """Memory in use by all processes. Raises UnavailableError."""
        return int(self._ask("nvmlDeviceGetMemoryInfo").used)

    def energy_j(self) -> float:
        """Energy since the driver was loaded, joules. Raises UnavailableError."""
        return float(self._ask("nvmlDeviceGetTotalEnergyConsumption")) / 1e3

    def _ask(self, question: str) -> Any:
        try:
            return getattr(self._api, question)(self._handle)
        except self._api.NVMLError as error:
            raise UnavailableError(f"NVML does not tell: {error_line(error)}") from error
