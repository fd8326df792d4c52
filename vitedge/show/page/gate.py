"""What a gate decided and why, as one page: the evidence of each artifact beside its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from vitedge.gate.verdict import worst
from vitedge.measure.inspection import rows_of
from vitedge.show.page import disagreement, latency, pareto, provenance, sqnr, verdicts
from vitedge.show.page.columns import Columns, at, between, dropped, section
from vitedge.show.page.report import look
from vitedge.show.page.shell import LARGEST_BYTES, definitions, document, safe
from vitedge.show.page.table import SIGNS, answer

if TYPE_CHECKING:
    from vitedge.core.manifest import Manifest
    from vitedge.gate.verdict import Answer, Verdict
    from vitedge.show.page.artifacts import ArtifactFiles

SPARE_BYTES = 50_000
"""Of a page's size, for the document around the artifacts."""


def render(verdict: Verdict, artifacts: Mapping[str, ArtifactFiles], command: str) -> str:
    """The whole page, under 2 MB.

    Args:
        verdict: what the gate said.
        artifacts: what there is to show of each artifact, by the path that was judged.
        command: what was typed.
    """
    answers = _answers(verdict)
    paths = sorted(answers, key=lambda path: list(SIGNS).index(answers[path]))
    body = _body(verdict, {path: (answers[path], artifacts[path]) for path in paths}, command)
    return document(f"vitedge gate: {verdict.answer}", body)


def _answers(verdict: Verdict) -> dict[str, Answer]:
    """The worst answer of each artifact, be it against FP32 or a baseline."""
    paths = dict.fromkeys(judged.path for judged in verdict.judged)
    return {
        path: worst(tuple(judged.answer for judged in verdict.judged if judged.path == path))
        for path in paths
    }


def _body(
    verdict: Verdict, shown: Mapping[str, tuple[Answer, ArtifactFiles]], command: str
) -> Iterable[str]:
    reports = [{**artifact.report, "answer": outcome} for outcome, artifact in shown.values()]
    runs = latency.timed(reports)
    head = [
        f'<h1>vitedge gate: <span class="{verdict.answer}">{answer(verdict.answer)}</span></h1>',
        f"<p>{_counts([outcome for outcome, _ in shown.values()])} Each bound of an interval holds "
        f"at {100 * verdict.confidence:.4g}%.</p>",
        *section("Artifacts", reports, "artifact", ARTIFACTS),
        *verdicts.intervals(verdict),
        *verdicts.checks(verdict),
        *pareto.sections(reports),
        *latency.distributions(runs),
        *latency.series(runs),
    ]
    foot = [
        *provenance.machines(reports),
        *("<section><h2>How to reproduce</h2>", *provenance.listing([command]), "</section>"),
    ]
    room = LARGEST_BYTES - SPARE_BYTES - _size([*head, *foot])
    yield from head
    left_out: list[str] = []
    for path, (outcome, artifact) in shown.items():
        details = [] if left_out else list(_details(path, outcome, artifact))
        room -= _size(details)
        if left_out or room < 0:
            left_out.append(str(artifact.report["artifact"]))
        else:
            yield from details
    if left_out:
        names = ", ".join(left_out)
        yield f'<p class="note">Left out, for the page to stay small: {safe(names, 1000)}. '
        yield "Gate them by themselves to see them.</p>"
    yield from foot


def _size(parts: Sequence[str]) -> int:
    return sum(len(part.encode(errors="replace")) + 1 for part in parts)


def _counts(answers: Sequence[Answer]) -> str:
    counts = Counter[str](answers)
    parts = ", ".join(f"{counts[key]} {key}" for key in SIGNS if counts[key])
    return f"{len(answers)} artifact{'s' * (len(answers) != 1)}: {parts}."


def _details(path: str, outcome: Answer, artifact: ArtifactFiles) -> Iterable[str]:
    """Everything about one artifact; folded where it passed."""
    opened = "" if outcome == "passed" else " open"
    yield f"<section><h2>{safe(str(artifact.report['artifact']))}</h2><details{opened}><summary>"
    signed = f'<span class="{outcome}">{answer(outcome)}</span>'
    yield f"{signed}: what changed, and what it is</summary>"
    if artifact.per_image is not None:
        yield from disagreement.confusion(artifact.per_image, artifact.labels)
        yield from disagreement.thumbnails(artifact.per_image, artifact.labels)
    else:
        yield '<p class="soft">What became of each image is not known: run vitedge validate.</p>'
    if artifact.manifest is not None:
        yield from _depth(artifact.manifest)
        yield from ("<h3>Manifest</h3>", *definitions(provenance.manifest(artifact.manifest)))
        data = str(look(artifact.report, "accuracy", "data") or "")
        steps = provenance.commands(artifact.manifest, path, data)
        yield from ("<h3>Made and proven by</h3>", *provenance.listing(steps))
    yield "</details></section>"


def _depth(manifest: Manifest) -> Iterable[str]:
    if manifest.quantization is None:
        return
    rows = rows_of(manifest.quantization.layers)
    yield "<h3>Error against depth</h3>"
    yield from list(sqnr.picture(rows, "vitedge inspect has every value")) or [
        '<p class="soft">Not measured when this artifact was made; export it again.</p>'
    ]


ARTIFACTS: Columns = {
    "answer": ("answer", lambda report: str(report["answer"])),
    "accuracy %": ("number", at("accuracy", "artifact", how=".2f", unit=0.01)),
    "drop pp, 95%": ("number", dropped),
    "agreement %": ("number", at("accuracy", "agreement", how=".2f", unit=0.01)),
    "SQNR dB": ("number", at("numerics", "sqnr_db", how=".1f")),
    "p50 ms": ("number", at("latency", "p50_ms")),
    "speed-up, 95%": ("number", between("latency", "speedup", how=".2f")),
    "size MB": ("number", at("size", "bytes", unit=1e6)),
    "peak RSS MB": ("number", at("memory", "peak_rss_bytes", unit=1e6)),
}
