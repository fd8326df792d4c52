"""From a limit and an interval to an answer: passed, failed, or too little to tell.

Non-inferiority: an artifact passes when even the bound of its interval keeps the limit, and fails
when not even the other bound does; each is wrong at most as often as 1 - confidence says.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal

from vitedge.gate.verdict import Answer, Check

POWER = 0.9
"""How surely the number of images or runs named would decide."""
FEASIBLE = 10**8
"""More images or runs than that decide nothing in practice."""

Bound = Literal["max", "min"]


def missing(metric: str, bound: Bound, limit: float, why: str) -> Check:
    """A limit on what was not measured: it fails."""
    return Check(
        metric=metric,
        bound=bound,
        limit=limit,
        value=None,
        interval=None,
        answer="failed",
        reason=f"not measured: {why}",
    )


def exact(metric: str, bound: Bound, limit: float, value: float, reason: str) -> Check:
    """A limit on a number that is not random; `reason` shows both to people."""
    holds = value <= limit if bound == "max" else value >= limit
    if math.isnan(value):
        return missing(metric, bound, limit, "it is not a number")
    return Check(
        metric=metric,
        bound=bound,
        limit=limit,
        value=value,
        interval=None,
        answer="passed" if holds else "failed",
        reason=reason,
    )


def uncertain(
    metric: str,
    bound: Bound,
    limit: float,
    value: float,
    interval: tuple[float, float],
    needed: int | None,
    unit: str,
    samples: Literal["images", "runs"],
) -> Check:
    """A limit on a number that is known to an interval of one-sided bounds.

    `needed` as `images_needed` and its like give it; shown where the answer is inconclusive.
    """
    low, high = interval
    if not math.isfinite(value) or math.isnan(low) or math.isnan(high):
        return missing(metric, bound, limit, "it is not a number")
    answer: Answer = "inconclusive"
    if (high < limit) if bound == "max" else (low > limit):
        answer = "passed"
    elif (low > limit) if bound == "max" else (high < limit):
        answer = "failed"
    reason = f"{value:.3g}{unit} ({low:.3g} to {high:.3g}), {bound} {limit:g}{unit}"
    if answer == "inconclusive":
        near = abs(value - limit) < (high - low) / 4  # half of one side: the number is a guess
        reason += f": too few {samples} to tell, {_more(needed, samples, near)}"
    return Check(
        metric=metric,
        bound=bound,
        limit=limit,
        value=value,
        interval=interval,
        answer=answer,
        reason=reason,
        needed=needed if answer == "inconclusive" else None,
    )


def _more(needed: int | None, samples: str, near: bool) -> str:
    if needed is None:
        return f"and it is so close to the limit that no number of {samples} would"
    return f"about {needed:,}{' or more' if near else ''} would"


def images_needed(drop: float, variance: float, limit: float, confidence: float) -> int | None:
    """Images that decide with 90% power, if discordance stays what it is; None: no such number.

    Solves n·|limit - drop| = (z + z_power)·√(n·variance) - ln(1 - confidence), whose last term is
    all there is where no pair is discordant.

    Args:
        drop: measured, 0-1.
        variance: of one image's difference, lost + gained - drop² as shares.
        limit: 0-1.
        confidence: one-sided.
    """
    spread = _reach(confidence) * math.sqrt(max(0.0, variance))
    rare = -math.log(1 - confidence)
    gap = abs(limit - drop)
    if gap == 0:
        return None
    return _round_up(((spread + math.sqrt(spread**2 + 4 * gap * rare)) / (2 * gap)) ** 2)


def more_needed(n: int, gap: float, standard_error: float, confidence: float) -> int | None:
    """Of a number known to a standard error from n: how large n has to be; None: no such number.

    `gap`: between the number and its limit.
    """
    if gap == 0:
        return None
    return _round_up(n * (_reach(confidence) * standard_error / gap) ** 2)


def quantile(confidence: float) -> float:
    """Standard errors from a number to its one-sided bound."""
    return NormalDist().inv_cdf(confidence)


def _reach(confidence: float) -> float:
    """Standard errors between a number and a limit that is then decided with 90% power."""
    return quantile(confidence) + quantile(POWER)


def _round_up(count: float) -> int | None:
    """To two significant digits."""
    if not count <= FEASIBLE:
        return None
    unit: int = 10 ** max(0, math.floor(math.log10(max(count, 1))) - 1)
    return int(math.ceil(count / unit) * unit)
