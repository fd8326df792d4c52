"""The import of the libraries that models come from, and what is said where one cannot be."""

from __future__ import annotations

import re
import sys
from importlib import import_module, util
from typing import Any

from vitedge.core import builds
from vitedge.core.errors import UnavailableError, error_line, missing


def import_transformers() -> str:
    """Import transformers: without torchvision, where that is there but does not load.

    Returns a note that says so; empty otherwise. Raises ImportError and RuntimeError.
    """
    unloadable = _torchvision_error()
    if not unloadable:
        _import_transformers()
        return ""
    hidden: dict[str, object] = sys.modules  # type: ignore[assignment]
    hidden["torchvision"] = None  # Python's own way to say that there is no such module
    try:
        _import_transformers()
    finally:
        del hidden["torchvision"]
    why = builds.misfit() or f"torchvision cannot be imported ({unloadable})"
    return f"{why}: transformers goes on without it ('vitedge doctor' says what mends it)"


def _import_transformers() -> None:
    """Import what a model needs of it, and let it see whether there is a torchvision."""
    import transformers
    from transformers.utils import import_utils

    for name in ("is_torchvision_available", "is_torchvision_v2_available"):
        look: Any = getattr(import_utils, name, None)
        if hasattr(look, "cache_clear"):
            look.cache_clear()  # whoever imported it before us may have seen one that does not load
            look()
    from transformers import image_processing_base, modeling_utils  # noqa: F401

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def unimportable(package: str, extra: str, error: Exception) -> UnavailableError:
    """The error of a library that is not installed, or not in a state to be imported."""
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    if isinstance(root, ModuleNotFoundError):
        return missing(root.name or package, extra)
    said = error_line(root)
    wanted = re.search(r"requires the (\w+) library", said)  # as transformers says it of a class
    if wanted and wanted[1].lower() not in ("torchvision", "timm"):
        return UnavailableError(
            f"{package} needs the package '{wanted[1]}' for this model, which is not installed",
            fix=f"pip install {wanted[1]}",
        )
    misfit = builds.misfit()
    if misfit or _torchvision_error():
        fix = builds.mending()
        if wanted and wanted[1].lower() == "timm":
            fix = f"pip install --upgrade 'vitedge[timm]', then {fix}"
    else:  # transformers names what a class of it needs
        needed = (name for name in ("torchvision", "timm") if name in said.lower())
        fix = f"pip install --upgrade 'vitedge[{next(needed, extra)}]'"
    return UnavailableError(
        f"{misfit or f'{package} cannot import what it needs'}: {said}", fix=fix
    )


def _torchvision_error() -> str:
    """Why the torchvision that is there cannot be imported; empty if it can, or there is none."""
    if util.find_spec("torchvision") is None:
        return ""
    try:
        import_module("torchvision")
    except Exception as error:  # import, operator and linker errors alike
        return error_line(error)
    return ""
