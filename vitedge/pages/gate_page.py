"""What a gate decided and why, as one page: the evidence of each artifact beside its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vitedge.inspection import rows_of
from vitedge.pages import about, changes, depth, pareto, spread, verdicts
from vitedge.pages.columns import Columns, at, between, section
from vitedge.pages.measured import Report, look, within
from vitedge.pages.shell import LARGEST_BYTES, definitions, document, safe
from vitedge.pages.table import SIGNS, answer

if TYPE_CHECKING:
    from vitedge.evidence import PerImage
    from vitedge.manifest import Manifest
    from vitedge.verdict import Judged, Verdict

SPARE_BYTES = 50_000
"""Of a page's size, for the document around the artifacts."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One artifact, its answers, and what there is to show of it."""

    judged: Judged
    report: Report
    manifest: Manifest | None
    """None where only a report was given."""
    labels: tuple[str, ...]
    """The classes' names, as far as known."""
    evidence: PerImage | None
    """None where it was not validated, or not kept."""


def render(verdict: Verdict, artifacts: Sequence[Shown], command: str) -> str:
    """The whole page, under 2 MB; `command` is what was typed."""
    title = f"vitedge gate: {verdict.answer}"
    return document(title, _body(verdict, _worst_first(artifacts), command))


def _worst_first(artifacts: Sequence[Shown]) -> list[Shown]:
    order = ("failed", "inconclusive", "passed")
    return sorted(artifacts, key=lambda one: order.index(one.judged.answer))


def _body(verdict: Verdict, artifacts: Sequence[Shown], command: str) -> Iterable[str]:
    judged = [one.judged for one in artifacts]
    reports = [_judged(one) for one in artifacts]
    head = [
        f'<h1>vitedge gate: <span class="{verdict.answer}">{answer(verdict.answer)}</span></h1>',
        f"<p>{safe(_counts(judged))} Each limit at {verdict.confidence:.4g} confidence.</p>",
        *section("Artifacts", reports, "artifact", ARTIFACTS),
        *verdicts.intervals(judged),
        *verdicts.checks(judged),
        *pareto.sections(reports),
        *spread.distributions(runs := spread.timed(reports)),
        *spread.series(runs),
    ]
    foot = [
        *about.machines(reports),
        *("<section><h2>How to reproduce</h2>", *about.listing([command]), "</section>"),
    ]
    room = LARGEST_BYTES - SPARE_BYTES - _size([*head, *foot])
    yield from head
    left_out = []
    for one in artifacts:
        details = list(_details(one))
        room -= _size(details)
        if room < 0:
            left_out.append(one.judged.artifact)
        else:
            yield from details
    if left_out:
        names = ", ".join(left_out)
        yield f'<p class="note">Left out, for the page to stay small: {safe(names, 1000)}. '
        yield "Gate them by themselves to see them.</p>"
    yield from foot


def _size(parts: Sequence[str]) -> int:
    return sum(len(part.encode(errors="replace")) + 1 for part in parts)


def _counts(judged: Sequence[Judged]) -> str:
    found = Counter[str](one.answer for one in judged)
    said = ", ".join(f"{found[key]} {key}" for key in SIGNS if found[key])
    return f"{len(judged)} artifact{'s' * (len(judged) != 1)}: {said}."


def _judged(one: Shown) -> Report:
    """Its report, with what the gate says of it."""
    said = {key: getattr(one.judged, key) for key in ("artifact", "model", "target", "precision")}
    return {**one.report, **said, "answer": one.judged.answer, "against": one.judged.against}


def _details(one: Shown) -> Iterable[str]:
    """Everything about one artifact; folded where it passed."""
    judged, made = one.judged, one.manifest
    opened = "" if judged.answer == "passed" else " open"
    yield f"<section><h2>{safe(judged.artifact)}</h2><details{opened}><summary>"
    yield f'<span class="{judged.answer}">{answer(judged.answer)}</span>: what changed, and what '
    yield "it is</summary>"
    if one.evidence is not None:
        yield from changes.confusion(one.evidence, one.labels)
        yield from changes.thumbnails(one.evidence, one.labels)
    else:
        yield '<p class="soft">What became of each image is not known: run vitedge validate.</p>'
    if made is not None:
        yield from _depth(made)
        yield from ("<h3>Manifest</h3>", *definitions(about.manifest(made)))
        data = str(look(one.report, "accuracy", "data") or "")
        steps = about.commands(made, judged.path, data)
        yield from ("<h3>Made and proven by</h3>", *about.listing(steps))
    yield "</details></section>"


def _depth(made: Manifest) -> Iterable[str]:
    if made.quantization is None:
        return
    rows = rows_of(made.quantization.layers)
    yield "<h3>Error against depth</h3>"
    yield from list(depth.picture(rows, "vitedge inspect has every value")) or [
        '<p class="soft">Not measured when this artifact was made; export it again.</p>'
    ]


ARTIFACTS: Columns = {
    "answer": ("answer", lambda report: str(report["answer"])),
    "against": ("", lambda report: str(report["against"])),
    "accuracy %": ("number", at("accuracy", "artifact", how=".2f", unit=0.01)),
    "drop pp, 95%": (
        "number",
        lambda r: within(look(r, "accuracy", "drop_pp"), look(r, "accuracy", "drop_ci_pp"), "+.2f"),
    ),
    "agreement %": ("number", at("accuracy", "agreement", how=".2f", unit=0.01)),
    "SQNR dB": ("number", at("numerics", "sqnr_db", how=".1f")),
    "p50 ms": ("number", at("latency", "p50_ms")),
    "speed-up, 95%": ("number", between("latency", "speedup", how=".2f")),
    "size MB": ("number", at("size", "bytes", unit=1e6)),
    "peak RSS MB": ("number", at("memory", "peak_rss_bytes", unit=1e6)),
}
