"""The bundle: an artifact as a directory, written atomically and opened verified."""

from __future__ import annotations

import copy
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge.core import onnx_outline
from vitedge.core.bounded import read, read_lines
from vitedge.core.errors import InputError, nearest
from vitedge.core.json_document import parse
from vitedge.core.manifest import SCHEMA, Manifest
from vitedge.core.npz import arrays
from vitedge.core.private_copy import CHANGED, PrivateCopy, check_files, copy_verified
from vitedge.core.runtime import runtime_of
from vitedge.core.signature import REPORTS, SIGNATURE
from vitedge.core.trust import Trust

MANIFEST, REPORT, GOLDEN, LABELS = "manifest.json", "report.json", "golden.npz", "labels.txt"
EVIDENCE = "evidence.npz"
MODEL, ENGINE = "model.onnx", "model.engine"
_MADE = re.compile(rf"{REPORTS.pattern}|{re.escape(SIGNATURE)}")
"""Names of what measuring and signing make anew."""
_LEFT = re.compile(rf"\.({_MADE.pattern})\.\d+")
"""Likewise of what a killed process leaves of it."""
BundleT = TypeVar("BundleT", bound="Bundle")


def made_anew(name: str) -> bool:
    """Whether a file of that name is what measuring and signing make, and no manifest lists."""
    return _MADE.fullmatch(name) is not None


@dataclass(frozen=True)
class Golden:
    """A few inputs and what FP32 made of them: parity with no dataset and no torch."""

    images: NDArray[np.uint8]
    """(k, H, W, 3)."""
    outputs: NDArray[np.float32]
    """(k, …), the main output of the FP32 ONNX graph; `logits` in the file."""
    labels: NDArray[np.int64] | NDArray[np.int16]
    """(k,), or (k, H, W) of masks; −1 where unknown."""
    further: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """(k, …), the other outputs by name; `output_1`, … in the file, as the manifest lists them."""

    def by_name(self, main: str) -> dict[str, NDArray[np.float32]]:
        """Every output; the first is called `main`."""
        return {main: self.outputs, **self.further}

    def same(self, other: Golden) -> bool:
        """Whether both have the same images and outputs."""
        main = np.array_equal(self.outputs, other.outputs)
        further = self.further.keys() == other.further.keys() and all(
            np.array_equal(output, other.further[name]) for name, output in self.further.items()
        )
        return main and further and np.array_equal(self.images, other.images)

    def write(self, folder: Path) -> None:
        further = {_key(place): array for place, array in enumerate(self.further.values(), 1)}
        arrays = {"images": self.images, "logits": self.outputs, "labels": self.labels, **further}
        np.savez_compressed(folder / GOLDEN, **arrays)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose schema and hashes have been checked."""

    path: Path
    manifest: Manifest
    is_private: bool = False
    """Whether nobody else can write to `path`: a workspace in which it was just sealed."""
    allows_host_code: bool = False
    """Whether the user lets its engine run code of its own here: no bundle can say so itself."""
    trust: Trust | None = None
    """Whose signature it bears, and what is opened along with it has to bear; None: anybody's."""

    @property
    def checked(self) -> Path:
        """The folder of its files as they were checked: read these, and not those in `path`.

        Raises InputError where they are not what the manifest says.
        """
        return self.path if self.is_private else self._copy.path

    @property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of every file that is listed and of the manifest, as they were checked."""
        return self._copy.digests

    @cached_property
    def _copy(self) -> PrivateCopy:
        content = _manifest_bytes(self.path)
        if _manifest(content, self.path) != self.manifest:
            raise InputError(f"{self.path / MANIFEST} was changed since it was read", fix=CHANGED)
        _check_names(self.path, self.manifest)
        private = copy_verified(self.path, self.manifest.files, self.manifest.sizes)
        private.write(MANIFEST, content)
        return private

    def trusted(self, trust: Trust) -> Bundle:
        """The same bundle, whose signature is one of those to trust. Raises InputError."""
        trust.check(self.path, self.digests)
        bundle = copy.copy(self)  # what was checked with it
        vars(bundle)["trust"] = trust
        return bundle

    @cached_property
    def runnable(self) -> Path:
        """`checked`, its ONNX files within what a runtime may be given.

        Raises InputError where one has no bounds, or keeps data anywhere else: runtimes follow.
        """
        for name in () if self.is_private else self.manifest.files:
            if name.endswith(".onnx"):
                where = str(self.path / name)
                onnx_outline.check(self.checked / name, where, self.manifest.files)
        return self.checked

    @property
    def model_files(self) -> dict[str, str]:
        """The files that hold the model, and their SHA-256."""
        return _model_files(self.manifest)

    @property
    def size_bytes(self) -> int:
        """Size of the files that its runtime loads."""
        names = runtime_of(self.manifest.target).files(self.manifest)
        return sum(self.manifest.sizes[name] for name in names)

    def allowing_host_code(self: BundleT) -> BundleT:
        """The same, as it was checked, whose engine may run code of its own."""
        allowing = copy.copy(self)
        vars(allowing)["allows_host_code"] = True
        return allowing

    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the outputs."""
        return read_labels(self.checked / LABELS)

    def golden(self) -> Golden:
        """The golden images and outputs."""
        names = [output.name for output in self.manifest.outputs[1:]]
        with arrays(self.checked / GOLDEN) as stored:
            further = {name: stored[_key(place)] for place, name in enumerate(names, 1)}
            golden = Golden(stored["images"], stored["logits"], stored["labels"], further)
        _check_golden(golden, self.path / GOLDEN)
        return golden

    def reference(self) -> Bundle | None:
        """The FP32 bundle beside this one; itself if it is FP32; None where it was left behind.

        Raises InputError when what lies there is not the model this artifact was made from.
        """
        reference = self.manifest.reference
        if reference is None:
            return self
        if Path(reference.bundle).name != reference.bundle:
            raise InputError(f"{self.path}: '{reference.bundle}' is no name", fix="export it again")
        path = self.path.resolve().parent / reference.bundle
        if not os.path.isdir(path):  # False of a name that no file can have
            return None
        bundle = open_bundle(path, self.trust, allow_host_code=self.allows_host_code)
        if _without_engine(bundle.model_files) != _without_engine(reference.files):
            raise InputError(
                f"{path} is not the FP32 model that {self.path} was made from",
                fix="export both again with `force=True`",
            )
        return bundle


