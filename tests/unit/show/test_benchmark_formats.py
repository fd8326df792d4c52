"""The formats of services that plot figures over commits."""

from __future__ import annotations

import re
import shlex

import msgspec
import pytest

from tests.verdicts import HOSTILE, check, judged, verdict
from vitedge.gate.verdict import Verdict
from vitedge.show.ci import bencher, benchmark_action, openmetrics


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


def test_bencher_gets_latency_in_nanoseconds_and_only_what_was_measured(mixed: Verdict) -> None:
    document = msgspec.json.decode(
        bencher.render(mixed), type=dict[str, dict[str, dict[str, float]]]
    )
    measures = document["vit-int8"]
    assert measures["latency"] == {"value": 2.5e6}  # an interval without an end is none
    assert measures["file-size"] == {"value": 1.5e6}
    assert measures["drop-pp"] == {"value": 0.14, "lower_value": -0.2, "upper_value": 0.4}
    assert set(measures) == {"latency", "file-size", "drop-pp", "speedup"}


# a sample: a name, labels whose quotes and backslashes are escaped, a finite number
SAMPLE = re.compile(
    r'[a-z_][a-z0-9_]*\{(?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)+\} -?\d+(\.\d+)?(e[+-]\d+)?'
)


@pytest.mark.parametrize("artifact", ["vit-int8", HOSTILE])
def test_openmetrics_text_is_what_gitlab_and_prometheus_read(mixed: Verdict, artifact: str) -> None:
    renamed = verdict(judged(*mixed.judged[0].checks, artifact=artifact))
    *lines, end = openmetrics.render(renamed).splitlines()
    assert end == "# EOF"
    samples = [line for line in lines if not line.startswith("# TYPE ")]
    assert all(SAMPLE.fullmatch(line) for line in samples)
    families = [re.split(r"[ {]", line.removeprefix("# TYPE "))[0] for line in lines]
    seen = [family for i, family in enumerate(families) if i == 0 or family != families[i - 1]]
    assert len(seen) == len(set(seen))  # a family's samples stand together
    assert all(len(shlex.split(line)) == 2 for line in samples)  # so GitLab splits a line


def test_openmetrics_says_what_passed_and_leaves_out_what_was_not_measured(mixed: Verdict) -> None:
    lines = openmetrics.render(mixed).splitlines()
    assert 'vitedge_drop_pp{artifact="vit-int8",bound="max"} 0.14' in lines
    assert 'vitedge_gate_passed{artifact="vit-int8",check="max drop_pp"} 1.0' in lines
    assert 'vitedge_gate_passed{artifact="vit-int8",check="min speedup"} 0.0' in lines
    assert 'vitedge_sqnr_db_limit{artifact="vit-int8",bound="min"} 30.0' in lines
    assert not any(line.startswith(("vitedge_sqnr_db{", "vitedge_agreement{")) for line in lines)


def test_a_metric_of_a_future_gate_is_passed_on_by_its_name() -> None:
    future = verdict(judged(check("energy-per.image_mj")))
    assert '"energy-per.image-mj"' in bencher.render(future)
    assert "vitedge_energy_per_image_mj{" in openmetrics.render(future)
