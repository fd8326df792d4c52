"""Copy bundles and the wheel to a device once: by hash, resumed where it stopped, checked there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vitedge.core.bundle import MANIFEST, Bundle, sha256
from vitedge.core.errors import UnavailableError
from vitedge.core.progress import Steps
from vitedge.measure.remote.connection import Connection

BLOCK_BYTES = 2**20
"""Sent at a time, and the most that is sent again after a lost connection."""
ATTEMPTS = 2
"""Times a file is sent before its connection is called bad."""


@dataclass(frozen=True)
class Parcel:
    """Files that a device keeps in a folder named by a hash."""

    name: str
    shelf: str
    key: str
    """SHA-256 of the file that ties the others together, or of the only one."""
    files: Mapping[str, tuple[Path, str]]
    """Where each lies here, and its SHA-256."""

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path, _ in self.files.values())


def bundle_parcel(bundle: Bundle) -> Parcel:
    """A bundle: the manifest, and the files that it names."""
    manifest = bundle.path / MANIFEST
    key = sha256(manifest)
    files = {name: (bundle.path / name, sha) for name, sha in bundle.manifest.files.items()}
    return Parcel(bundle.manifest.name, "bundles", key, {**files, MANIFEST: (manifest, key)})


def file_parcel(path: Path, shelf: str) -> Parcel:
    """A single file."""
    key = sha256(path)
    return Parcel(path.name, shelf, key, {path.name: (path, key)})


def send(parcel: Parcel, device: Connection, steps: Steps) -> int:
    """Copy what the device does not have of `parcel`; returns the bytes sent.

    Raises UnavailableError where it does not fit there, or does not arrive as it was sent.
    """
    where = device.address.text
    sent = 0
    wrong: list[str] = []
    for _ in range(ATTEMPTS):
        copied = device.call("held", shelf=parcel.shelf, key=parcel.key)
        if copied["whole"]:
            return sent
        missing = parcel.size_bytes - sum(copied["bytes"].values())
        if missing > (free := device.machine["free_bytes"]):
            raise UnavailableError(
                f"{where} has {free / 1e6:.1f} MB free in {device.machine['cache']}, and "
                f"{parcel.name} needs {missing / 1e6:.1f} MB",
                fix="free some space there",
            )
        step, done = f"{where}: copying {parcel.name}", parcel.size_bytes - missing
        for name, (path, _) in parcel.files.items():
            size = copied["bytes"].get(name, -1)
            if size == path.stat().st_size:
                continue
            for offset, block in _blocks(path, max(size, 0)):
                place = {"shelf": parcel.shelf, "key": parcel.key, "name": name}
                device.call("write", block, **place, offset=offset)
                sent += len(block)
                done += len(block)
                steps(step, done, parcel.size_bytes)
        hashes = {name: sha for name, (_, sha) in parcel.files.items()}
        wrong = device.call("seal", shelf=parcel.shelf, key=parcel.key, files=hashes)
        if not wrong:
            return sent
    raise UnavailableError(
        f"{where}: '{wrong[0]}' of {parcel.name} was altered on the way, {ATTEMPTS} times "
        "(SHA-256 differs)",
        fix="look at the device's disk and memory, and at what lies between",
    )


def _blocks(path: Path, offset: int) -> Iterator[tuple[int, bytes]]:
    """What to send of a file from `offset` on; one empty block of an empty file."""
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(BLOCK_BYTES):
            yield offset, block
            offset += len(block)
        if offset == 0:
            yield 0, b""
