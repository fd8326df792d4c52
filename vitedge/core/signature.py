"""signature.json: whose a bundle is, in the OpenSSF's Model Signing format.

An in-toto statement of each file's SHA-256, in a DSSE envelope, in a Sigstore bundle:
https://github.com/sigstore/model-transparency. Upstream's package signs (`ship.signing`). What
verifies on a device needs `cryptography` alone: upstream's brings an HTTP client and TUF with it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from vitedge.core import bounded
from vitedge.core.errors import InputError, first_few
from vitedge.core.json_document import parse
from vitedge.core.keys import Key

SIGNATURE = "signature.json"
REPORTS = re.compile(r"report(-[^/\x00-\x1f]+)?\.json|evidence\.npz")
"""Names of what measuring makes anew: signed where that is asked for."""
_MANIFEST = "manifest.json"
LIMIT_BYTES = 4 * 2**20
AGAIN = "sign it again, or get it from where it was signed"


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What a key has signed. Nothing is known of it but what its signer says."""

    artifact: str
    """Its name."""
    key: str
    """The name of the key's file."""
    fingerprint: str
    """SHA-256 of the public key in PEM."""
    signed_at: str
    """ISO 8601, as the signer says; empty where it says nothing."""
    files: dict[str, str]
    """SHA-256 of every file that is signed."""

    @property
    def listed(self) -> dict[str, str]:
        """Those that the manifest lists, and the manifest."""
        return {name: sha for name, sha in self.files.items() if not REPORTS.fullmatch(name)}

    @property
    def reports(self) -> dict[str, str]:
        """Reports and evidence among them."""
        return {name: sha for name, sha in self.files.items() if REPORTS.fullmatch(name)}

    def check(self, folder: Path, digests: Mapping[str, str], signed: Mapping[str, str]) -> None:
        """Raise InputError, naming the file, unless `digests` of those in `folder` are `signed`."""
        names = sorted(digests.keys() | signed.keys())
        for name in sorted(names, key=_MANIFEST.__eq__):  # which tells of the others, last
            if name not in digests:
                raise InputError(f"{folder}: {name!r} was signed, and is missing", fix=AGAIN)
            if name not in signed:
                raise InputError(f"{folder}: {name!r} is not signed", fix=AGAIN)
            if digests[name] != signed[name]:
                raise InputError(
                    f"{folder}: {name!r} is not the file that was signed (SHA-256 differs)",
                    fix=AGAIN,
                )


def verified(folder: Path, keys: Sequence[Key]) -> Signature:
    """The signature in `folder`, by one of `keys`. What it signed is still to be compared.

    Raises InputError where there is none or by another key, and UnavailableError without the
    package.
    """
    file = folder / SIGNATURE
    if not os.path.lexists(file):
        raise InputError(f"{folder} is not signed: it has no {SIGNATURE}", fix=AGAIN)
    content = parse(bounded.read(file, LIMIT_BYTES, follow=False), file, AGAIN)
    try:
        document = msgspec.convert(content, _Document)
        public, envelope = document.verification_material.public_key, document.dsse_envelope
        if public is None:
            raise ValueError("it was made with no key; see docs/trust.md for Sigstore's identities")
        statement = msgspec.convert(parse(envelope.payload, file, AGAIN), _Statement)
        digests = statement.digests()
    except ValueError as error:  # msgspec's are
        raise InputError(f"{file} cannot be read: {error}", fix=AGAIN) from error
    key = next((key for key in keys if key.fingerprint == public.hint), None)
    if key is None:
        names = first_few([key.path.name for key in keys])
        raise InputError(
            f"{file} is by another key (SHA-256 {public.hint[:16]}…) than those to trust: {names}",
            fix="trust that key, too, if it is whose you think it is",
        )
    if not _is_signed(envelope, key):
        raise InputError(f"{file} is not what {key.path.name} has signed", fix=AGAIN)
    return Signature(
        artifact=statement.subject[0].name,
        key=key.path.name,
        fingerprint=key.fingerprint,
        signed_at=statement.predicate.serialization.signed_at,
        files=digests,
    )


_SHA256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


_Some = msgspec.Meta(min_length=1, max_length=1)


class _PublicKey(msgspec.Struct, frozen=True):
    hint: _SHA256


class _Material(msgspec.Struct, frozen=True, rename="camel"):
    public_key: _PublicKey | None = None


class _Signed(msgspec.Struct, frozen=True):
    sig: bytes


class _Envelope(msgspec.Struct, frozen=True, rename="camel"):
    payload: bytes
    payload_type: Literal["application/vnd.in-toto+json"]
    signatures: Annotated[tuple[_Signed, ...], _Some]


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    """A Sigstore bundle: what is read of it."""

    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]
    verification_material: _Material
    dsse_envelope: _Envelope


class _Subject(msgspec.Struct, frozen=True):
    name: str
    digest: dict[str, str]


class _Resource(msgspec.Struct, frozen=True):
    name: str
    algorithm: Literal["sha256"]
    digest: _SHA256


class _Serialization(msgspec.Struct, frozen=True):
    method: Literal["files"]
    signed_at: str = ""


class _Predicate(msgspec.Struct, frozen=True):
    serialization: _Serialization
    resources: tuple[_Resource, ...]


class _Statement(msgspec.Struct, frozen=True, rename="camel"):
    """Of in-toto, with Model Signing's predicate."""

    kind: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: Annotated[tuple[_Subject, ...], _Some]
    predicate_type: Literal["https://model_signing/signature/v1.0"]
    predicate: _Predicate

    def digests(self) -> dict[str, str]:
        """SHA-256 by name. Raises ValueError where it contradicts itself."""
        resources = self.predicate.resources
        digests = {resource.name: resource.digest for resource in resources}
        root = hashlib.sha256(b"".join(bytes.fromhex(x.digest) for x in resources)).hexdigest()
        if len(digests) < len(resources) or self.subject[0].digest.get("sha256") != root:
            raise ValueError("it contradicts itself")
        return digests


def _is_signed(envelope: _Envelope, key: Key) -> bool:
    """Whether `key` has signed the envelope, by DSSE's protocol."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    kind, payload = envelope.payload_type, envelope.payload
    encoding = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    public = key.public()
    algorithms = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
    try:
        public.verify(envelope.signatures[0].sig, encoding, ec.ECDSA(algorithms[public.key_size]))
    except InvalidSignature:
        return False
    return True
