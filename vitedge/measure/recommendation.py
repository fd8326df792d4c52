"""Which precision to ship: INT8 is never more exact than FP32, and not always faster.

What it must beat is the best float precision that was timed with it, which costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import get_args

import msgspec

from vitedge.core.measurements import Lead
from vitedge.core.report import (
    LIKENESS,
    Candidate,
    OutputNumerics,
    Recommendation,
    Report,
    TokenSqnr,
)
from vitedge.core.spec import Precision

FLOATS: frozenset[Precision] = frozenset(("fp32", "fp16", "bf16"))
"""Those that need no calibration."""
Leads = Mapping[Precision, Mapping[Precision, Lead]]
"""Of a precision over others, FP32 apart."""
Ahead = tuple[float, tuple[float, float]]

MAX_DROP_PP = 0.5
"""Points that a faster precision may lose where nothing says otherwise."""
MIN_SQNR_DB = 20.0
"""What it must keep where accuracy was not measured: below, choices start to change sides."""
MIN_KEPT_QUERIES = 0.9
"""Share of FP32's queries that it must give, likewise."""
MIN_BOX_IOU = 0.95
"""Mean IoU of a detector's boxes with FP32's that it must keep, likewise."""
MAX_PIXEL_ERROR = 0.1
"""What the error of dense maps may be, relative to the spread of FP32's values, likewise."""
SAME_SIZE = 1.05
"""A smaller ratio of sizes is not worth a word."""
CONFIDENCE = 0.95


def candidates_of(reports: Sequence[Report]) -> list[Candidate]:
    """FP32 and the precisions in `reports`, the reports of bundles timed together with FP32.

    A report whose latency was not compared with FP32 gives no candidate; none do: an empty list.
    """
    candidates: list[Candidate] = []
    for report in reports:
        latency, size = report.latency, report.size
        if latency is None or latency.fp32 is None or size is None or size.fp32_bytes is None:
            continue
        assert latency.speedup is not None and latency.speedup_ci is not None  # over FP32
        if not candidates:
            fp32_ms = latency.fp32.p50_ms
            candidates.append(Candidate(precision="fp32", p50_ms=fp32_ms, bytes=size.fp32_bytes))
        accuracy, numerics, pixel_error = report.accuracy, report.numerics, None
        if accuracy and accuracy.metric == "pixel_error":
            pixel_error = accuracy.artifact
        if accuracy and accuracy.metric in LIKENESS:  # how alike outputs are, not how good
            accuracy = None
        if numerics and numerics.degenerate:  # neither says anything
            accuracy = numerics = pixel_error = None
        candidates.append(
            Candidate(
                precision=report.precision,
                p50_ms=latency.p50_ms,
                speedup=latency.speedup,
                speedup_ci=latency.speedup_ci,
                drop_pp=accuracy.drop_pp if accuracy else None,
                drop_ci_pp=accuracy.drop_ci_pp if accuracy else None,
                sqnr_db=numerics.sqnr_db if numerics else None,
                token_sqnr_db=numerics.worst_token_db if numerics else None,
                pixel_error=pixel_error,
                kept_queries=numerics.kept_queries if numerics else None,
                box_iou=numerics.detections.box_iou if numerics and numerics.detections else None,
                max_abs_error=numerics.max_abs_error if numerics else None,
                bytes=size.bytes,
            )
        )
    return candidates


def leads_of(reports: Sequence[Report]) -> Leads:
    """How much faster each precision is than others timed in the same run."""
    return {report.precision: report.latency.over for report in reports if report.latency}


