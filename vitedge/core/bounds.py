"""Bounds on what INT8 may lose, with labels and without: how figures are held to them, in words."""

from __future__ import annotations

import math
from collections.abc import Iterable

from vitedge.core.errors import InputError, SharedError
from vitedge.core.manifest import Bounds, Losses
from vitedge.core.report import Numerics, OutputNumerics, Report

BROKEN_DB = -1e3
"""The level of an output that is not finite, or has noise and no signal."""
_FIGURES = {
    "max_drop_pp": "drop_pp",
    "min_sqnr_db": "sqnr_db",
    "min_token_sqnr_db": "token_sqnr_db",
}
"""What each bound is on."""


def asked(bounds: Bounds) -> dict[str, float]:
    """The bounds that are set, by name."""
    return {name: limit for name in _FIGURES if (limit := getattr(bounds, name)) is not None}


def check(bounds: Bounds) -> None:
    """Raises InputError where one of them is no limit."""
    for name, limit in asked(bounds).items():
        if not 0 <= limit < math.inf:
            what = "the points of accuracy it may lose" if name == "max_drop_pp" else "decibels"
            raise InputError(f"`{name}={limit:g}` is no limit", fix=f"pass {what}: 0 or more")


def check_tokens(bounds: Bounds, model: str, outputs: Iterable[tuple[int, str]]) -> None:
    """Raises SharedError where the worst token is bounded and no output of `model` has any.

    `outputs` are how many axes each has, and what chooses its order, as `Tensor.ordered_by` says.
    """
    shaped = [order for axes, order in outputs if axes in (3, 4)]
    if bounds.min_token_sqnr_db is None or not all(shaped):
        return
    why = (
        "its queries are matched with FP32's, wherever they stand"
        if shaped
        else "it has no output of tokens or pixels"
    )
    raise SharedError(
        f"`min_token_sqnr_db` cannot be measured of {model}: {why}",
        fix="drop `min_token_sqnr_db`, and pass `min_sqnr_db`",
    )


def losses(report: Report) -> Losses:
    """What was measured of an artifact, or simulated where it does not run here."""
    measured = report if report.numerics else report.simulation
    assert measured is not None and measured.numerics is not None
    accuracy = measured.accuracy
    return levels(measured.numerics, accuracy.drop_pp if accuracy else None)


def levels(numerics: Numerics, drop_pp: float | None = None) -> Losses:
    """The levels of the worst output, and of the worst that has tokens."""
    outputs = list(numerics.outputs.values()) or [numerics]
    broken = any(map(_broken, outputs))
    tokens = (output.worst_token_db for output in outputs)
    return Losses(
        drop_pp=drop_pp,
        sqnr_db=BROKEN_DB if broken else _least(output.sqnr_db for output in outputs),
        token_sqnr_db=BROKEN_DB if broken else _least(tokens),
    )


def _broken(output: OutputNumerics) -> bool:
    return output.sqnr_db is None and output.max_abs_error != 0


def _least(levels_db: Iterable[float | None]) -> float | None:
    finite = [level for level in levels_db if level is not None]
    return max(min(finite), BROKEN_DB) if finite else None


def shortfalls(bounds: Bounds, measured: Losses) -> dict[str, float]:
    """By how many points or dB each bound is missed; empty where all are met."""
    missed = {}
    for name, limit in asked(bounds).items():
        level = getattr(measured, _FIGURES[name])
        if name == "max_drop_pp":
            missed[name] = level - limit
        elif level is not None:  # else it equals FP32
            missed[name] = limit - level
    return {name: by for name, by in missed.items() if by > 0}


def aims(bounds: Bounds) -> str:
    """`lose 0.3 points at most and keep 40 dB`."""
    words = {
        "max_drop_pp": "lose {:g} points at most",
        "min_sqnr_db": "keep {:g} dB",
        "min_token_sqnr_db": "keep {:g} dB in the worst token or pixel",
    }
    return " and ".join(words[name].format(limit) for name, limit in asked(bounds).items())


def figures(names: Iterable[str], measured: Losses) -> str:
    """`0.62 points and 38.12 dB`: those that the bounds `names` are on."""
    return " and ".join(_figure(name, measured) for name in names)


def _figure(name: str, measured: Losses) -> str:
    level = getattr(measured, _FIGURES[name])
    if name == "max_drop_pp":
        return f"{level:.2g} points"
    where = " in its worst token or pixel" if name == "min_token_sqnr_db" else ""
    if level is None:
        return f"FP32's own outputs{where}"
    return f"nothing finite{where}" if level == BROKEN_DB else f"{level:.2f} dB{where}"


def breaches(bounds: Bounds, measured: Losses) -> str:
    """What is missed: "loses 7.1 points, more than `max_drop_pp=0.3`"."""
    limits = asked(bounds)
    return ", and ".join(
        f"loses {_figure(name, measured)}, more than `{name}={limits[name]:g}`"
        if name == "max_drop_pp"
        else f"keeps {_figure(name, measured)}, less than `{name}={limits[name]:g}`"
        for name in shortfalls(bounds, measured)
    )


def within_reach(bounds: Bounds, measured: Losses) -> str:
    """The bounds that are missed as `measured` meets them; empty where no limit says it."""
    within = {}
    for name in shortfalls(bounds, measured):
        level = getattr(measured, _FIGURES[name])
        upwards = name == "max_drop_pp"
        within[name] = math.ceil(level * 100) / 100 if upwards else math.floor(level * 10) / 10
    if any(limit < 0 for limit in within.values()):
        return ""
    return " and ".join(f"`{name}={limit:g}`" for name, limit in within.items())
