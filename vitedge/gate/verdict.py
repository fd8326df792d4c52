"""What a gate says: one answer for each limit, and why. Written by `gate`, read by every format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

SCHEMA = "vitedge.verdict/1"
FP32 = "fp32"
"""What an artifact is judged against where that is no baseline."""

Bound = Literal["max", "min"]
Answer = Literal["passed", "failed", "inconclusive"]
"""`inconclusive`: the limit lies inside the interval, and more images or runs would tell."""

State = Literal["signed", "measured", "unsigned", "unchecked"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One limit against what was measured."""

    metric: str
    """`drop_pp`, `speedup`, `p90_ms`, `size_bytes`, `peak_rss_bytes`, `agreement`, `sqnr_db`, …;
    its unit is in its name."""
    bound: Bound
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


class ReportSignature(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the report that was judged is signed, and by whom."""

    state: State = "unchecked"
    """`measured`: in this run, of a signed artifact; `unchecked`: no keys were given."""
    key: str = ""
    """The name of the key's file; empty where it is not known."""
    fingerprint: str = ""
    """SHA-256 of the public key in PEM."""
    signed_at: str = ""
    """As the signer says."""


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
    signature: ReportSignature = ReportSignature()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of one run of the gate."""

    schema: str
    answer: Answer
    confidence: float
    """One-sided, of each check."""
    judged: tuple[Judged, ...]


def worst(answers: Iterable[Answer]) -> Answer:
    """The one that decides: failed before inconclusive before passed."""
    order: tuple[Answer, ...] = ("passed", "inconclusive", "failed")
    return max(answers, key=order.index, default="passed")
