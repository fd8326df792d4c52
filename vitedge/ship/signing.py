"""Signing: the statement of a bundle's files, by a private key."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any

from vitedge.core.errors import missing
from vitedge.core.keys import public_half
from vitedge.core.private_copy import digest
from vitedge.core.signature import REPORTS, SIGNATURE, Signature

_IGNORED = (SIGNATURE, "report.json", "evidence.npz")
"""What upstream's own verifier is told to leave out; it knows no patterns."""


def sign(name: str, digests: Mapping[str, str], key: Path) -> tuple[bytes, Signature]:
    """signature.json of the artifact `name`, whose files have these SHA-256, by the private key in
    a PEM file.

    Raises InputError for a key of no use, and UnavailableError without `model-signing`.
    """
    try:
        from model_signing import signing
    except ImportError as error:  # or what it needs and does not say
        raise missing("model-signing", "sign") from error
    public = public_half(key)
    signed_at = datetime.now(timezone.utc).isoformat()
    config = signing.Config()  # type: ignore[no-untyped-call]
    config.use_elliptic_key_signer(private_key=key)
    config.set_hashing_config(_hashed(name, digests, signed_at))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / SIGNATURE
        config.sign(name, file)
        document = file.read_bytes()
    return document, Signature(
        artifact=name,
        key=public.path.name,
        fingerprint=public.fingerprint,
        signed_at=signed_at,
        files=dict(digests),
    )


def reports(folder: Path) -> dict[str, str]:
    """SHA-256 of the reports and the evidence in a bundle, by name. Raises InputError."""
    names = sorted(name for name in os.listdir(folder) if REPORTS.fullmatch(name))
    return {name: digest(folder / name) for name in names}


def _hashed(name: str, digests: Mapping[str, str], signed_at: str) -> Any:
    """What the library takes for the hashing of an artifact: digests that are known already.

    The statement says the date beside the way of hashing, where others pass over it.
    """
    from model_signing import hashing, manifest
    from model_signing._hashing.hashing import Digest

    class Dated(manifest.Manifest):
        @property
        def serialization_type(self) -> dict[str, Any]:
            return {**super().serialization_type, "signed_at": signed_at}

    class Hashed(hashing.Config):
        def hash(self, *_: object, **__: object) -> manifest.Manifest:
            items = [
                manifest.FileManifestItem(
                    path=PurePosixPath(name), digest=Digest("sha256", bytes.fromhex(digest))
                )
                for name, digest in digests.items()
            ]
            return Dated(name, items, kind)

    kind = manifest.SerializationType.from_args(
        {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
            "ignore_paths": [ignored for ignored in _IGNORED if ignored not in digests],
        }
    )
    return Hashed()  # type: ignore[no-untyped-call]
