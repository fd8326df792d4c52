"""Whether a report is signed: it, and the evidence beside it, read once and judged from a copy."""

from __future__ import annotations

import os
from pathlib import Path

from vitedge.core.bundle import EVIDENCE, REPORT, Bundle
from vitedge.core.private_copy import PrivateCopy
from vitedge.core.signature import SIGNATURE, Signature, verified
from vitedge.core.trust import Trust
from vitedge.gate.verdict import ReportSignature, State

EVIDENCE_BYTES = 2**30


class SignedReport:
    """A report and its evidence as a trusted key has signed them: `folder` has the very bytes."""

    def __init__(self, source: Path, bundle: Bundle | None, trust: Trust) -> None:
        """Of `bundle`, or of a report that stands alone. Raises InputError, naming the file."""
        place, name = (source, REPORT) if bundle else (source.parent, source.name)
        self._copy = PrivateCopy()
        for file in (place / name, place / EVIDENCE):
            if os.path.lexists(file):
                self._copy.take(file, EVIDENCE_BYTES)
        if bundle:
            signature = trust.check(place, bundle.digests)
        else:
            signature = verified(place, trust.keys)
            trust.accept(place, signature)
        signed = {n: sha for n, sha in signature.reports.items() if n in (name, EVIDENCE)}
        signature.check(place, self._copy.digests, signed)
        self.file = self._copy.path / name
        self.signature = _of(signature, "signed" if signed else "unsigned")


def signature_of(source: Path, bundle: Bundle | None) -> ReportSignature:
    """What can be said of a report that need not be signed: it is measured in this run, or nobody
    says whom to trust."""
    if bundle and bundle.trust:
        return _of(bundle.trust.check(bundle.path, bundle.digests), "measured")
    place = source if bundle else source.parent
    there = os.path.lexists(place / SIGNATURE)
    return ReportSignature(state="unchecked" if there else "unsigned")


def _of(signature: Signature, state: State) -> ReportSignature:
    return ReportSignature(
        state=state,
        key=signature.key,
        fingerprint=signature.fingerprint,
        signed_at=signature.signed_at,
    )
