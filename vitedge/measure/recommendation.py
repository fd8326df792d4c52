"""Which precision to ship: INT8 is never more exact than FP32, and not always faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from vitedge.core.report import Candidate, Recommendation
from vitedge.core.spec import Precision

MAX_DROP_PP = 0.5
"""Points that a faster precision may lose where no --max-drop says otherwise."""
MIN_SQNR_DB = 20.0
"""What it must keep where accuracy was not measured: below, choices start to change sides."""
SAME_SIZE = 1.05
"""A smaller ratio of sizes is not worth a word."""
CONFIDENCE = 0.95


def candidates(reports: Sequence[Mapping[str, Any]]) -> list[Candidate]:
    """FP32 and the precisions in `reports`, the reports of bundles timed together with FP32.

    A report whose latency was not compared with FP32 gives no candidate; none do: an empty list.
    """
    found: list[Candidate] = []
    for report in reports:
        latency, size = report["latency"], report["size"]
        if latency["fp32"] is None or size["fp32_bytes"] is None:
            continue
        if not found:
            fp32_ms = latency["fp32"]["p50_ms"]
            found.append(Candidate(precision="fp32", p50_ms=fp32_ms, bytes=size["fp32_bytes"]))
        accuracy, numerics = report.get("accuracy") or {}, report.get("numerics") or {}
        if accuracy.get("metric") == "knn_agreement":  # how alike features are, not how good
            accuracy = {}
        found.append(
            Candidate(
                precision=report["precision"],
                p50_ms=latency["p50_ms"],
                speedup=latency["speedup"],
                speedup_ci=tuple(latency["speedup_ci"]),
                drop_pp=accuracy.get("drop_pp"),
                drop_ci_pp=tuple(accuracy["drop_ci_pp"]) if accuracy.get("drop_ci_pp") else None,
                sqnr_db=numerics.get("sqnr_db"),
                max_abs_error=numerics.get("max_abs_error"),
                bytes=size["bytes"],
            )
        )
    return found


def recommend(found: Sequence[Candidate], max_drop_pp: float) -> Recommendation | None:
    """Choose one of the candidates, FP32 among them; None where there is nothing to choose.

    A less exact precision must be faster than the best before it, with intervals that do not
    touch, and exact enough: it loses at most `max_drop_pp` points, or keeps 20 dB SQNR where
    accuracy was not measured.
    """
    if len(found) < 2:
        return None
    ranked = sorted(found, key=lambda each: get_args(Precision).index(each.precision))
    best = fp32 = ranked[0]
    for each in ranked[1:]:
        if _exact_enough(each, max_drop_pp) and _faster(each, best):
            best = each
    clauses = []
    if best is not fp32:
        low, high = best.speedup_ci
        faster = f"{best.speedup:.2f}× faster than FP32 ({low:.2f} to {high:.2f})"
        clauses = [f"{faster}, {_loss(best, max_drop_pp)}, {_size(best, fp32) or 'no smaller'}"]
    clauses += [_against(each, best, max_drop_pp) for each in ranked[1:] if each is not best]
    return Recommendation(
        precision=best.precision,
        reason="; ".join(clauses),
        candidates=tuple(ranked),
        confidence=CONFIDENCE,
        max_drop_pp=max_drop_pp,
    )


def _faster(each: Candidate, than: Candidate) -> bool:
    return each.speedup_ci[0] > than.speedup_ci[1]


def _exact_enough(each: Candidate, max_drop_pp: float) -> bool:
    """Whether its error is known and small; NaN is not."""
    if each.drop_pp is not None:
        return each.drop_pp <= max_drop_pp
    if each.sqnr_db is not None:
        return each.sqnr_db >= MIN_SQNR_DB
    return each.max_abs_error == 0


def _against(each: Candidate, best: Candidate, max_drop_pp: float) -> str:
    """Why `each` was not chosen, and what it is good for all the same."""
    name, (low, high) = each.precision.upper(), each.speedup_ci
    slower = "slower" if _faster(best, each) else "not measurably faster"
    speed = f"({each.speedup:.2f}× FP32's speed, {low:.2f} to {high:.2f})"
    if not _exact_enough(each, max_drop_pp):
        if _faster(each, best):
            return f"{name} is faster {speed} but {_too_much(each, max_drop_pp)}"
        return f"{name} is {slower} {speed} and {_too_much(each, max_drop_pp)}"
    clause = f"{name} is {slower} {speed}, {_loss(each, max_drop_pp)}"
    smaller = each.bytes < best.bytes and _size(each, best)
    return f"{clause}; it is {smaller}, if size is what counts" if smaller else clause


def _loss(each: Candidate, max_drop_pp: float) -> str:
    """What is lost by it, which is little enough, and how sure that is."""
    if each.drop_pp is None:
        kept = "outputs equal to FP32's"
        if each.sqnr_db is not None:
            kept = f"{each.sqnr_db:.1f} dB SQNR"
        return f"{kept} (accuracy was not measured)"
    lost = f"{abs(each.drop_pp):.2f} points {'lost' if each.drop_pp >= 0 else 'gained'}"
    if each.drop_ci_pp is None:
        return f"{lost} (too few images for an interval)"
    low, high = each.drop_ci_pp
    if high > max_drop_pp:
        return f"{lost} (drop {low:+.2f} to {high:+.2f}: more images would tell)"
    return lost


def _too_much(each: Candidate, max_drop_pp: float) -> str:
    if each.drop_pp is not None:
        return f"loses {each.drop_pp:.2f} points, more than {max_drop_pp:g}"
    if each.sqnr_db is not None:
        return f"keeps {each.sqnr_db:.1f} dB SQNR, less than {MIN_SQNR_DB:g}"
    return "its error is not known"


def _size(each: Candidate, than: Candidate) -> str:
    """How much smaller or larger it is; empty where it is about the same."""
    ratio = than.bytes / each.bytes
    if ratio >= SAME_SIZE:
        return f"{ratio:.1f}× smaller"
    return f"{1 / ratio:.1f}× larger" if ratio <= 1 / SAME_SIZE else ""
