"""Find a target or a calibration recipe by its name, or by the path of a user's own file."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TypeVar

from vitedge.core.errors import InputError, UnavailableError, nearest
from vitedge.core.host import Host
from vitedge.core.runtime import runtime_of, runtimes
from vitedge.core.spec import Calibration, Spec, Target
from vitedge.core.toml import load_toml

SpecT = TypeVar("SpecT", bound=Spec)

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

    Raises InputError for an unknown name, a runtime that is not registered or an option that it
    does not have, UnavailableError when no target of that runtime fits this machine.
    """
    known = targets()
    if name in runtimes() and name not in known:
        return _best(name, host)
    with_targets = sorted({target.runtime for target in known.values()})
    target = _find("target", name, known, Target, with_targets)
    if target.runtime not in runtimes():
        raise InputError(
            f"{name}: there is no runtime '{target.runtime}'",
            fix=nearest(target.runtime, runtimes()),
        )
    check_options(target)
    return target


def check_options(target: Target) -> None:
    """Raise InputError for an option that a target of that runtime may not set."""
    runtime = runtime_of(target)
    if runtime.processor == "cpu" and ("bf16" in target.precisions) != bool(target.bf16_options):
        raise InputError(
            f"target '{target.name}' has one of the precision bf16 and [bf16_options]",
            fix="give both or none: on a CPU an option of the runtime makes BF16 of floats",
        )
    if "fp8" in target.precisions and runtime.processor != "gpu":
        raise InputError(
            f"target '{target.name}' has the precision fp8, which {runtime.title} does not run",
            fix="take it out of precisions: FP8 takes a GPU",
        )
    if target.quantization.number_format != "int8":
        raise InputError(
            f"target '{target.name}' sets number_format in [quantization]",
            fix="take it out: `precision='fp8'` sets it",
        )
    for option in (*target.options, *target.bf16_options):
        if option not in runtime.options:
            raise InputError(
                f"target '{target.name}' sets '{option}' in its options, which {runtime.title} "
                "does not take from a target",
                fix=nearest(option, runtime.options)
                if runtime.options
                else "take [options] out of it",
            )


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
    raise InputError(f"unknown {what} '{name}'", fix=nearest(name, {*known, *more}))


def runs_on(target: Target, host: Host) -> bool:
    """Whether `host` is what `target` needs, and has no version of its runtime but those taken."""
    return not lacks(target, host)


def lacks(target: Target, host: Host) -> str:
    """What `target` needs and `host` does not have; empty where it has everything.

    That the runtime is not installed is not said: whoever opens it says so, and how to get it.
    """
    return lacks_hardware(target, host) or lacks_bf16(target, host) or lacks_version(target, host)


def lacks_hardware(target: Target, host: Host) -> str:
    """What `target` needs of a machine and `host` does not have; empty where it has everything.

    Of several GPUs the first is the one that is used; CUDA_VISIBLE_DEVICES says which that is.
    """
    if host.machine not in target.machines:
        return " or ".join(target.machines)
    if target.isa and not any(feature in (host.isa or ()) for feature in target.isa):
        return " or ".join(target.isa)
    capabilities = target.compute_capabilities
    needs = runtime_of(target).probe(host)
    if capabilities and not needs:
        fits = any(gpu.compute_capability in capabilities for gpu in host.gpus[:1])
        needs = "" if fits else "an NVIDIA GPU"
    if needs and capabilities:
        needs += f" of compute capability {' or '.join(capabilities)}"
    return needs


def lacks_bf16(target: Target, host: Host) -> str:
    """What multiplies in BF16 as `target` does, where `host` has no such thing; else empty.

    Its artifacts run there all the same, in FP32.
    """
    has = not target.bf16_isa or any(feature in (host.isa or ()) for feature in target.bf16_isa)
    return "" if has else " or ".join(target.bf16_isa)


def lacks_version(target: Target, host: Host) -> str:
    """Which versions of its runtime `target` takes, where `host` has another; else empty."""
    installed = host.runtimes.get(target.runtime)
    if installed is None or in_range(installed, target.versions):
        return ""
    return f"{accepted_versions(target)}; {installed} is installed"


def accepted_versions(target: Target) -> str:
    """The versions that `target` takes, in words: `OpenVINO 2025.1 to before 2027`."""
    low, high = target.versions
    title = runtime_of(target).title
    if not high:
        return f"{title} {low} or newer"
    return f"{title} {low} to before {high}" if low else f"{title} before {high}"


def in_range(version: str, versions: tuple[str, str]) -> bool:
    """Whether `version` is neither before the first of `versions` nor at or after the second."""
    low, high = versions
    number = _number(version)
    return (not low or number >= _number(low)) and (not high or number < _number(high))


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:4])


def _best(runtime: str, host: Host) -> Target:
    candidates = [target for target in targets().values() if target.runtime == runtime]
    if not candidates:
        raise InputError(
            f"no target of the runtime '{runtime}' is shipped",
            fix="write one, and pass it: `targets=FILE.toml`",
        )
    fitting = [target for target in candidates if runs_on(target, host)]
    if not fitting:
        gpus = ", ".join(f"{gpu.name} {gpu.compute_capability}" for gpu in host.gpus) or "no GPU"
        machine = host.machine + (f", {gpus}" if runtimes()[runtime].processor == "gpu" else "")
        if runtimes()[runtime].processor == "browser":
            machine += f", without {runtimes()[runtime].probe(host)}"
        names = ", ".join(target.name for target in candidates)
        raise UnavailableError(
            f"no target of the runtime '{runtime}' fits this machine ({machine})",
            fix=f"name the target of the device you build for: {names}; see 'vitedge targets list'",
        )
    return max(
        fitting,
        key=lambda target: (bool(target.bf16_isa), bool(target.isa or target.compute_capabilities)),
    )
