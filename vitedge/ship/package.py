"""What an artifact ships in: a folder with the model and whatever runs it, and no vitedge.

A kind of package is an entry point of the group `vitedge.packages`, ours and a third party's alike.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from vitedge.core.bundle import LABELS, Bundle
from vitedge.core.commands import command
from vitedge.core.errors import InputError, error_line, first_few, nearest
from vitedge.core.files import sync_folder
from vitedge.core.publication import workspace
from vitedge.core.runtime import runtime_of

ENTRY_POINTS = "vitedge.packages"
_log = logging.getLogger(__name__)


@runtime_checkable
class PackageKind(Protocol):
    """One kind of package. A class with these members, made without arguments, is all it takes."""

    name: str
    """As entry points and `form` name it."""
    title: str
    """As people write it, e.g. `Triton model repository`."""
    runtimes: frozenset[str]
    """Whose bundles it takes, by the runtimes' names."""

    def write(self, bundle: Bundle, folder: Path) -> tuple[str, ...]:
        """Fill the empty `folder` with what the verified `bundle` becomes, from its manifest alone.

        Returns the commands of a shell that make and run it, typed in that folder.
        Raises InputError where the bundle says something that this kind cannot do.
        """
        ...


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """What was written."""

    artifact: str
    path: str
    form: str
    sizes: dict[str, int]
    """Bytes of every file in it, by its path there."""
    commands: tuple[str, ...]
    """Of a shell, typed in that folder: make and run it."""


@cache
def kinds() -> Mapping[str, PackageKind]:
    """Every kind that is registered and loads, by its name; one that does not is warned of."""
    loaded: dict[str, PackageKind] = {}
    for entry in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        try:
            value = entry.load()
            kind = value() if isinstance(value, type) else value
            if not isinstance(kind, PackageKind):
                raise TypeError("it lacks members of vitedge.ship.package.PackageKind")
            if kind.name != entry.name:
                raise ValueError(f"it calls itself '{kind.name}'")
            if entry.name in loaded:
                raise ValueError("another distribution registers that name, too")
        except Exception as error:  # whatever a third party's module raises
            _log.warning("note: package kind '%s' does not load: %s", entry.name, error_line(error))
            continue
        loaded[entry.name] = kind
    return loaded


def write(bundle: Bundle, form: str, output: Path) -> Package:
    """Write the verified `bundle` as a package into the folder `output`, which must not be there.

    Whole or not at all. Raises InputError.
    """
    kind = kinds().get(form)
    if kind is None:
        raise InputError(f"there is no kind of package '{form}'", fix=nearest(form, kinds()))
    _check(bundle, kind, output)
    with workspace(output.parent) as work:
        folder = work / "package"
        folder.mkdir()
        commands = kind.write(bundle, folder)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
        _check_free(output)
        folder.rename(output)
        sync_folder(output.parent)
    return Package(
        artifact=str(bundle.path), path=str(output), form=form, sizes=sizes, commands=commands
    )


def copy_model(bundle: Bundle, folder: Path) -> tuple[str, ...]:
    """Copy the files that the bundle's runtime loads to `folder`; returns their names, main first.

    Copied are the bytes that were checked. Raises InputError.
    """
    names = runtime_of(bundle.manifest.target).files(bundle.manifest)
    for name in names:
        shutil.copyfile(bundle.runnable / name, folder / name)
    return tuple(sorted(names, key=lambda name: name.endswith((".data", ".bin"))))


def copy_labels(bundle: Bundle, folder: Path) -> None:
    """Copy the class names, one a line."""
    shutil.copyfile(bundle.checked / LABELS, folder / LABELS)


def options(bundle: Bundle) -> dict[str, str]:
    """What its runtime is opened with: the target's options, those of BF16 where it computes so."""
    target, further = bundle.manifest.target, {}
    if bundle.manifest.computes_bf16:
        further = target.bf16_options
    return target.options | further


def _check(bundle: Bundle, kind: PackageKind, output: Path) -> None:
    manifest = bundle.manifest
    runtime = manifest.target.runtime
    if runtime not in kind.runtimes:
        taking = [other.name for other in kinds().values() if runtime in other.runtimes]
        others = f"package it with `form={taking[0]!r}`, or " if taking else ""
        raise InputError(
            f"{bundle.path} is for the runtime '{runtime}', which a package of kind '{kind.name}' "
            f"does not take",
            fix=f"{others}export for one of: {', '.join(sorted(kind.runtimes))}",
        )
    if manifest.build and manifest.build.state != "done":
        raise InputError(
            f"{bundle.path} has no engine yet: there is nothing to package",
            fix=f"build it on the device: {command('build', bundle.path)}",
        )
    lacking = [
        name for name in runtime_of(manifest.target).files(manifest) if name not in manifest.files
    ]
    if lacking:
        raise InputError(f"{bundle.path} has no {first_few(lacking)}", fix="export it again")
    _check_free(output)


def _check_free(output: Path) -> None:
    if os.path.lexists(output):
        raise InputError(
            f"{output} is there already, and is not replaced",
            fix="move it away, or use another `output`",
        )
