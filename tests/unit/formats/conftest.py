"""A verdict to render: one artifact that has every answer, unless a test asks otherwise."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from vitedge.verdict import SCHEMA, Check, Judged, Verdict, worst

HOSTILE = (
    "a|b `c` <script>alert('x')</script> [d](http://e.evil) www.evil.com @you\n# \"q\" \\ $x$ "
    "__i__ 50% \x00\x1b[31m\u202ereversed\ufffe ]]> &amp; é"
)
"""A name as a bundle from elsewhere may have it."""


def check(metric: str = "drop_pp", **changes: Any) -> Check:
    plain = Check(
        metric=metric,
        bound="max",
        limit=0.5,
        value=0.14,
        interval=(-0.2, 0.4),
        answer="passed",
        reason="at most 0.4 points lost",
    )
    return msgspec.structs.replace(plain, **changes)


def judged(*checks: Check, artifact: str = "vit-int8", **changes: Any) -> Judged:
    plain = Judged(
        artifact=artifact,
        path=f"artifacts/{artifact}",
        model="vit",
        target="onnxruntime-cpu",
        precision="int8",
        against="fp32",
        checks=checks,
        answer=worst(tuple(check.answer for check in checks)),
    )
    return msgspec.structs.replace(plain, **changes)


def verdict(*found: Judged) -> Verdict:
    answer = worst(tuple(one.answer for one in found))
    return Verdict(schema=SCHEMA, answer=answer, confidence=0.95, judged=found)


@pytest.fixture
def mixed() -> Verdict:
    """One check passed, one too close to call, one failed for want of a figure; one with NaN."""
    return verdict(
        judged(
            check(),
            check(
                "speedup",
                bound="min",
                limit=1.1,
                value=1.08,
                interval=(0.95, 1.24),
                answer="inconclusive",
                reason="too close to 1.1: 430 rounds would tell",
                needed=430,
            ),
            check("p90_ms", limit=5.0, value=2.5, interval=(2.25, float("inf")), reason="2.5 ms"),
            check("size_bytes", limit=25e6, value=1_500_000, interval=None, reason="1.5 MB"),
            check(
                "sqnr_db",
                bound="min",
                limit=30.0,
                value=None,
                interval=None,
                answer="failed",
                reason="no SQNR in the report",
            ),
            check("agreement", bound="min", value=float("nan"), interval=None, answer="failed"),
        )
    )
