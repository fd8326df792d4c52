"""What a gate decided and why, as one page: the evidence of each artifact beside its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import msgspec
from markupsafe import Markup

from vitedge.gate.verdict import worst
from vitedge.measure.inspection import rows_of
from vitedge.show import checks, columns, report_tables
from vitedge.show.page import disagreement, inspection, latency, pareto, provenance
from vitedge.show.page.chart import Chart, key, linear, strips, symbol
from vitedge.show.page.shell import LARGEST_BYTES, answer
from vitedge.show.page.shell import render as render_template
from vitedge.show.table import PAGE, Column, Table, lift
from vitedge.show.text import number

if TYPE_CHECKING:
    from vitedge.core.report import Report
    from vitedge.gate.verdict import Answer, Verdict
    from vitedge.show.page.artifacts import ArtifactFiles

STRIP_PX = 40
COLOURS = {"passed": "c2", "failed": "c4", "inconclusive": "c1"}
LEGEND = (
    (key("line c0") + symbol("dot c0"), "measured, and its interval"),
    (key("limit"), "limit"),
)

Decided = tuple["Answer", "Report"]


def render(verdict: Verdict, artifacts: Mapping[str, ArtifactFiles], command: str) -> str:
    """The whole page, under 2 MB.

    Args:
        verdict: what the gate said.
        artifacts: what there is to show of each artifact, by the path that was judged.
        command: what was typed.
    """
    answers = _answers(verdict)
    measured = [artifacts[path].report for path in answers]
    reports, names = columns.named(measured), [report.artifact for report in measured]
    counts = Counter[str](answers.values())
    worst_first = sorted(verdict.judged, key=lambda judged: checks.WORST_FIRST.index(judged.answer))
    rows = checks.rows(msgspec.structs.replace(verdict, judged=tuple(worst_first)))
    page: dict[str, Any] = {
        "title": f"vitedge gate: {verdict.answer}",
        "answer": verdict.answer,
        "counts": ", ".join(f"{counts[key]} {key}" for key in checks.WORST_FIRST if counts[key]),
        "count": len(answers),
        "confidence": number(100 * verdict.confidence, ".4g"),
        "artifacts": _artifacts([*zip(answers.values(), reports, strict=True)]),
        "intervals": intervals(rows),
        "limits": Table("Limits", checks.COLUMNS, rows),
        "signatures": list(checks.signatures(verdict)),
        "pareto": pareto.pictures(measured),
        "distribution": latency.distributions(reports),
        "series": latency.series(reports),
        "machines": provenance.machines(reports),
        "command": command,
    }
    bare = render_template("gate.html", **page, details=[], left_out=names)
    room = LARGEST_BYTES - len(bare.encode(errors="replace"))
    details: list[Markup] = []
    for path, outcome in answers.items():
        detail = _details(path, outcome, artifacts[path])
        room -= len(detail.encode(errors="replace"))
        if room < 0:
            break
        details.append(detail)
    return render_template("gate.html", **page, details=details, left_out=names[len(details) :])


def _answers(verdict: Verdict) -> dict[str, Answer]:
    """The worst answer of each artifact, be it against FP32 or a baseline; the worst first."""
    by_path: dict[str, list[Answer]] = {}
    for judged in verdict.judged:
        by_path.setdefault(judged.path, []).append(judged.answer)
    answers = {path: worst(tuple(outcomes)) for path, outcomes in by_path.items()}
    return dict(sorted(answers.items(), key=lambda pair: checks.WORST_FIRST.index(pair[1])))


def _artifacts(decided: Sequence[Decided]) -> Table[Decided]:
    """Each artifact's answer beside what a terminal has of it."""
    proof = report_tables.proof([report for _, report in decided], "Artifacts")
    brief = [column for column in proof.columns if "terminal" in column.on]
    name, *figures = lift(_report, *brief)
    outcome = Column[Decided]("answer", "answer", "", lambda row: row[0], kind="answer")
    return Table(proof.title, (name, outcome, *figures), decided)


def _report(decided: Decided) -> Report:
    return decided[1]


def intervals(rows: Sequence[checks.NamedCheck]) -> list[tuple[str, Chart]]:
    """A picture for each metric that has intervals: where they lie, and the limits."""
    drawn: dict[str, list[checks.NamedCheck]] = {}
    for row in rows:
        if row.finite and isfinite(row.check.limit):
            drawn.setdefault(row.label, []).append(row)
    return [(label.capitalize(), _strips(label, group)) for label, group in drawn.items()]


def _strips(label: str, rows: Sequence[checks.NamedCheck]) -> Chart:
    places = [
        [row.scaled(v or 0) for v in (row.check.limit, row.value, *(row.check.interval or ()))]
        for row in rows
    ]
    edges = [value for values in places for value in values]
    room = 0.03 * (max(edges) - min(edges) or 1.0)
    title = f"{label}, {rows[0].unit}".rstrip(", ")
    axis = linear(title, [min(edges) - room, max(edges) + room])
    contents = f"{label} of {len(rows)} artifacts, interval and limit; the table has the values"
    chart = strips(axis, len(rows), contents, STRIP_PX, LEGEND)
    drawn = zip(rows[::-1], places[::-1], strict=True)
    for strip, (row, (limit, value, low, high)) in enumerate(drawn):
        at, css, outcome = strip + 0.28, COLOURS[row.check.answer], answer(row.check.answer)
        measured, interval = (c.cell(row, PAGE) for c in (checks.MEASURED, checks.INTERVAL))
        chart.draw(
            chart.line([(limit, strip), (limit, strip + 1)], "limit"),
            chart.line([(low, at), (high, at)], f"line {css}"),
            *(chart.line([(end, at - 0.1), (end, at + 0.1)], f"line {css}") for end in (low, high)),
            chart.mark(value, at, f"dot {css}"),
            chart.text(axis.low, strip + 1, f"{outcome}: {row.name}", shift=(6, 17)),
            title=f"{row.name}: {measured} ({interval}), {label} {row.limit}",
        )
    return chart


def _details(path: str, outcome: Answer, artifact: ArtifactFiles) -> Markup:
    """Everything about one artifact; folded where it passed."""
    manifest, per_image, accuracy = artifact.manifest, artifact.per_image, artifact.report.accuracy
    record = manifest.quantization if manifest else None
    layers, data = rows_of(record.layers) if record else (), accuracy.data if accuracy else ""
    page = render_template(
        "artifact.html",
        name=artifact.report.artifact,
        answer=outcome,
        validated=per_image is not None,
        confusion=per_image and disagreement.confusion(per_image, artifact.labels),
        thumbnails=per_image and disagreement.thumbnails(per_image, artifact.labels),
        quantized=record is not None,
        depth=inspection.depth(layers, "vitedge inspect has every value"),
        manifest=manifest and provenance.manifest(manifest),
        commands=manifest and provenance.commands(manifest, path, data),
    )
    return Markup(page)
