"""OpenMetrics text, for GitLab's metrics reports and for Prometheus.

https://docs.gitlab.com/ci/testing/metrics_reports, https://openmetrics.io
"""

from __future__ import annotations

import math
import re

from vitedge.gate.verdict import Check, Verdict
from vitedge.show.ci import figures

ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def render(verdict: Verdict) -> str:
    """Value and limit of each check, and whether it passed; labelled with artifact and check.

    What was not measured has no value, and has not passed.
    """
    families: dict[str, list[str]] = {}

    def add(family: str, labels: str, value: float) -> None:
        samples = families.setdefault(family, [f"# TYPE {family} gauge"])
        if math.isfinite(value):
            samples.append(f"{family}{{{labels}}} {value!r}")

    for name, judged in zip(figures.names(verdict), verdict.judged, strict=True):
        for check in judged.checks:
            labels = _labels(artifact=name, bound=check.bound)
            value = figures.finite(check)
            if value is not None:
                add(_family(check), labels, value)
            add(f"{_family(check)}_limit", labels, check.limit)
            add(
                "vitedge_gate_passed",
                _labels(artifact=name, check=figures.title(check)),
                float(check.answer == "passed"),
            )
    return "\n".join((*(line for lines in families.values() for line in lines), "# EOF", ""))


def _family(check: Check) -> str:
    return f"vitedge_{re.sub('[^a-zA-Z0-9_]', '_', check.metric)}"


def _labels(**labels: str) -> str:
    return ",".join(f'{key}="{value.translate(ESCAPES)}"' for key, value in labels.items())
