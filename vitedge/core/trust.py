"""Whose artifacts may run here: public keys, and a file of what was accepted before.

A date is what its signer says. What is older than what was accepted is refused all the same: it was
signed once, and replaced for a reason.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from vitedge.core import files
from vitedge.core.errors import InputError
from vitedge.core.json_document import read_json
from vitedge.core.keys import Key, public_key
from vitedge.core.signature import SIGNATURE, Signature, verified

SCHEMA = "vitedge.accepted/1"


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The newest signature of an artifact that was accepted."""

    signed_at: str
    fingerprint: str
    """Of the key that signed it."""


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    schema: str = SCHEMA
    accepted: dict[str, Accepted] = {}
    """By the artifact's name."""


@dataclass(frozen=True)
class Trust:
    """Keys whose signatures count, and where what was accepted is kept; None: nowhere."""

    keys: tuple[Key, ...]
    accepted: Path | None = None

    def check(
        self,
        folder: Path,
        digests: Mapping[str, str],
        reports: Mapping[str, str] | None = None,
    ) -> Signature:
        """The signature in `folder`, which is of files that have these SHA-256 and no others.

        Of reports, too, where some are signed and `reports` gives those that there are.
        Raises InputError, naming the file, for what is unsigned, signed by another or not what was
        signed, and for what is older than what was accepted.
        """
        signature = verified(folder, self.keys)
        signature.check(folder, digests, signature.listed)
        if reports is not None and signature.reports:
            signature.check(folder, reports, signature.reports)
        self.accept(folder, signature)
        return signature

    def accept(self, folder: Path, signature: Signature) -> None:
        """Keep that the `signature` in `folder` was accepted. Raises InputError as `check` does."""
        if self.accepted is None:
            return
        path, name = self.accepted, signature.artifact
        date = _date(signature.signed_at)
        if date is None:
            raise InputError(
                f"{folder / SIGNATURE} does not say when it was signed, so that it may be older "
                "than what was accepted before",
                fix="sign it with 'vitedge sign'",
            )
        with _alone(path):
            record = _read(path)
            before = record.accepted.get(name)
            newest = _date(before.signed_at) if before else None
            if newest and date < newest:
                raise InputError(
                    f"{folder / SIGNATURE} is of {signature.signed_at}, older than what was "
                    f"accepted before: {before.signed_at if before else ''}",
                    fix=f"get the newer artifact; {path} keeps what was accepted",
                )
            if newest is None or date > newest:
                entry = Accepted(signed_at=signature.signed_at, fingerprint=signature.fingerprint)
                _write(path, _Record(accepted={**record.accepted, name: entry}))


def trust_of(
    keys: str | os.PathLike[str] | None, accepted: str | os.PathLike[str] | None
) -> Trust | None:
    """The keys in a file or folder, and where what was accepted is kept; None without keys.

    Raises InputError where there is no key, or a file that is none.
    """
    if keys is None:
        if accepted is not None:
            raise InputError(
                f"`accepted={os.fspath(accepted)!r}` is of what is trusted",
                fix="pass `trust=KEYS`, too",
            )
        return None
    place = Path(keys)
    if not place.exists():
        raise InputError(f"no keys at {place}", fix="give a public key, or a folder of them")
    paths = [place]
    if place.is_dir():
        paths = sorted(path for path in place.iterdir() if not path.name.startswith("."))
        if not paths:
            raise InputError(f"no keys in {place}", fix="put public keys there, in PEM")
    record = None if accepted is None else Path(accepted)
    if record is not None:
        files.check_writable(record, "`accepted`")
    return Trust(tuple(map(public_key, paths)), record)


def _read(path: Path) -> _Record:
    if not os.path.lexists(path):
        return _Record()
    fix = "is it the right file? A new one is made where there is none"
    try:
        record = msgspec.convert(read_json(path, fix=fix), _Record)
    except msgspec.ValidationError as error:
        raise InputError(f"{path} cannot be read: {error}", fix=fix) from error
    if record.schema != SCHEMA:
        raise InputError(f"{path} is not of schema '{SCHEMA}'", fix=fix)
    return record


def _write(path: Path, record: _Record) -> None:
    content = msgspec.json.format(msgspec.json.encode(record), indent=2)
    files.write_bytes(path, content + b"\n", fix="make its folder writable")


def _date(text: str) -> datetime | None:
    """None where `text` is no date with its offset from UTC."""
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    return date if date.tzinfo else None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While no other process reads and writes the file at `path`, where the system can tell."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(os.path.dirname(os.path.realpath(path)), os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