def recommend(
    candidates: Sequence[Candidate], max_drop_pp: float, leads: Leads = MappingProxyType({})
) -> Recommendation | None:
    """Choose one of the candidates, FP32 among them; None where there is nothing to choose.

    A less exact precision must be faster than the best before it, by the interval of `leads` or
    with intervals over FP32 that do not touch, and exact enough: it loses at most `max_drop_pp`
    points or, where accuracy was not measured, keeps 20 dB SQNR, in its worst token or pixel, too;
    dense maps a pixel error of 10%. Of queries that a model orders by its own scores it gives 90%,
    too, and a detector's boxes keep an IoU of 95% with FP32's.
    """
    if len(candidates) < 2:
        return None
    ranked = sorted(candidates, key=_error)
    fp32, floats = ranked[0], [x for x in ranked if x.precision in FLOATS]
    best_float = _best(floats, max_drop_pp, leads)
    ranked = [_over_float(candidate, best_float, leads) for candidate in ranked]
    best = _best(ranked, max_drop_pp, leads)
    clauses = []
    if best.precision != fp32.precision:
        gain = _gain(best, best_float)
        clauses = [f"{gain}, {_loss(best, max_drop_pp)}, {_size(best, fp32) or 'no smaller'}"]
    clauses += [
        _against(candidate, best, max_drop_pp, _ahead(best, candidate, leads))
        for candidate in ranked
        if candidate.precision not in (best.precision, fp32.precision)
    ]
    return Recommendation(
        precision=best.precision,
        reason="; ".join(clauses),
        candidates=tuple(ranked),
        confidence=CONFIDENCE,
        max_drop_pp=max_drop_pp,
        best_float=best_float.precision,
    )


def _best(ranked: Sequence[Candidate], max_drop_pp: float, leads: Leads) -> Candidate:
    """The fastest that is exact enough, of candidates in the order of their error."""
    best = ranked[0]
    for candidate in ranked[1:]:
        _, (low, _) = _ahead(candidate, best, leads)
        if _exact_enough(candidate, max_drop_pp) and low > 1:
            best = candidate
    return best


def _error(candidate: Candidate) -> tuple[bool, float, int]:
    """What candidates are ordered by: FP32 first, then by SQNR, those unknown last."""
    level_db = candidate.sqnr_db
    if level_db is None:
        level_db = math.inf if candidate.max_abs_error == 0 else -math.inf
    rank = get_args(Precision).index(candidate.precision)
    return candidate.precision != "fp32", -level_db, rank


def _ahead(candidate: Candidate, other: Candidate, leads: Leads) -> Ahead:
    """How many times faster `candidate` is than `other`, and 95% bounds.

    Those of both over FP32, where the two were not timed in one run.
    """
    if lead := leads.get(candidate.precision, {}).get(other.precision):
        return lead.speedup, lead.speedup_ci
    (low, high), (other_low, other_high) = candidate.speedup_ci, other.speedup_ci
    return candidate.speedup / other.speedup, (low / other_high, high / other_low)


def _over_float(candidate: Candidate, best_float: Candidate, leads: Leads) -> Candidate:
    """`candidate` with its lead over `best_float`; a float itself as it is."""
    if candidate.precision in FLOATS:
        return candidate
    speedup, interval = _ahead(candidate, best_float, leads)
    return msgspec.structs.replace(
        candidate, speedup_over_float=speedup, speedup_over_float_ci=interval
    )


def _exact_enough(candidate: Candidate, max_drop_pp: float) -> bool:
    """Whether its error is known and small; NaN is not."""
    if candidate.drop_pp is not None:
        return candidate.drop_pp <= max_drop_pp
    if candidate.pixel_error is not None:
        return candidate.pixel_error <= MAX_PIXEL_ERROR
    if candidate.sqnr_db is not None:
        if candidate.kept_queries is not None and candidate.kept_queries < MIN_KEPT_QUERIES:
            return False
        if candidate.box_iou is not None and candidate.box_iou < MIN_BOX_IOU:
            return False
        worst_db = candidate.token_sqnr_db
        return min(candidate.sqnr_db, math.inf if worst_db is None else worst_db) >= MIN_SQNR_DB
    return candidate.max_abs_error == 0


def sqnr(output: Candidate | OutputNumerics) -> str:
    """`29.2 dB SQNR, 5.6 in its worst token or pixel`, where they differ from FP32's."""
    token = output.token_sqnr_db
    worst_db = token.worst if isinstance(token, TokenSqnr) else token
    worst = "" if worst_db is None else f", {worst_db:.1f} in its worst token or pixel"
    return f"{output.sqnr_db:.1f} dB SQNR{worst}"


def queries(kept: float) -> str:
    """`gives 75% of FP32's queries`, of a model that orders them by its own scores."""
    return f"gives {kept:.0%} of FP32's queries"