def _check_golden(golden: Golden, path: Path) -> None:
    """Raise InputError unless its arrays are of the same images."""
    images, outputs = golden.images, [golden.outputs, *golden.further.values()]
    pixels = images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3
    numbers = all(output.dtype == np.float32 and output.ndim for output in outputs)
    counts = {len(array) for array in (images, golden.labels, *outputs) if array.ndim}
    if not (pixels and numbers and golden.labels.dtype.kind == "i" and counts == {len(images)}):
        raise InputError(f"{path} does not hold images and their outputs", fix="export it again")


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names, one a line. Raises InputError."""
    return tuple(read_lines(path, fix="export it again"))


def _key(place: int) -> str:
    """Of the output in that place, in golden.npz."""
    return f"output_{place}"


def _model_files(manifest: Manifest) -> dict[str, str]:
    return {n: sha for n, sha in manifest.files.items() if n not in (GOLDEN, LABELS)}


def _without_engine(files: dict[str, str]) -> dict[str, str]:
    """What identifies a model: its engine is another one on every device."""
    return {name: sha for name, sha in files.items() if name != ENGINE}


def open_bundle(path: Path, trust: Trust | None = None, *, allow_host_code: bool = False) -> Bundle:
    """Open the bundle at `path` after checking its schema, the hash of every file and, with
    `trust`, its signature.

    With `allow_host_code` its engine may run code of its own. Raises InputError before a byte of
    it reaches a runtime.
    """
    _check_place(path)
    bundle = Bundle(path, read_manifest(path), allows_host_code=allow_host_code)
    _ = bundle.checked  # now, and not when it is first used
    return bundle.trusted(trust) if trust else bundle


def digests(path: Path) -> tuple[Manifest, dict[str, str]]:
    """The manifest of the bundle at `path`, and the SHA-256 of each of its files and of itself.

    All is checked as `open_bundle` does, and nothing copied. Raises InputError.
    """
    _check_place(path)
    content = _manifest_bytes(path)
    manifest = _manifest(content, path)
    _check_names(path, manifest)
    check_files(path, manifest.files, manifest.sizes)
    return manifest, {**manifest.files, MANIFEST: hashlib.sha256(content).hexdigest()}


def _check_place(path: Path) -> None:
    if not os.path.isdir(path):  # False of a name that no folder can have
        siblings = [p.name for p in bundles_in(path.parent)]
        hint = nearest(path.name, siblings) if siblings else "make one with 'vitedge export'"
        raise InputError(f"no artifact at {path}", fix=hint)


def _check_names(path: Path, manifest: Manifest) -> None:
    """Raise InputError unless the folder holds what the manifest lists, and what measuring makes.

    Whatever else lies there might be read by a runtime, or written to.
    """
    for name in manifest.files:
        plain = Path(name).name == name and name not in ("", ".", "..", MANIFEST)
        if not plain or _MADE.fullmatch(name):
            raise InputError(f"{path}: {name!r} is no name of a file in it", fix="export it again")
    if manifest.sizes.keys() != manifest.files.keys():
        raise InputError(f"{path / MANIFEST} says no size of some file", fix="export it again")
    unlisted = ""
    with os.scandir(path) as entries:
        for entry in entries:
            known = entry.name in manifest.files or entry.name == MANIFEST
            if not known and not _MADE.fullmatch(entry.name) and not _LEFT.fullmatch(entry.name):
                unlisted = entry.name
            elif not entry.is_file(follow_symlinks=False):
                raise InputError(
                    f"{path}: {entry.name!r} is a link, or no regular file", fix="export it again"
                )
    if unlisted:
        raise InputError(
            f"{path}: {unlisted!r} is not listed in its {MANIFEST}",
            fix="take it out: an artifact holds its own files alone",
        )


def bundles_in(folder: Path) -> list[Path]:
    """The bundles directly inside `folder`, by name."""
    if not folder.is_dir():
        return []
    return sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))


def read_manifest(path: Path) -> Manifest:
    """The manifest in the folder `path`, whose files are not looked at. Raises InputError."""
    return _manifest(_manifest_bytes(path), path)


def _manifest_bytes(path: Path) -> bytes:
    file = path / MANIFEST
    if not os.path.lexists(file):
        raise InputError(
            f"{path} has no {MANIFEST}: it is no vitedge artifact", fix="export it again"
        )
    return read(file, follow=False)


def _manifest(content: bytes, path: Path) -> Manifest:
    file, again = path / MANIFEST, "export it again"
    document = parse(content, file, again)
    try:
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != SCHEMA:
            raise InputError(f"{file} has schema {schema!r:.60}, not '{SCHEMA}'", fix=again)
        manifest = msgspec.convert(document, Manifest)
    except msgspec.MsgspecError as error:
        raise InputError(f"{file} cannot be read: {error}", fix=again) from error
    if not _model_files(manifest):
        raise InputError(f"{file} lists no model file", fix=again)
    return manifest


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
        return digest.hexdigest()


def seal(folder: Path, manifest: Manifest) -> Bundle:
    """Hash the files in `folder` into `manifest` and write it there: the folder is a bundle.

    It is nobody else's to write to, as a workspace is.
    """
    paths = [
        path
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST and not _MADE.fullmatch(path.name)
    ]
    files = {path.name: sha256(path) for path in paths}
    sizes = {path.name: path.stat().st_size for path in paths}
    return _write_manifest(folder, msgspec.structs.replace(manifest, files=files, sizes=sizes))


def amend(bundle: Bundle, **facts: object) -> Bundle:
    """Put other `facts`, fields of its manifest, into a bundle whose files stay as they are."""
    return _write_manifest(bundle.path, msgspec.structs.replace(bundle.manifest, **facts))


def _write_manifest(folder: Path, manifest: Manifest) -> Bundle:
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (folder / MANIFEST).write_bytes(content + b"\n")
    return Bundle(folder, manifest, is_private=True)
