"""The builds of torch and torchvision: one for CUDA does not load beside CPU torch.

Read from their files, as importing torch takes seconds and importing such a torchvision fails.
"""

from __future__ import annotations

import re
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path

INDEX = "https://download.pytorch.org/whl/"
"""Where pytorch.org keeps its builds, each kind under its local version: `cpu`, `cu130`."""


def build(package: str) -> str:
    """The version of torch or torchvision with its kind, `2.13.0+cpu`; empty if not installed.

    Their metadata leave the kind out where the wheel comes from PyPI; their version.py does not.
    """
    spec = util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        with suppress(OSError):
            text = Path(folder, "version.py").read_text(encoding="utf-8")
            if stated := re.search(r"""^__version__\s*=\s*["'](.+?)["']""", text, re.MULTILINE):
                return stated[1]
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return ""


def misfit() -> str:
    """Why torchvision will not load beside torch, as far as their builds say; empty: it should."""
    torch, torchvision = build("torch"), build("torchvision")
    if not (torch and torchvision):
        return ""
    (version, kind), (_, other) = _parts(torch), _parts(torchvision)
    pin = _torch_pin()
    foreign = kind and other not in ("", "cpu") and _family(other) != _family(kind)
    if (pin and pin != version) or foreign:
        return f"torchvision {torchvision} does not fit torch {torch}"
    return ""


def mending() -> str:
    """The command that installs the torchvision of torch's own build."""
    (version, kind), (own, _) = _parts(build("torch")), _parts(build("torchvision"))
    index = f" --index-url {INDEX}{kind}" if kind else ""
    if _torch_pin() in ("", version) and own:
        return f"pip install --force-reinstall --no-deps torchvision=={own}{index}"
    return f"pip install --upgrade torch=={version} torchvision{index}"


def _torch_pin() -> str:
    """The torch that torchvision was built for, `2.13.0`; empty where it names none."""
    with suppress(metadata.PackageNotFoundError):
        for need in metadata.requires("torchvision") or ():
            if pin := re.match(r"torch\s*\(?==\s*([\w.]+)", need):
                return pin[1]
    return ""


def _parts(version: str) -> tuple[str, str]:
    """A version and its kind, `2.13.0` and `cpu`; no kind where a vendor's build names none."""
    public, _, local = version.partition("+")
    return public, local if re.fullmatch(r"cpu|cu\d+|rocm[\d.]+|xpu", local) else ""


def _family(kind: str) -> str:
    """What two kinds must have in common: `cu13` of `cu130`, `rocm` of `rocm6.4`."""
    return kind[:4]
