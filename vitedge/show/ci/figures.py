"""What every format says alike: stable names, units, and which numbers are numbers at all."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter

from vitedge.gate.verdict import Check, Verdict

FP32 = "fp32"
"""What an artifact is compared with unless its name says otherwise."""
LONGEST = 200
"""Characters of a text from outside that are shown."""

UNITS = {"pp": ("pp", 1.0), "ms": ("ms", 1.0), "bytes": ("MB", 1e6), "db": ("dB", 1.0)}
"""By the last part of a metric's name: the unit people read, and its size in the metric's own."""
RATIOS = ("speedup", "slowdown")
LABELS = {"speedup": "speed-up", "sqnr_db": "SQNR", "peak_rss_bytes": "peak RSS", "top1": "top-1"}


def one_line(text: str) -> str:
    """`text` without line breaks, control, unpaired or invisible characters, cut at LONGEST."""
    spaced = " ".join(text.split())
    printable = "".join(char for char in spaced if not unicodedata.category(char).startswith("C"))
    return printable if len(printable) <= LONGEST else f"{printable[: LONGEST - 1]}…"


def names(verdict: Verdict) -> tuple[str, ...]:
    """Name each artifact as over all commits; where two share a name, each with its path."""
    artifact_names = [
        one_line(
            judged.artifact
            if judged.against == FP32
            else f"{judged.artifact} against {judged.against}"
        )
        for judged in verdict.judged
    ]
    count = Counter(artifact_names)
    return tuple(
        name if count[name] == 1 else one_line(f"{name} ({judged.path})")
        for name, judged in zip(artifact_names, verdict.judged, strict=True)
    )


def title(check: Check) -> str:
    """`max drop_pp`: what is checked, without its figures, so that it is the same next time."""
    return f"{check.bound} {one_line(check.metric)}"


def measured(check: Check) -> float | None:
    """The value where it is a number; infinite where the artifact equals FP32."""
    return None if check.value is None or math.isnan(check.value) else check.value


def finite(check: Check) -> float | None:
    """The value where it is a finite number."""
    value = measured(check)
    return None if value is None or math.isinf(value) else value


def interval(check: Check) -> tuple[float, float] | None:
    """The interval where both its ends are finite numbers."""
    ends = check.interval
    return ends if ends and all(map(math.isfinite, ends)) else None


def label(metric: str) -> str:
    """`drop_pp` → `drop`."""
    if metric in LABELS:
        return LABELS[metric]
    stem, _, unit = metric.rpartition("_")
    return one_line(stem if unit in UNITS and stem else metric).replace("_", " ")


def unit(metric: str) -> str:
    """`p90_ms` → `ms`; `speedup` → `×`; empty for a share."""
    return "×" if metric in RATIOS else _scale(metric)[0]


def scaled(metric: str, value: float) -> float:
    """`value` in the unit people read."""
    return value / _scale(metric)[1]


def amount(metric: str, value: float) -> str:
    """`value` in the unit people read, without it."""
    return f"{scaled(metric, value):.4g}".replace("inf", "∞")


def quantity(metric: str, value: float) -> str:
    """`amount`, and its unit."""
    own = unit(metric)
    return f"{amount(metric, value)}{'' if own == '×' else ' '}{own}".rstrip()


def _scale(metric: str) -> tuple[str, float]:
    return UNITS.get(metric.rpartition("_")[2], ("", 1.0))
