"""Which precision to ship: INT8 is never more exact than FP32, and not always faster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

from vitedge.core.report import (
    LIKENESS,
    Candidate,
    OutputNumerics,
    Recommendation,
    Report,
    TokenSqnr,
)
from vitedge.core.spec import Precision

MAX_DROP_PP = 0.5
"""Points that a faster precision may lose where nothing says otherwise."""
MIN_SQNR_DB = 20.0
"""What it must keep where accuracy was not measured: below, choices start to change sides."""
MIN_KEPT_QUERIES = 0.9
"""Share of FP32's queries that it must give, likewise."""
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
                max_abs_error=numerics.max_abs_error if numerics else None,
                bytes=size.bytes,
            )
        )
    return candidates


def recommend(candidates: Sequence[Candidate], max_drop_pp: float) -> Recommendation | None:
    """Choose one of the candidates, FP32 among them; None where there is nothing to choose.

    A less exact precision must be faster than the best before it, with intervals that do not
    touch, and exact enough: it loses at most `max_drop_pp` points or, where accuracy was not
    measured, keeps 20 dB SQNR, in its worst token or pixel, too; dense maps a pixel error of 10%.
    Of queries that a model orders by its own scores it gives 90%, too.
    """
    if len(candidates) < 2:
        return None
    ranked = sorted(
        candidates, key=lambda candidate: get_args(Precision).index(candidate.precision)
    )
    best = fp32 = ranked[0]
    for candidate in ranked[1:]:
        if _exact_enough(candidate, max_drop_pp) and _faster(candidate, best):
            best = candidate
    clauses = []
    if best is not fp32:
        low, high = best.speedup_ci
        faster = f"{best.speedup:.2f}× faster than FP32 ({low:.2f} to {high:.2f})"
        clauses = [f"{faster}, {_loss(best, max_drop_pp)}, {_size(best, fp32) or 'no smaller'}"]
    clauses += [
        _against(candidate, best, max_drop_pp) for candidate in ranked[1:] if candidate is not best
    ]
    return Recommendation(
        precision=best.precision,
        reason="; ".join(clauses),
        candidates=tuple(ranked),
        confidence=CONFIDENCE,
        max_drop_pp=max_drop_pp,
    )


def _faster(candidate: Candidate, other: Candidate) -> bool:
    return candidate.speedup_ci[0] > other.speedup_ci[1]


def _exact_enough(candidate: Candidate, max_drop_pp: float) -> bool:
    """Whether its error is known and small; NaN is not."""
    if candidate.drop_pp is not None:
        return candidate.drop_pp <= max_drop_pp
    if candidate.pixel_error is not None:
        return candidate.pixel_error <= MAX_PIXEL_ERROR
    if candidate.sqnr_db is not None:
        if candidate.kept_queries is not None and candidate.kept_queries < MIN_KEPT_QUERIES:
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


def _against(candidate: Candidate, best: Candidate, max_drop_pp: float) -> str:
    """Why `candidate` was not chosen, and what it is good for all the same."""
    name, (low, high) = candidate.precision.upper(), candidate.speedup_ci
    slower = "slower" if _faster(best, candidate) else "not measurably faster"
    speed = f"({candidate.speedup:.2f}× FP32's speed, {low:.2f} to {high:.2f})"
    if not _exact_enough(candidate, max_drop_pp):
        if _faster(candidate, best):
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
            return f"{queries(candidate.kept_queries)} at {sqnr(candidate)}, not {least}"
        return f"keeps {sqnr(candidate)}, less than {MIN_SQNR_DB:g}"
    return "its error is not known"


def _size(candidate: Candidate, other: Candidate) -> str:
    """How much smaller or larger it is; empty where it is about the same."""
    ratio = other.bytes / candidate.bytes
    if ratio >= SAME_SIZE:
        return f"{ratio:.1f}× smaller"
    return f"{1 / ratio:.1f}× larger" if ratio <= 1 / SAME_SIZE else ""
