"""From a limit and an interval to an answer: passed, failed, or too little to tell.

Non-inferiority: an artifact passes when even the bound of its interval keeps the limit, and fails
when not even the other bound does; each is wrong at most as often as 1 - confidence says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Literal

from vitedge.gate.verdict import Bound, Check

POWER = 0.9
"""How surely the number of images or runs named would decide."""
FEASIBLE = 10**8
"""More images or runs than that decide nothing in practice."""


@dataclass(frozen=True)
class Criterion:
    """A limit on one metric; its methods are the checks of what was measured."""

    metric: str
    bound: Bound
    limit: float
    unit: str = ""
    """Shown after a number."""
    scale: float = 1.0
    """Of that unit, in the metric's own."""

    def __str__(self) -> str:
        return f"{self.bound} {self.limit / self.scale:g}{self.unit}"

    def missing(self, why: str) -> Check:
        """The check of what was not measured: it fails."""
        return self._check(value=None, answer="failed", reason=f"not measured: {why}")

    def unproven(self, why: str) -> Check:
        """The check of what would pass, but proves nothing."""
        reason = f"what was measured proves nothing: {why}"
        return self._check(value=None, answer="inconclusive", reason=reason)

    def exact(self, value: float, shown: str = "", note: str = "") -> Check:
        """The check of a number that is not random; `shown` where people read it otherwise."""
        if math.isnan(value):
            return self.missing("it is not a number")
        holds = value <= self.limit if self.bound == "max" else value >= self.limit
        reason = f"{shown or f'{value / self.scale:.4g}{self.unit}'}, {self}{note}"
        return self._check(value=value, answer="passed" if holds else "failed", reason=reason)

    def uncertain(
        self,
        value: float,
        interval: tuple[float, float],
        needed: int | None,
        samples: Literal["images", "runs"],
    ) -> Check:
        """The check of a number that is known to an interval of one-sided bounds.

        `needed` as `more_needed` and its like give it; shown where the answer is inconclusive.
        """
        low, high = interval
        if not math.isfinite(value) or math.isnan(low) or math.isnan(high):
            return self.missing("it is not a number")
        check = partial(self._check, value=value, interval=interval)
        reason = f"{value:.3g}{self.unit} ({low:.3g} to {high:.3g}), {self}"
        below, above = high < self.limit, low > self.limit
        if below or above:
            holds = below if self.bound == "max" else above
            return check(answer="passed" if holds else "failed", reason=reason)
        near = abs(value - self.limit) < (high - low) / 4  # half of one side: the number is a guess
        reason += f": too few {samples} to tell, {_more(needed, samples, near)}"
        return check(answer="inconclusive", reason=reason, needed=needed)

    @property
    def _check(self) -> partial[Check]:
        return partial(Check, metric=self.metric, bound=self.bound, limit=self.limit, interval=None)


def _more(needed: int | None, samples: str, near: bool) -> str:
    if needed is None:
        return f"and it is so close to the limit that no number of {samples} would"
    return f"about {needed:,}{' or more' if near else ''} would"


def more_needed(n: int, gap: float, standard_error: float, confidence: float) -> int | None:
    """Of a number known to a standard error from n: how large n has to be; None: no such number.

    `gap`: between the number and its limit.
    """
    if gap == 0:
        return None
    return round_up(n * (reach(confidence) * standard_error / gap) ** 2)


def quantile(confidence: float) -> float:
    """Standard errors from a number to its one-sided bound."""
    return NormalDist().inv_cdf(confidence)


def reach(confidence: float) -> float:
    """Standard errors between a number and a limit that is then decided with 90% power."""
    return quantile(confidence) + quantile(POWER)


def round_up(count: float) -> int | None:
    """To two significant digits."""
    if not count <= FEASIBLE:
        return None
    unit: int = 10 ** max(0, math.floor(math.log10(max(count, 1))) - 1)
    return int(math.ceil(count / unit) * unit)
