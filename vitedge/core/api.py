"""What the functions of the Python API share: how artifacts are named, and where they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from vitedge.core.bundle import Bundle
    from vitedge.core.trust import Trust

ARTIFACTS = Path("artifacts")
"""Where artifacts are written and looked for."""
AnyPath: TypeAlias = "str | os.PathLike[str]"
AnyBundle: TypeAlias = "str | os.PathLike[str] | Bundle"
"""An artifact: its folder, or what `vitedge.open` made of it."""
AnyBundles: TypeAlias = "AnyBundle | Sequence[AnyBundle]"
Names: TypeAlias = "str | Sequence[str]"


def several(value: Any) -> list[Any]:
    """`value` as a list: one thing is a list of it, and a text is one thing."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return [value]


def verified(
    artifact: AnyBundle, trust: Trust | None = None, *, allow_host_code: bool = False
) -> Bundle:
    """`artifact` with its schema and hashes checked and, with `trust`, its signature.

    Its engine may run code of its own where that is allowed.

    Raises InputError.
    """
    from vitedge.core.bundle import Bundle, open_bundle

    if not isinstance(artifact, Bundle):
        return open_bundle(Path(artifact), trust, allow_host_code=allow_host_code)
    bundle = artifact.trusted(trust) if trust else artifact
    return bundle.allowing_host_code() if allow_host_code else bundle


def folder(artifact: AnyBundle) -> Path:
    """Where it lies, or a file in its place."""
    return artifact.path if hasattr(artifact, "path") else Path(artifact)


def callable_package(name: str, function: Callable[..., Any]) -> None:
    """Let the package `name` be called as `function`: the API has a function of that name."""
    members = {"__call__": staticmethod(function), "__wrapped__": staticmethod(function)}
    sys.modules[name].__class__ = type("CallablePackage", (ModuleType,), members)
