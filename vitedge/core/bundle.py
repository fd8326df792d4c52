"""The bundle: an artifact as a directory, written atomically and opened verified."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import InputError, nearest
from vitedge.core.manifest import SCHEMA, Manifest
from vitedge.core.runtime import runtime_of

MANIFEST, REPORT, GOLDEN, LABELS = "manifest.json", "report.json", "golden.npz", "labels.txt"
EVIDENCE = "evidence.npz"
MODEL, ENGINE = "model.onnx", "model.engine"


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

    @property
    def model_files(self) -> dict[str, str]:
        """The files that hold the model, and their SHA-256."""
        return _model_files(self.manifest)

    @property
    def size_bytes(self) -> int:
        """Size of the files that its runtime loads."""
        names = runtime_of(self.manifest.target).files(self.manifest)
        return sum((self.path / name).stat().st_size for name in names)

    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the outputs."""
        return tuple((self.path / LABELS).read_text(encoding="utf-8").splitlines())

    def golden(self) -> Golden:
        """The golden images and outputs."""
        names = [output.name for output in self.manifest.outputs[1:]]
        with np.load(self.path / GOLDEN, allow_pickle=False) as stored:
            further = {name: stored[_key(place)] for place, name in enumerate(names, 1)}
            return Golden(stored["images"], stored["logits"], stored["labels"], further)

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
        if not path.is_dir():
            return None
        bundle = open_bundle(path)
        if _without_engine(bundle.model_files) != _without_engine(reference.files):
            raise InputError(
                f"{path} is not the FP32 model that {self.path} was made from",
                fix="export both again with `force=True`",
            )
        return bundle


def _key(place: int) -> str:
    """Of the output in that place, in golden.npz."""
    return f"output_{place}"


def _model_files(manifest: Manifest) -> dict[str, str]:
    return {n: sha for n, sha in manifest.files.items() if n not in (GOLDEN, LABELS)}


def _without_engine(files: dict[str, str]) -> dict[str, str]:
    """What identifies a model: its engine is another one on every device."""
    return {name: sha for name, sha in files.items() if name != ENGINE}


def open_bundle(path: Path) -> Bundle:
    """Open the bundle at `path` after checking its schema and the hash of every file.

    Raises InputError before a byte of it reaches a runtime.
    """
    if not path.is_dir():
        siblings = [p.name for p in bundles_in(path.parent)]
        hint = nearest(path.name, siblings) if siblings else "make one with 'vitedge export'"
        raise InputError(f"no artifact at {path}", fix=hint)
    manifest = read_manifest(path)
    for name, sha in manifest.files.items():
        file = path / name
        if Path(name).name != name or not file.is_file() or file.is_symlink():
            raise InputError(f"{path}: its file '{name}' is missing", fix="export it again")
        if sha256(file) != sha:
            raise InputError(
                f"{path}: '{name}' is not the file the manifest describes (SHA-256 differs)",
                fix="it was changed or damaged: copy or export the artifact again",
            )
    return Bundle(path, manifest)


def bundles_in(folder: Path) -> list[Path]:
    """The bundles directly inside `folder`, by name."""
    if not folder.is_dir():
        return []
    return sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))


def read_manifest(path: Path) -> Manifest:
    """The manifest in the folder `path`, whose files are not looked at. Raises InputError."""
    file = path / MANIFEST
    again = "export it again"
    if not file.is_file():
        raise InputError(f"{path} has no {MANIFEST}: it is no vitedge artifact", fix=again)
    try:
        content = msgspec.json.decode(file.read_bytes())
        schema = content.get("schema") if isinstance(content, dict) else None
        if schema != SCHEMA:
            raise InputError(f"{file} has schema {schema!r}, not '{SCHEMA}'", fix=again)
        manifest = msgspec.convert(content, Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
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
    """Hash the files in `folder` into `manifest` and write it there: the folder is a bundle."""
    files = {
        path.name: sha256(path)
        for path in sorted(folder.iterdir())
        if path.name not in (MANIFEST, REPORT, EVIDENCE)
    }
    return _write_manifest(folder, msgspec.structs.replace(manifest, files=files))


def amend(bundle: Bundle, **facts: object) -> Bundle:
    """Put other `facts`, fields of its manifest, into a bundle whose files stay as they are."""
    return _write_manifest(bundle.path, msgspec.structs.replace(bundle.manifest, **facts))


def _write_manifest(folder: Path, manifest: Manifest) -> Bundle:
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (folder / MANIFEST).write_bytes(content + b"\n")
    return Bundle(folder, manifest)


@contextlib.contextmanager
def workspace(output: Path) -> Iterator[Path]:
    """A scratch folder inside `output`, removed at the end; those of killed runs go too.

    Raises InputError when `output` cannot be written to.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        _remove_stale(output)
        work = Path(tempfile.mkdtemp(prefix=f".vitedge-{os.getpid()}-", dir=output))
    except OSError as error:
        raise InputError(
            f"cannot write to {output}: {error.strerror}", fix="choose another `output` folder"
        ) from error
    try:
        yield work
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise
        raise InputError(
            f"cannot write to {output}: {error.strerror}", fix="free some space, or use `output`"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _remove_stale(output: Path) -> None:
    for path in output.glob(".vitedge-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def publish(staged: Path, final: Path) -> None:
    """Move the complete bundle `staged` to `final` by renaming; an old bundle there is replaced.

    Killed at any moment this leaves the old bundle, the new one, or none: never half of one.
    """
    _sync(staged)
    old = staged.with_name(staged.name + ".old")
    if final.exists():
        final.rename(old)
    try:
        staged.rename(final)
    except BaseException:  # Ctrl-C between the two renames, too
        if old.exists() and not final.exists():
            old.rename(final)
        raise


def _sync(folder: Path) -> None:
    """Flush a folder's files to disk, so that a rename never outlives their content."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
