"""What the steps of an export made, kept by a digest of all that decides it.

An entry is a folder that appears in one rename, and is verified as it is read: what is damaged is
made again. Several processes may use one at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import msgspec

from vitedge.core.code_version import code_digest
from vitedge.core.errors import InputError
from vitedge.core.files import is_alive, sync_folder

Kind = Literal["onnx", "statistics", "qdq", "bundle", "validation"]
"""FP32 ONNX, what calibration images show, the quantized graph, the artifact, what it lost."""
ValueT = TypeVar("ValueT")
LIMIT_BYTES = 20 * 2**30
_ENTRY = "entry.json"
_BLOCK = 2**20


class _Entry(msgspec.Struct, frozen=True):
    """entry.json, below a line with the SHA-256 of the rest."""

    files: dict[str, tuple[str, int]]
    """SHA-256 and bytes of each file, by its place in the folder."""
    value: msgspec.Raw


class Damaged(Exception):
    """An entry is not what was kept."""


def digest(*parts: object) -> str:
    """SHA-256, in hex, over the JSON of `parts` and the version of the code here."""
    content = msgspec.json.encode((code_digest(), *parts), order="deterministic")
    return hashlib.sha256(content).hexdigest()


class StepCache:
    """A folder of entries, the least recently used of which go where they exceed `limit_bytes`."""

    def __init__(
        self, root: Path, limit_bytes: int = LIMIT_BYTES, note: Callable[[str], None] = print
    ) -> None:
        self.root, self._limit_bytes, self._note = root, limit_bytes, note
        self.made: Counter[Kind] = Counter()
        """How many entries of each kind were made, not read, since this was opened."""
        self._full = False

    def has(self, kind: Kind, key: str) -> bool:
        """Whether there is an entry, sound or not."""
        return (self._place(kind, key) / _ENTRY).is_file()

    def step(
        self, kind: Kind, key: str, folder: Path, value: type[ValueT], make: Callable[[], ValueT]
    ) -> ValueT:
        """The value of a step whose files are in `folder`, which is not there yet.

        From the entry, or made by `make`, once however many processes ask, and kept.
        """
        kept = self.get(kind, key, folder, value)
        if kept is not None:
            return kept
        with self._turn(key):  # another process may be making it
            kept = self.get(kind, key, folder, value)
            if kept is not None:
                return kept
            fresh = make()
            self.put(kind, key, fresh, below(folder))
            return fresh

    def get(self, kind: Kind, key: str, folder: Path, value: type[ValueT]) -> ValueT | None:
        """The value of an entry, its files copied into the new `folder`, each verified.

        None where there is none; a damaged one is removed.
        """
        place = self._place(kind, key)
        try:
            content = (place / _ENTRY).read_bytes()
        except OSError:
            return None
        try:
            entry = _decoded(content)
            decoded = msgspec.json.decode(entry.value, type=value, dec_hook=_decode_path)
            folder.mkdir(exist_ok=True)
            for name, (sha256, size) in entry.files.items():
                _copy_verified(place / name, folder / name, sha256, size)
        except (Damaged, msgspec.MsgspecError, FileNotFoundError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, FileNotFoundError) and not place.exists():
                return None  # evicted meanwhile
            self._note(f"{kind} {key[:12]} in {self.root} is damaged, and made again")
            self._remove(place)
            return None
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with contextlib.suppress(OSError):
            os.utime(place / _ENTRY)  # used last now
        return decoded

    def put(self, kind: Kind, key: str, value: object, files: Mapping[str, Path]) -> None:
        """Keep a value, and `files` by their places in the entry.

        A full disk costs the entry, and not the work.
        """
        self.made[kind] += 1
        if self._full:
            return
        place, staged = self._place(kind, key), None
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            staged = Path(tempfile.mkdtemp(prefix=f".{os.getpid()}-", dir=self.root))
            kept = {}
            for name, path in files.items():
                (staged / name).parent.mkdir(parents=True, exist_ok=True)
                kept[name] = _copy_hashed(path, staged / name)
            raw = msgspec.Raw(msgspec.json.encode(value, enc_hook=_encode_path))
            body = msgspec.json.encode(_Entry(kept, raw))
            head = hashlib.sha256(body).hexdigest().encode()
            (staged / _ENTRY).write_bytes(head + b"\n" + body)
            sync_folder(staged)
            if place.exists() and not self.has(kind, key):
                self._remove(place)  # a part of one
            with contextlib.suppress(FileExistsError):
                _rename(staged, place)
            self._evict()
        except OSError as error:
            self._full = True
            self._note(
                f"the cache {self.root} cannot be written to ({error.strerror}): what follows is "
                "not kept; free some space"
            )
        finally:
            if staged is not None:
                shutil.rmtree(staged, ignore_errors=True)

    @property
    def size_bytes(self) -> int:
        """Of all entries."""
        return sum(size for _, size, _ in self._entries())

    def _place(self, kind: Kind, key: str) -> Path:
        return self.root / kind / key

    @contextlib.contextmanager
    def _turn(self, key: str) -> Iterator[None]:
        """One process at a time; where files cannot be locked, each of them."""
        if sys.platform == "win32":
            yield
            return
        import fcntl

        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                locks = self.root / ".locks"
                locks.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context((locks / key[:16]).open("w"))
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """When each entry was last used, its bytes, and where it lies."""
        for path in self.root.glob(f"*/*/{_ENTRY}"):
            with contextlib.suppress(OSError):
                files = [file.stat() for file in path.parent.rglob("*") if file.is_file()]
                yield path.stat().st_mtime, sum(stat.st_size for stat in files), path.parent

    def _evict(self) -> None:
        """Remove what was used longest ago until the rest fits, and what killed processes left."""
        for path in self.root.glob(".*-*"):
            pid = path.name[1:].partition("-")[0]
            if pid.isdecimal() and not is_alive(int(pid)):
                shutil.rmtree(path, ignore_errors=True)
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        for _, size, place in entries[:-1]:  # the newest was just asked for
            if total <= self._limit_bytes:
                return
            self._remove(place)
            total -= size

    def _remove(self, place: Path) -> None:
        """In one rename first, so that nobody reads half of it."""
        with contextlib.suppress(OSError):
            doomed = Path(tempfile.mkdtemp(prefix=f".{os.getpid()}-", dir=self.root))
            with contextlib.suppress(OSError):
                place.rename(doomed / "entry")
            shutil.rmtree(doomed, ignore_errors=True)


class Slot(NamedTuple):
    """One step of one job in a cache."""

    cache: StepCache
    kind: Kind
    key: str

    def step(self, folder: Path, value: type[ValueT], make: Callable[[], ValueT]) -> ValueT:
        """As `StepCache.step`."""
        return self.cache.step(self.kind, self.key, folder, value, make)


def _encode_path(value: object) -> str:
    if isinstance(value, Path):
        return value.as_posix()
    raise NotImplementedError


def _decode_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError


def below(folder: Path) -> dict[str, Path]:
    """Every file in a folder, by its place there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _decoded(content: bytes) -> _Entry:
    """Raises Damaged."""
    head, _, body = content.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != head:
        raise Damaged
    entry = msgspec.json.decode(body, type=_Entry)
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in entry.files):
        raise Damaged
    return entry


