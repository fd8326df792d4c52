"""Find a target or a calibration recipe by its name, or by the path of a user's own file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TypeVar

from vitedge.errors import InputError, UnavailableError, nearest
from vitedge.host import Host
from vitedge.spec import Calibration, Spec, Target, load_toml

SpecT = TypeVar("SpecT", bound=Spec)

_PACKAGE = Path(__file__).parent


def _folder(name: str) -> Path:
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
    return sorted(_folder(folder).glob("*.toml"))


def find_target(name: str, host: Host) -> Target:
    """The target called `name`, in the file `name`, or the best of the runtime `name` for `host`.

    Raises InputError for an unknown name, UnavailableError when no target of that runtime
    fits this machine.
    """
    known = targets()
    runtimes = {target.runtime for target in known.values()}
    if name in runtimes:
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
    """Whether `host` has the architecture and the CPU features `target` needs."""
    return host.machine in target.machines and (
        not target.isa or any(feature in (host.isa or ()) for feature in target.isa)
    )


def _best(runtime: str, host: Host) -> Target:
    fitting = [t for t in targets().values() if t.runtime == runtime and runs_on(t, host)]
    if not fitting:
        raise UnavailableError(
            f"no target of the runtime '{runtime}' fits this machine ({host.machine})",
            fix="name the target of the device you build for; see 'vitedge targets list'",
        )
    return max(fitting, key=lambda target: bool(target.isa))
