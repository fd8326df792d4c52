"""The API's part on shipping: sign, verify, package, push and pull artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vitedge.core.api import ARTIFACTS, AnyBundle, AnyPath, folder, verified
from vitedge.core.errors import InputError

if TYPE_CHECKING:
    from vitedge.core.bundle import Bundle
    from vitedge.core.signature import Signature
    from vitedge.ship.hub import Pushed
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


def card(artifact: AnyBundle, *, license: str = "") -> str:
    """Say what an artifact is as a model card: the README.md of a repository on the Hub.

    Its figures are the report's; of an artifact that was never validated it says so.

    Args:
        artifact: An artifact's folder.
        license: The licence that its card states, as the Hub names it, e.g. apache-2.0.

    Raises:
        InputError: no sound artifact, or a report that cannot be read.
        UnavailableError: the package `huggingface_hub` is missing.
    """
    from vitedge.ship import card

    return card.card(verified(artifact), license)


def push(
    artifact: AnyBundle, repository: str, *, license: str = "", private: bool = False
) -> Pushed:
    """Upload an artifact to the Hugging Face Hub, verified first, with its card and reports.

    What names a place on this machine is not uploaded: nothing is, then.

    Args:
        artifact: An artifact's folder.
        repository: USER/REPO, which is created where there is none.
        license: The licence that its card states, as the Hub names it, e.g. apache-2.0.
        private: Create the repository for you alone.

    Raises:
        InputError: no sound artifact, local paths in it, or what the Hub refuses.
        UnavailableError: the Hub cannot be reached, or `huggingface_hub` is missing.
    """
    from vitedge.ship import hub

    return hub.push(verified(artifact), repository, license, private=private)


def pull(
    repository: str,
    *,
    output: AnyPath = ARTIFACTS,
    trust: AnyPath | None = None,
    accepted: AnyPath | None = None,
    force: bool = False,
) -> Bundle:
    """Download an artifact from the Hugging Face Hub: what its manifest lists, verified.

    Args:
        repository: USER/REPO, or USER/REPO@REV with a branch, tag or commit.
        output: Folder to put it in, under its own name.
        trust: Refuse what none of these keys has signed: a public key in PEM, or a folder of them.
        accepted: A file of what was accepted before: refuse what is older.
        force: Replace an artifact of that name.

    Raises:
        InputError: there is none, or it is not what its manifest says, or not to be trusted.
        UnavailableError: the Hub cannot be reached, or `huggingface_hub` is missing.
    """
    from vitedge.core.trust import trust_of
    from vitedge.ship import hub

    return hub.pull(repository, Path(output), trust_of(trust, accepted), force=force)
