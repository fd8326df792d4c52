"""A verdict to render: one artifact that has every answer."""

from __future__ import annotations

import pytest

from tests.support.verdicts import check, judged, verdict


@pytest.fixture
def mixed():
    """One check passed, one too close to call, one failed for want of a figure; one with NaN."""
    checks = (
        check(),
        check(
            *("speedup",),
            **{"bound": "min", "limit": 1.1, "value": 1.08, "interval": (0.95, 1.24)},
            **{"answer": "inconclusive", "needed": 430},
            reason="too close to 1.1: 430 rounds would tell",
        ),
        check("p90_ms", limit=5.0, value=2.5, interval=(2.25, float("inf")), reason="2.5 ms"),
        check("size_bytes", limit=25e6, value=1_500_000, interval=None, reason="1.5 MB"),
        check(
            *("sqnr_db",),
            **{"bound": "min", "limit": 30.0, "value": None, "interval": None},
            **{"answer": "failed", "reason": "no SQNR in the report"},
        ),
        check("agreement", bound="min", value=float("nan"), interval=None, answer="failed"),
    )
    return verdict(judged(*checks))
