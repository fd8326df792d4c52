"""Find a target or a calibration recipe by its name, or by the path of a user's own file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TypeVar

from vitedge.core.errors import InputError, UnavailableError, nearest
from vitedge.core.host import Host
from vitedge.core.spec import Calibration, Spec, Target, load_toml

SpecT = TypeVar("SpecT", bound=Spec)

GPU_RUNTIMES = ("tensorrt", "tensorrt_rtx")
_PACKAGE = Path(__file__).parents[1]


def data_folder(name: str) -> Path:
    """The shipped data folder: inside the package when installed, beside it in a checkout."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


@cache
def targets() -> dict[str, Target]:
    """Every shipped target by name."""
    return {path.stem: load_toml(path, Target) for path in _shipped("targets")}


@cache
def calibrations() -> dict[str, Calibration]:
    """Every shipped calibration recipe by name."""
    return {path.stem: load_toml(path, Calibration) for path in _shipped("calibration")}


def _shipped(folder: str) -> list[Path]:
    return sorted(data_folder(folder).glob("*.toml"))


def find_target(name: str, host: Host) -> Target:
    """The target called `name`, in the file `name`, or the best of the runtime `name` for `host`.

    A target's name goes before a runtime's: `tensorrt` is both, and may be made on any machine.

    Raises InputError for an unknown name, UnavailableError when no target of that runtime
    fits this machine.
    """
    known = targets()
    runtimes = {target.runtime for target in known.values()}
    if name in runtimes and name not in known:
        return _best(name, host)
    return _find("target", name, known, Target, sorted(runtimes))


def find_calibration(name: str) -> Calibration:
    """The recipe called `name`, or in the file `name`. Raises InputError."""
    return _find("calibration recipe", name, calibrations(), Calibration, [])


def _find(
    what: str, name: str, known: dict[str, SpecT], kind: type[SpecT], more: list[str]
) -> SpecT:
    if name in known:
        return known[name]
    if name.endswith(".toml"):
        return load_toml(Path(name), kind)
    raise InputError(f"unknown {what} '{name}'", fix=nearest(name, [*known, *more]))


def runs_on(target: Target, host: Host) -> bool:
    """Whether `host` has the architecture, and the CPU features or the GPU, that `target` needs."""
    return not lacks(target, host)


def lacks(target: Target, host: Host) -> str:
    """What `target` needs and `host` does not have; empty where it has everything.

    Of several GPUs the first is the one that is used; CUDA_VISIBLE_DEVICES says which that is.
    """
    if host.machine not in target.machines:
        return " or ".join(target.machines)
    if target.isa and not any(feature in (host.isa or ()) for feature in target.isa):
        return " or ".join(target.isa)
    if target.runtime not in GPU_RUNTIMES:
        return ""
    wanted = target.compute_capabilities
    if any(not wanted or gpu.compute_capability in wanted for gpu in host.gpus[:1]):
        return ""
    return "an NVIDIA GPU" + (f" of compute capability {' or '.join(wanted)}" if wanted else "")


def _best(runtime: str, host: Host) -> Target:
    candidates = [target for target in targets().values() if target.runtime == runtime]
    fitting = [target for target in candidates if runs_on(target, host)]
    if not fitting:
        gpu = ", ".join(f"{gpu.name} {gpu.compute_capability}" for gpu in host.gpus) or "no GPU"
        here = host.machine + (f", {gpu}" if runtime in GPU_RUNTIMES else "")
        names = ", ".join(target.name for target in candidates)
        raise UnavailableError(
            f"no target of the runtime '{runtime}' fits this machine ({here})",
            fix=f"name the target of the device you build for: {names}; see 'vitedge targets list'",
        )
    return max(fitting, key=lambda target: bool(target.isa or target.compute_capabilities))