def _gain(best: Candidate, best_float: Candidate) -> str:
    """`1.41× faster than FP16 (1.36 to 1.46), 5.20× than FP32`."""
    if best.speedup_over_float is None or best_float.precision == "fp32":
        return f"{best.speedup:.2f}× faster than FP32 ({_bounds(best.speedup_ci)})"
    assert best.speedup_over_float_ci is not None
    name, bounds = best_float.precision.upper(), _bounds(best.speedup_over_float_ci)
    over_fp32 = f"{best.speedup:.2f}× than FP32"
    return f"{best.speedup_over_float:.2f}× faster than {name} ({bounds}), {over_fp32}"


def _bounds(interval: tuple[float, float]) -> str:
    return "{:.2f} to {:.2f}".format(*interval)


def _against(candidate: Candidate, best: Candidate, max_drop_pp: float, ahead: Ahead) -> str:
    """Why `candidate` was not chosen, and what it is good for all the same.

    `ahead` is how much faster `best` is than it.
    """
    name, (_, (low, high)) = candidate.precision.upper(), ahead
    slower = "slower" if low > 1 else "not measurably faster"
    if best.precision in ("fp16", "bf16"):
        slower += f" than {best.precision.upper()}"
    speed = f"({candidate.speedup:.2f}× FP32's speed, {_bounds(candidate.speedup_ci)})"
    if not _exact_enough(candidate, max_drop_pp):
        if high < 1:
            return f"{name} is faster {speed} but {_too_much(candidate, max_drop_pp)}"
        return f"{name} is {slower} {speed} and {_too_much(candidate, max_drop_pp)}"
    clause = f"{name} is {slower} {speed}, {_loss(candidate, max_drop_pp)}"
    smaller = candidate.bytes < best.bytes and _size(candidate, best)
    return f"{clause}; it is {smaller}, if size is what counts" if smaller else clause


def _loss(candidate: Candidate, max_drop_pp: float) -> str:
    """What is lost by it, which is little enough, and how sure that is."""
    if candidate.drop_pp is None:
        fidelity = "outputs equal to FP32's"
        if candidate.pixel_error is not None:
            fidelity = f"{candidate.pixel_error:.1%} pixel error"
        elif candidate.sqnr_db is not None:
            fidelity = sqnr(candidate)
            if candidate.kept_queries is not None:
                fidelity += f" with {candidate.kept_queries:.0%} of FP32's queries"
            if candidate.box_iou is not None:
                fidelity += f", boxes' IoU {candidate.box_iou:.1%}"
        return f"{fidelity} (accuracy was not measured)"
    lost = f"{abs(candidate.drop_pp):.2f} points {'lost' if candidate.drop_pp >= 0 else 'gained'}"
    if candidate.drop_ci_pp is None:
        return f"{lost} (too few images for an interval)"
    low, high = candidate.drop_ci_pp
    if high > max_drop_pp:
        return f"{lost} (drop {low:+.2f} to {high:+.2f}: more images would tell)"
    return lost


def _too_much(candidate: Candidate, max_drop_pp: float) -> str:
    if candidate.drop_pp is not None:
        return f"loses {candidate.drop_pp:.2f} points, more than {max_drop_pp:g}"
    if candidate.pixel_error is not None:
        return f"has {candidate.pixel_error:.1%} pixel error, more than {MAX_PIXEL_ERROR:.0%}"
    if candidate.sqnr_db is not None:
        if candidate.kept_queries is not None:
            least = f"{MIN_KEPT_QUERIES:.0%} and {MIN_SQNR_DB:g} dB"
            if candidate.kept_queries < MIN_KEPT_QUERIES or candidate.sqnr_db < MIN_SQNR_DB:
                return f"{queries(candidate.kept_queries)} at {sqnr(candidate)}, not {least}"
        if candidate.box_iou is not None and candidate.box_iou < MIN_BOX_IOU:
            return f"moves boxes: their IoU is {candidate.box_iou:.1%}, not {MIN_BOX_IOU:.0%}"
        return f"keeps {sqnr(candidate)}, less than {MIN_SQNR_DB:g}"
    return "its error is not known"


def _size(candidate: Candidate, other: Candidate) -> str:
    """How much smaller or larger it is; empty where it is about the same."""
    ratio = other.bytes / candidate.bytes
    if ratio >= SAME_SIZE:
        return f"{ratio:.1f}× smaller"
    return f"{1 / ratio:.1f}× larger" if ratio <= 1 / SAME_SIZE else ""
