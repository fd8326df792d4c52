"""Each limit against what was measured of one artifact."""

from __future__ import annotations

from functools import partial

from vitedge.gate.limits import LIMITS, Limits, active_limits, criterion
from vitedge.gate.subject import Subject
from vitedge.gate.verdict import FP32, Check, Judged, worst


def judge(
    subject: Subject, limits: Limits, confidence: float, accepted: Subject | None = None
) -> Judged:
    """Judge an artifact by itself and against FP32; or, with `accepted`, what was lost since.

    `confidence` is one-sided. Raises InputError where `accepted` cannot speak for that: accuracy
    on other images or with other preprocessing, latency on another machine.
    """
    checks: list[Check] = []
    report = subject.report
    degenerate = report.numerics.degenerate if report.numerics else ""
    for name, value in active_limits(limits).items():
        limit, held_to = LIMITS[name], criterion(name, value)
        check = limit.check
        if accepted:
            check = limit.check_since and partial(limit.check_since, accepted)
        broken = subject.broken if limit.of_outputs else subject.fault if limit.in_turn else ""
        if check and broken:
            checks.append(held_to.missing(broken))
        elif check:
            unmeasured = held_to.missing(subject.to_run(limit.measured_by))
            answer = check(held_to, subject, confidence) or unmeasured
            if degenerate and limit.of_outputs and answer.answer != "failed":
                answer = held_to.unproven(degenerate)
            checks.append(answer)
    return Judged(
        artifact=report.artifact,
        path=str(subject.path),
        model=report.model,
        target=report.target,
        precision=report.precision,
        against=str(accepted.path) if accepted else FP32,
        checks=tuple(checks),
        answer=worst(check.answer for check in checks),
        signature=subject.signature,
    )
