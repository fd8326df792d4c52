"""What no other trial beats, and which one to ship: of one model, on one target, on like hosts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from vitedge.core.host import fingerprint
from vitedge.core.report import LIKENESS, Accuracy, Numerics
from vitedge.export.sweep.row import Row
from vitedge.measure.recommendation import MIN_SQNR_DB

SAME_SPEED = 0.03
"""Of a latency: as much may lie between two runs of one artifact on one host."""
Group = tuple[str, str, str]
"""(model, target, fingerprint of the host that timed; empty where none did)."""


class Shipped(msgspec.Struct, frozen=True, kw_only=True):
    """The trial to ship of a model on a target, as hosts of one kind time it."""

    model: str
    target: str
    host: str
    """What timed it; empty where nothing was timed."""
    trial: str | None
    """None where none is exact enough."""
    reason: str


def accuracy(row: Row) -> Accuracy | None:
    """Measured, or of its graph where the target's runtime is absent; None of how like it is."""
    report = row.report
    if report is None:
        return None
    measured = report.accuracy or (report.simulation.accuracy if report.simulation else None)
    return None if measured and measured.metric in LIKENESS else measured


def numerics(row: Row) -> Numerics | None:
    """Likewise, its outputs against FP32's."""
    if row.report is None:
        return None
    simulation = row.report.simulation
    return row.report.numerics or (simulation.numerics if simulation else None)


def groups(rows: Sequence[Row]) -> dict[Group, list[Row]]:
    """Rows that compare with each other; failed ones with none."""
    grouped: defaultdict[Group, list[Row]] = defaultdict(list)
    for row in rows:
        if row.state == "done" and row.report is not None:
            host = row.report.host if row.report.latency else None
            grouped[row.model, row.target, fingerprint(host) if host else ""].append(row)
    return dict(grouped)


def with_front(rows: Sequence[Row]) -> list[Row]:
    """The rows, those marked that none of their group beats in accuracy, latency and size."""
    front = {row.trial for group in groups(rows).values() for row in _front(group)}
    return [msgspec.structs.replace(row, front=row.trial in front) for row in rows]


def _front(rows: Sequence[Row]) -> list[Row]:
    costs = {row.trial: _costs(row) for row in rows}

    def beaten(row: Row) -> bool:
        own = costs[row.trial]
        return any(
            other != own and all(a <= b for a, b in zip(other, own, strict=True))
            for other in costs.values()
        )

    return [row for row in rows if not beaten(row)]


def _costs(row: Row) -> tuple[float, float, int]:
    """What is wanted small: error, latency and bytes."""
    report = row.report
    assert report is not None
    return (
        -_quality(row),
        report.latency.p50_ms if report.latency else 0.0,
        report.size.bytes if report.size and not report.latency else 0,
    )


def _quality(row: Row) -> float:
    """What is wanted large: accuracy or, without labels, SQNR; FP32 has all of that."""
    if measured := accuracy(row):
        return measured.artifact
    outputs = numerics(row)
    whole = row.precision == "fp32" or outputs is None or outputs.sqnr_db is None
    return float("inf") if whole or outputs is None or outputs.sqnr_db is None else outputs.sqnr_db


def shipped(rows: Sequence[Row], max_drop_pp: float) -> list[Shipped]:
    """For each group, the fastest trial that is exact enough; of equally fast ones the better."""
    return [_shipped(key, group, max_drop_pp) for key, group in groups(rows).items()]


def _shipped(key: Group, rows: Sequence[Row], max_drop_pp: float) -> Shipped:
    model, target, _ = key
    first = rows[0].report
    host = first.host if first and first.latency else None
    about = {"model": model, "target": target, "host": host.cpu if host else ""}
    exact = [row for row in rows if _is_exact(row, max_drop_pp)]
    if not exact:
        best = max(rows, key=_quality)
        return Shipped(
            **about,
            trial=None,
            reason=f"none is exact enough: the best, {best.trial}, {_lost(best)}",
        )
    others = f"of {len(rows)} trials {len(exact)} are exact enough"
    if not host:
        best = min(exact, key=lambda row: (_bytes(row), -_quality(row)))
        return Shipped(
            **about,
            trial=best.trial,
            reason=f"the smallest, none was timed: {_lost(best)}; {others}",
        )
    fastest = min(_latency_ms(row) for row in exact)
    near = [row for row in exact if _latency_ms(row) <= (1 + SAME_SPEED) * fastest]
    best = max(near, key=lambda row: (_quality(row), -_bytes(row)))
    alike = f" (of {len(near)} within {SAME_SPEED:.0%} the most exact)" if len(near) > 1 else ""
    speedup = best.report.latency.speedup if best.report and best.report.latency else None
    over = f", {speedup:.2f}× FP32's speed" if speedup and best.precision != "fp32" else ""
    reason = f"the fastest{alike}: {_latency_ms(best):.3g} ms{over}, {_lost(best)}; {others}"
    return Shipped(**about, trial=best.trial, reason=reason)


def _is_exact(row: Row, max_drop_pp: float) -> bool:
    if row.precision == "fp32":
        return True
    measured, outputs = accuracy(row), numerics(row)
    if outputs and outputs.degenerate:
        return False
    if measured and measured.drop_pp is not None:
        return measured.drop_pp <= max_drop_pp
    return outputs is not None and (outputs.sqnr_db is None or outputs.sqnr_db >= MIN_SQNR_DB)


def _lost(row: Row) -> str:
    """In words, with its interval."""
    measured, outputs = accuracy(row), numerics(row)
    if row.precision == "fp32":
        return "it is FP32"
    if measured and measured.drop_pp is not None:
        ends = measured.drop_ci_pp
        interval = f" ({ends[0]:+.2f} to {ends[1]:+.2f})" if ends else ""
        return f"loses {measured.drop_pp:.2f} points{interval}"
    level = outputs.sqnr_db if outputs else None
    return f"keeps {level:.1f} dB (accuracy was not measured)" if level else "equals FP32"


def _latency_ms(row: Row) -> float:
    assert row.report is not None and row.report.latency is not None
    return row.report.latency.p50_ms


def _bytes(row: Row) -> int:
    return row.report.size.bytes if row.report and row.report.size else 0
