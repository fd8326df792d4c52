"""Copy files to a device once: by hash, resumed where it stopped, checked there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from vitedge.core.bundle import MANIFEST, Bundle, sha256
from vitedge.core.errors import UnavailableError
from vitedge.core.progress import Steps
from vitedge.measure.latency.photographs import Photographs
from vitedge.measure.remote.connection import Connection

BLOCK_BYTES = 2**20
"""Sent at a time, and the most that is sent again after a lost connection."""
ATTEMPTS = 2
"""Times a file is sent before its connection is called bad."""


class File(NamedTuple):
    """A file that goes to a device."""

    path: Path
    """Here."""
    sha256: str


def bundle_files(bundle: Bundle) -> dict[str, File]:
    """The manifest, and the files that it names."""
    manifest = bundle.checked / MANIFEST
    hashes = {**bundle.manifest.files, MANIFEST: sha256(manifest)}
    return {name: File(bundle.checked / name, sha) for name, sha in hashes.items()}


def image_files(images: Photographs, place: str) -> dict[str, File]:
    """An image at `place`, or several in a folder there, in their order."""
    if len(images.paths) == 1 and images.paths[0].name == images.name:
        return {place: File(images.paths[0], sha256(images.paths[0]))}
    return {
        f"{place}/{index:02}{path.suffix.lower()}": File(path, sha256(path))
        for index, path in enumerate(images.paths)
    }


def send(files: Mapping[str, File], device: Connection, steps: Steps) -> int:
    """Copy what the device does not have of `files`; returns the bytes sent.

    Raises UnavailableError where they do not fit there, or do not arrive as they were sent.
    """
    where = device.address.text
    copied = device.call("held", files=[file.sha256 for file in files.values()])
    missing = {sha: (name, path) for name, (path, sha) in files.items() if sha in copied}
    for sha, (_, path) in missing.items():
        if copied[sha] > path.stat().st_size:  # of something else
            copied[sha] = 0
    needed = sum(path.stat().st_size - copied[sha] for sha, (_, path) in missing.items())
    machine = device.machine
    if machine is not None and needed > (free := machine.free_bytes):
        raise UnavailableError(
            f"{where} has {free / 1e6:.1f} MB free in {machine.cache}, and what is to "
            f"be copied needs {needed / 1e6:.1f} MB",
            fix="free some space there",
        )
    sent = 0
    for sha, (name, path) in missing.items():
        size, offset = path.stat().st_size, copied[sha]
        for _ in range(ATTEMPTS):
            intact = False
            with path.open("rb") as stream:
                stream.seek(offset)
                for start in range(offset, size, BLOCK_BYTES) or (size,):
                    block = stream.read(BLOCK_BYTES)
                    intact = device.call("write", block, sha=sha, offset=start, size=size)
                    sent += len(block)
                    steps(f"{where}: copying {name}", start + len(block), size)
            if intact:
                break
            offset = 0
        else:
            raise UnavailableError(
                f"{where}: '{name}' was altered on the way, {ATTEMPTS} times (SHA-256 differs)",
                fix="look at the device's disk and memory, and at what lies between",
            )
    return sent
