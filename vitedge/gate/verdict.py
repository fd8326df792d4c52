"""What a gate says: one answer for each limit, and why. Written by `gate`, read by every format."""

from __future__ import annotations

from typing import Literal

import msgspec

SCHEMA = "vitedge.verdict/1"

Answer = Literal["passed", "failed", "inconclusive"]
"""`inconclusive`: the limit lies inside the interval, and more images or runs would tell."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One limit against what was measured."""

    metric: str
    """`drop_pp`, `speedup`, `p90_ms`, `size_bytes`, `peak_rss_bytes`, `agreement`, `sqnr_db`, …;
    its unit is in its name."""
    bound: Literal["max", "min"]
    limit: float
    value: float | None
    """None where it was not measured, which fails."""
    interval: tuple[float, float] | None
    """Its limits are one-sided bounds at the verdict's confidence; None where nothing is random."""
    answer: Answer
    reason: str
    """One line for people."""
    needed: int | None = None
    """Images or runs that would decide an inconclusive one, all told."""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact and its checks."""

    artifact: str
    path: str
    model: str
    target: str
    precision: str
    against: str
    """`fp32`, or the baseline's file."""
    checks: tuple[Check, ...]
    answer: Answer
    """The worst of its checks: failed, then inconclusive."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of one run of the gate."""

    schema: str
    answer: Answer
    confidence: float
    """One-sided, of each check."""
    judged: tuple[Judged, ...]


def worst(answers: tuple[Answer, ...]) -> Answer:
    """The one that decides: failed before inconclusive before passed."""
    for answer in ("failed", "inconclusive"):
        if answer in answers:
            return answer
    return "passed"
