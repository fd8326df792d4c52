"""An artifact against the one that was accepted before it, where the two can be compared."""

from __future__ import annotations

import math
from typing import NamedTuple

from vitedge.core.errors import InputError
from vitedge.core.measurements import Latency
from vitedge.gate import drop, judge
from vitedge.gate.baseline import Accepted, Baseline, Entry
from vitedge.gate.decision import missing
from vitedge.gate.limits import Limits
from vitedge.gate.subject import Subject
from vitedge.gate.verdict import Check, Judged


def against_baseline(
    subject: Subject, limits: Limits, baseline: Baseline, confidence: float
) -> Judged:
    """Judge what was lost since the baseline; `confidence` is one-sided.

    Raises InputError where the baseline cannot speak for that: accuracy on other images or with
    other preprocessing, latency on another machine.
    """
    entry = baseline.find(subject)
    checks = []
    if limits.max_drop_pp is not None:
        checks.append(_drop(subject, entry, baseline, limits.max_drop_pp, confidence))
    if limits.max_slowdown is not None:
        checks.append(_slowdown(subject, entry, baseline, limits.max_slowdown, confidence))
    return judge.judged(subject, str(baseline.path), checks)


def _drop(
    subject: Subject, entry: Entry, baseline: Baseline, limit: float, confidence: float
) -> Check:
    validation = subject.evidence
    if validation is None or subject.broken:
        why = subject.broken or "no evidence.npz of its validation beside the report"
        return missing("drop_pp", "max", limit, why)
    if validation.about.metric != entry.about.metric:
        raise InputError(
            f"{baseline.path} measures {entry.about.metric}, and {subject.path} "
            f"{validation.about.metric}",
            fix="accept it into a new file with 'vitedge gate --accept'",
        )
    if validation.about.preprocessing != entry.about.preprocessing:
        raise InputError(
            f"{baseline.path} cannot speak for the accuracy of {subject.path}: it was accepted "
            "with other preprocessing",
            fix="accept it into a new file with 'vitedge gate --accept', or export as before",
        )
    names = str(baseline.path), str(subject.path)
    paired = drop.pair(entry.per_image, validation.per_image, names)
    accuracy_drop = drop.between(validation.about.metric, *paired, confidence)
    return judge.of_drop(accuracy_drop, limit, confidence)


def _slowdown(
    subject: Subject, entry: Entry, baseline: Baseline, limit: float, confidence: float
) -> Check:
    latency, about = subject.report.latency, entry.about
    if latency is None:
        return missing("slowdown", "max", limit, f"run 'vitedge bench {subject.name}'")
    if subject.fingerprint is None:
        why = f"it is not known where it was timed: run 'vitedge bench {subject.name}'"
        return missing("slowdown", "max", limit, why)
    if (about.fingerprint, about.batch) != (subject.fingerprint, latency.batch):
        where = f"at batch {about.batch}, and timed at {latency.batch}"
        if about.fingerprint != subject.fingerprint:
            where = "on another machine" if about.fingerprint else "without being timed by 'bench'"
        raise InputError(
            f"{baseline.path} cannot speak for the latency of {subject.path}: it was accepted "
            f"{where}",
            fix="drop --max-slowdown, or bench alike and accept into a new file on this machine",
        )
    current, previous = _relative(latency), _relative(about)
    if current is None or previous is None:
        untimed = "it" if current is None else "the baseline"
        return missing("slowdown", "max", limit, f"{untimed} was not timed in turn with FP32")
    return judge.of_ratio(
        "slowdown",
        "max",
        limit,
        previous.speedup / current.speedup,
        math.hypot(current.log_se, previous.log_se),
        min(current.rounds, previous.rounds),
        latency.n,
        confidence,
    )


class _RelativeSpeed(NamedTuple):
    speedup: float
    log_se: float
    rounds: int


def _relative(timing: Latency | Accepted) -> _RelativeSpeed | None:
    """Its speed against FP32's; None where the two were not timed in turn."""
    log_se, rounds = timing.speedup_log_se, timing.rounds
    if timing.against != judge.FP32 or not timing.speedup or log_se is None or rounds is None:
        return None
    return _RelativeSpeed(timing.speedup, log_se, rounds)
