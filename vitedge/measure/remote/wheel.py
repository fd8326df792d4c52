"""The very vitedge that runs here as a wheel, so that the device measures with the same code."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path

from vitedge.core import catalog
from vitedge.core.errors import UnavailableError

_TAG = "Wheel-Version: 1.0\nGenerator: vitedge\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def pack(folder: Path) -> Path:
    """Write a wheel of the package as it is imported here; the same bytes each time.

    Source: the binary distribution format of the Python packaging specifications.
    Raises UnavailableError where vitedge is not installed, so that its needs are not known.
    """
    try:
        installed = metadata.distribution("vitedge")
    except metadata.PackageNotFoundError as error:
        raise UnavailableError(
            "vitedge is not installed here, so it cannot be put on a device",
            fix="pip install vitedge",
        ) from error
    info = f"vitedge-{installed.version}.dist-info"
    files = dict(_package())
    files[f"{info}/METADATA"] = (installed.read_text("METADATA") or "").encode()
    files[f"{info}/WHEEL"] = _TAG.encode()
    files[f"{info}/entry_points.txt"] = (installed.read_text("entry_points.txt") or "").encode()
    rows = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    wheel = folder / f"vitedge-{installed.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return wheel


def _package() -> Iterator[tuple[str, bytes]]:
    """The package's files, and the data that lies beside it in a checkout."""
    package = Path(str(resources.files("vitedge")))
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"vitedge/{path.relative_to(package).as_posix()}", path.read_bytes()
    for name in ("targets", "calibration"):
        folder = catalog.data_folder(name)
        if not folder.is_relative_to(package):
            for path in sorted(folder.iterdir()):
                yield f"vitedge/{name}/{path.name}", path.read_bytes()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
