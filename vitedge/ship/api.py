"""The API's part on shipping: sign artifacts, verify whose they are, and package them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vitedge.core.api import AnyBundle, AnyPath, folder, verified
from vitedge.core.errors import InputError

if TYPE_CHECKING:
    from vitedge.core.signature import Signature
    from vitedge.ship.package import Package


def sign(artifact: AnyBundle, *, key: AnyPath, report: bool = False) -> Signature:
    """Sign an artifact: every file that its manifest lists, and the manifest.

    The signature, in OpenSSF's Model Signing format, is its `signature.json`.

    Args:
        artifact: An artifact's folder.
        key: The private key, on P-256, P-384 or P-521, in PEM.
        report: Sign the reports and the evidence in it, too, as they are now.

    Raises:
        InputError: no sound artifact, no report, or a key of no use.
        UnavailableError: the package `model-signing` is missing.
    """
    from vitedge.core import bundle, files
    from vitedge.core.signature import SIGNATURE
    from vitedge.ship import signing

    path = folder(artifact)
    manifest, digests = bundle.digests(path)
    if report:
        reports = signing.reports(path)
        if not reports:
            raise InputError(f"{path} has no report to sign", fix="measure it, or drop `report`")
        digests |= reports
    document, signature = signing.sign(manifest.name, digests, Path(key))
    files.replace(path / SIGNATURE, document, fix="make the artifact's folder writable")
    return signature


def verify(artifact: AnyBundle, *, trust: AnyPath, accepted: AnyPath | None = None) -> Signature:
    """Verify that an artifact, and its reports where they are signed, are what a key has signed.

    That is so when it is said. A command with `trust` runs the very bytes that it has verified.

    Args:
        artifact: An artifact's folder.
        trust: Keys to trust: a public key in PEM, or a folder of them.
        accepted: A file of what was accepted before: what is older is refused.

    Raises:
        InputError: unsigned, signed by another key, changed since, or older than accepted.
        UnavailableError: the package `cryptography` is missing.
    """
    from vitedge.core import bundle
    from vitedge.core.trust import trust_of
    from vitedge.ship import signing

    path = folder(artifact)
    keys = trust_of(trust, accepted)
    assert keys is not None
    _, digests = bundle.digests(path)
    return keys.check(path, digests, signing.reports(path))


def package(artifact: AnyBundle, *, form: str, output: AnyPath) -> Package:
    """Write an artifact as something that runs without vitedge, verified first.

    Its model, and a program, a project or settings that are made from its manifest alone.

    Args:
        artifact: An artifact's folder.
        form: The kind of package: python, cpp, triton, web, or what a plug-in adds.
        output: The folder to write, which must not be there.

    Raises:
        InputError: no sound artifact, one for a runtime that the kind does not take, or an `output`
            that is there already.
    """
    from vitedge.ship.package import write

    return write(verified(artifact), form, Path(output))
