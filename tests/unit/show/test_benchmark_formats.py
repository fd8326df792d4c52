"""The format of github-action-benchmark, which plots figures over commits."""

from __future__ import annotations

import msgspec

from vitedge.gate.verdict import Verdict
from vitedge.show.ci import benchmark_action


def test_github_action_benchmark_gets_one_file_for_each_direction(mixed: Verdict) -> None:
    smaller = msgspec.json.decode(benchmark_action.smaller_is_better(mixed))
    assert smaller == [
        {
            "name": "vit-int8: drop",
            "unit": "pp",
            "value": 0.14,
            "range": "-0.2 … 0.4",
            "extra": "max 0.5 pp: passed",
        },
        {"name": "vit-int8: p90", "unit": "ms", "value": 2.5, "extra": "max 5 ms: passed"},
        {"name": "vit-int8: size", "unit": "MB", "value": 1.5, "extra": "max 25 MB: passed"},
    ]
    (bigger,) = msgspec.json.decode(benchmark_action.bigger_is_better(mixed))
    assert (bigger["name"], bigger["unit"], bigger["value"]) == ("vit-int8: speed-up", "×", 1.08)
    assert bigger["extra"] == "min 1.1×: inconclusive"
