"""Which TensorRT is installed, and what keeps it from building an engine on this machine."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from typing import Any

from vitedge.core import catalog
from vitedge.core.errors import UnavailableError, error_line, missing
from vitedge.core.host import Host
from vitedge.core.spec import Target

TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
EXTRAS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
_JETSON = "a Jetson has it from JetPack: use a virtual environment with --system-site-packages"


@dataclass(frozen=True)
class Obstacle:
    """Why no engine can be built here, and what to do about it."""

    why: str
    fix: str


def load(runtime: str) -> Any:
    """The Python package of a runtime. Raises UnavailableError where it is missing or broken."""
    try:
        return importlib.import_module(runtime)
    except ModuleNotFoundError as error:
        raise missing(error.name or runtime, EXTRAS[runtime]) from error
    except (ImportError, OSError, RuntimeError) as error:  # its libraries do not load
        raise UnavailableError(
            f"{TITLES[runtime]} is installed but does not load: {error_line(error)}",
            fix=f"pip install --force-reinstall 'vitedge[{EXTRAS[runtime]}]'",
        ) from error


def obstacle(target: Target, here: Host) -> Obstacle | None:
    """What keeps an engine for `target` from being built on the machine `here`; None if nothing.

    TensorRT builds on the GPU that the engine is for. TensorRT-RTX needs none, unless weights are
    to be replaced in the engine later.
    """
    title, low = TITLES[target.runtime], target.versions[0]
    ahead_of_time = target.runtime == "tensorrt_rtx" and target.compile.weights == "inside"
    if not ahead_of_time and (lacking := _lacking(target, here)):
        extra = f"pip install 'vitedge[{EXTRAS[target.runtime]}]'"
        how = f"{extra}; {_JETSON}" if target.runtime == "tensorrt" else extra
        wanted = f"{title} {low} or newer" if low else title
        fix = f"run 'vitedge build' on the device, with {wanted} ({how})"
        if len(here.gpus) > 1:
            fix += "; CUDA_VISIBLE_DEVICES says which GPU is the first"
        return Obstacle(lacking, fix)
    try:
        package = load(target.runtime)
    except UnavailableError as error:
        how = f"{error.fix}; {_JETSON}" if target.runtime == "tensorrt" else error.fix
        installed = importlib.util.find_spec(target.runtime) is not None
        return Obstacle(error.what if installed else f"{title} is not installed", how)
    if not in_range(package.__version__, target.versions):
        return Obstacle(
            f"{title} {package.__version__} is out of range: the target '{target.name}' takes "
            f"{low} to before {target.versions[1]}",
            f"pip install '{EXTRAS[target.runtime]}>={low},<{target.versions[1]}'",
        )
    return None


def in_range(version: str, versions: tuple[str, str]) -> bool:
    """Whether `version` is neither before the first of `versions` nor at or after the second."""
    low, high = versions
    number = _number(version)
    return (not low or number >= _number(low)) and (not high or number < _number(high))


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:4])


def _lacking(target: Target, here: Host) -> str:
    """What this machine is not that `target` is built on; empty where it is."""
    if not catalog.lacks(target, here):
        return ""
    if here.machine not in target.machines:
        return f"this machine is {here.machine}, and the target {' or '.join(target.machines)}"
    if not here.gpus:
        return "this machine has no NVIDIA GPU"
    wanted, gpu = " or ".join(target.compute_capabilities), here.gpus[0]
    return (
        f"the GPU here, {gpu.name}, has compute capability {gpu.compute_capability}, "
        f"and the target needs {wanted}"
    )
