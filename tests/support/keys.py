"""Pairs of keys, as openssl makes them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """A private key to sign with, and a public one to trust."""

    private: Path
    public: Path


def pair(folder: Path, name: str, curve: str = "prime256v1") -> Pair:
    """Make them by the commands of docs/trust.md."""
    made = Pair(folder / f"{name}.pem", folder / f"{name}.pub")
    openssl("ecparam", "-name", curve, "-genkey", "-noout", "-out", made.private)
    openssl("ec", "-in", made.private, "-pubout", "-out", made.public)
    return made


def openssl(*words: object) -> None:
    """Run `openssl` with `words`."""
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