def _copy_verified(source: Path, target: Path, sha256: str, size: int) -> None:
    """Raises Damaged where what was copied is not what was kept."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if _copy_hashed(source, target) != (sha256, size):
        raise Damaged


def _copy_hashed(source: Path, target: Path) -> tuple[str, int]:
    """Copy a file; returns its SHA-256 and bytes."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as read, target.open("wb") as write:
        while block := read.read(_BLOCK):
            digest.update(block)
            write.write(block)
            size += len(block)
    return digest.hexdigest(), size


def _rename(staged: Path, place: Path) -> None:
    """Raises FileExistsError where another process was faster."""
    try:
        staged.rename(place)
    except OSError:
        if place.exists():
            raise FileExistsError from None
        raise


def files_digest(path: Path) -> str:
    """SHA-256, in hex, over a file, or over every file below a folder and its place there.

    Raises InputError for what cannot be read.
    """
    try:
        paths = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        names = [file.relative_to(path).as_posix() for file in paths]
        content = [_file_digest(file) for file in paths]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return hashlib.sha256(repr([*zip(names, content, strict=True)]).encode()).hexdigest()


_digests: dict[tuple[str, int, int, int], str] = {}
"""Of files of this process that were read once, by path, inode, bytes and time of change."""


def _file_digest(path: Path) -> str:
    stat = path.stat()
    known = (str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if known not in _digests:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(_BLOCK):
                digest.update(block)
        _digests[known] = digest.hexdigest()
    return _digests[known]
