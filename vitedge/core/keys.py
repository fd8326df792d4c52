"""Keys on elliptic curves, as PEM files: public ones to trust, private ones to sign with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vitedge.core import bounded
from vitedge.core.errors import InputError, missing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""Those that Model Signing has: P-256, P-384 and P-521."""
LIMIT_BYTES = 2**16
_MAKE = "make one: openssl ecparam -name prime256v1 -genkey -noout -out KEY.pem"


@dataclass(frozen=True)
class Key:
    """A public key, of a signature to trust or of one that was just made."""

    path: Path
    pem: bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its PEM, by which a signature names it."""
        return hashlib.sha256(self.pem).hexdigest()

    def public(self) -> EllipticCurvePublicKey:
        """It, to verify with."""
        key = _cryptography("load_pem_public_key")(self.pem)
        return cast("EllipticCurvePublicKey", key)


def public_key(path: Path) -> Key:
    """The public key in a PEM file. Raises InputError, and UnavailableError without the package."""
    load = _cryptography("load_pem_public_key")
    content = bounded.read(path, LIMIT_BYTES)
    try:
        key = load(content)
    except Exception as error:  # of several kinds, by what is wrong with it
        private = b"PRIVATE KEY" in content
        raise InputError(
            f"{path} is {'a private key' if private else 'no public key in PEM'}",
            fix="give its public half: openssl ec -in KEY.pem -pubout -out KEY.pub",
        ) from error
    return _key(path, key)


def public_half(path: Path) -> Key:
    """Of the private key in a PEM file. Raises InputError, and UnavailableError likewise."""
    load = _cryptography("load_pem_private_key")
    content = bounded.read(path, LIMIT_BYTES)
    try:
        private = load(content, None)
    except TypeError as error:
        raise InputError(
            f"{path} is encrypted",
            fix="give one without a password, as a secret of the machine that signs",
        ) from error
    except Exception as error:
        raise InputError(f"{path} is no private key in PEM", fix=_MAKE) from error
    return _key(path, private.public_key())


def _key(path: Path, key: Any) -> Key:
    """Raises InputError where the format has no such key."""
    from cryptography.hazmat.primitives import serialization

    curve = getattr(getattr(key, "curve", None), "name", "")
    if curve not in CURVES:
        raise InputError(
            f"{path} is no key on P-256, P-384 or P-521: {curve or type(key).__name__}",
            fix=_MAKE,
        )
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return Key(path, key.public_bytes(serialization.Encoding.PEM, form))


def _cryptography(name: str) -> Callable[..., Any]:
    """A function that loads keys. Raises UnavailableError without `model-signing`."""
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise missing("cryptography", "trust") from error
    load: Callable[..., Any] = getattr(serialization, name)
    return load
