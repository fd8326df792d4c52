"""What a data set is, as tables for people: its figures, then what to know of it."""

from __future__ import annotations

from vitedge.measure.data_check import DataCheck, DataFinding
from vitedge.show.table import Column, Table
from vitedge.show.terminal import tables

CLASSES = 10
"""Classes that are listed, those with the fewest images first."""

_Finding = Column[DataFinding]
FINDINGS = (
    _Finding("severity", "severity", "", lambda f: f.severity, kind="word"),
    _Finding("count", "count", "", lambda f: f.count or None, ".0f"),
    _Finding("what", "what", "", lambda f: f.what, kind="text"),
    _Finding("examples", "for example", "", lambda f: ", ".join(f.examples[:2]), kind="text"),
    _Finding("fix", "fix", "", lambda f: f.fix, kind="text"),
)


def show(check: DataCheck) -> None:
    """Print it on stdout."""
    tables.show(tables.listing(("what", ""), list(facts(check).items())))
    if check.findings:
        table = Table("", FINDINGS, check.findings, keeps_empty=True)
        tables.show(tables.grid(table, lined=False, padding=1))
    print(verdict(check))


def facts(check: DataCheck) -> dict[str, str]:
    """The figures in words."""
    words = {
        "images": f"{check.images:,}, {check.usable:,} usable, read as {check.used_as} data",
        "model": f"{check.model}, {check.task}" if check.model else f"none given, {check.task}",
        "classes": _classes(check),
        "width": _spread(check.width_px),
        "height": _spread(check.height_px),
        "pixels": ", ".join(f"{count:,} {mode}" for mode, count in check.modes.items()),
    }
    return {name: text for name, text in words.items() if text}


def verdict(check: DataCheck) -> str:
    """What it comes to, in one line."""
    severities = [finding.severity for finding in check.findings]
    counts = {kind: severities.count(kind) for kind in ("error", "warning")}
    if not any(counts.values()):
        return f"{check.data}: ready for {check.used_as}"
    listed = " and ".join(f"{n} {kind}{'s' * (n > 1)}" for kind, n in counts.items() if n)
    return f"{check.data}: {listed}"


def _classes(check: DataCheck) -> str:
    if not check.classes:
        return ""
    fewest = sorted(check.classes, key=lambda c: c.images)
    listed = ", ".join(f"{c.name} {c.images:,}" for c in fewest[:CLASSES])
    return f"{len(fewest):,}: {listed}{', …' if len(fewest) > CLASSES else ''}"


def _spread(ends: tuple[int, int, int] | None) -> str:
    if ends is None:
        return ""
    least, middle, largest = ends
    if least == largest:
        return f"{least:,} pixels"
    return f"{least:,} to {largest:,} pixels, median {middle:,}"
