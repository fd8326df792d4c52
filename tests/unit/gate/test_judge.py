"""Three answers: each limit against a report that keeps it, breaks it, or cannot tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import msgspec
import pytest

from tests.unit.gate.conftest import changed
from vitedge.core.measurements import Lead
from vitedge.core.report import Numerics, Parity, Recommendation
from vitedge.gate.judge import judge
from vitedge.gate.limits import LIMITS, Limits
from vitedge.gate.subject import Subject, load

Make = Callable[..., Subject]
MEASURED = {
    "max_drop_pp": ("accuracy", "validate"),
    "min_speedup": ("latency", "bench"),
    "min_speedup_over_float": ("latency", "bench"),
    "max_p90_ms": ("latency", "bench"),
    "max_size_mb": ("size", "validate"),
    "max_rss_mb": ("memory", "bench"),
    "min_agreement": ("accuracy", "validate"),
    "min_sqnr_db": ("numerics", "validate"),
    "min_token_sqnr_db": ("numerics", "validate"),
    "min_top1": ("accuracy", "validate"),
    "min_miou": ("accuracy", "validate"),
    "min_map": ("accuracy", "validate"),
}
"""The section of the report that a limit reads, and the command that measures it."""


@pytest.fixture
def subject(write):
    """What the gate makes of a report with `changes`; None takes a section out."""
    return lambda **changes: load(write(**changes))


def only(subject, confidence=0.95, **limit):
    (check,) = judge(subject, Limits(**limit), confidence).checks
    return check


def test_every_limit_is_judged_by_a_report_or_by_what_was_accepted_before():
    assert MEASURED.keys() == {name for name, limit in LIMITS.items() if limit.check}
    since = {name for name, limit in LIMITS.items() if limit.check_since}
    assert since == {"max_drop_pp", "max_slowdown"}
    assert MEASURED.keys() | since == LIMITS.keys()


@pytest.mark.parametrize(
    ("lost", "gained", "limit", "answer"),
    [
        (2, 1, 1.0, "passed"),
        (2, 1, 0.5, "inconclusive"),
        (30, 5, 1.0, "failed"),
        (0, 0, 0.3, "passed"),  # 3 in 1,000 is what none in 1,000 proves
        (0, 0, 0.29, "inconclusive"),
        (0, 9, 0.29, "passed"),
    ],
)
def test_a_drop_passes_fails_or_cannot_be_told(subject, lost, gained, limit, answer):
    check = only(subject(**changed("accuracy", lost=lost, gained=gained)), max_drop_pp=limit)
    assert check.answer == answer
    assert check.interval is not None and check.value == pytest.approx((lost - gained) / 10)
    assert check.interval[0] <= check.value <= check.interval[1]


def test_no_image_of_719_that_differs_proves_no_drop_below_a_hundredth_of_a_point(subject):
    equal = subject(**changed("accuracy", lost=0, gained=0, n=719))
    check = only(equal, max_drop_pp=0.01)
    assert check.answer == "inconclusive"
    assert check.needed == 30_000  # the rule of three: 3.0 / 0.0001
    assert "about 30,000 or more would" in check.reason


def test_the_number_of_images_grows_as_the_drop_nears_its_limit(subject):
    limits = (0.15, 0.3, 0.45)
    needed = [only(subject(), max_drop_pp=limit).needed for limit in limits]
    assert needed[0] > needed[1] > needed[2] > 1000
    check = only(subject(), max_drop_pp=0.1)  # exactly what was measured
    assert (check.answer, check.needed) == ("inconclusive", None)
    assert "no number of images would" in check.reason


def test_an_fp32_artifact_loses_nothing_to_itself(subject):
    check = only(subject(precision="fp32"), max_drop_pp=0.01)
    assert (check.answer, check.value, check.interval) == ("passed", 0, None)
    assert check.reason == "0 pp, max 0.01 pp: it is FP32 itself"


SPEEDUP = ("min_speedup", 1.5, 1.424)  # 1.5 · exp(-t(19) · 0.03)
P90 = ("max_p90_ms", 1.81, 1.793)


@pytest.mark.parametrize(
    ("limit", "value", "low", "at", "answer"),
    [
        *((*SPEEDUP, 1.3, "passed"), (*SPEEDUP, 1.45, "inconclusive"), (*SPEEDUP, 1.7, "failed")),
        *((*P90, 1.85, "passed"), (*P90, 1.82, "inconclusive"), (*P90, 1.78, "failed")),
    ],
)
def test_a_latency_passes_fails_or_cannot_be_told(subject, limit, value, low, at, answer):
    check = only(subject(), **{limit: at})
    assert (check.bound, check.value, check.answer) == (limit[:3], value, answer)
    assert check.interval[0] == pytest.approx(low, abs=0.002)
    assert (check.needed is not None and check.needed > 400) == (answer == "inconclusive")


LEAD = Lead(speedup=1.2, speedup_ci=(1.1, 1.3), log_se=0.03)  # 1.2 · exp(-t(19) · 0.03) = 1.139


def advice(best_float):
    return Recommendation(
        precision="int8",
        **{"reason": "", "candidates": (), "confidence": 0.95, "max_drop_pp": 0.5},
        best_float=best_float,
    )


@pytest.mark.parametrize(
    ("best_float", "at", "answer"),
    [
        *(("fp16", 1.1, "passed"), ("fp16", 1.15, "inconclusive"), ("fp16", 1.4, "failed")),
        *(("fp32", 1.4, "passed"), ("fp32", 1.7, "failed")),
    ],
)
def test_the_best_float_is_what_int8_is_held_to(subject, best_float, at, answer):
    change = changed("latency", over={"fp16": LEAD})
    check = only(subject(**change, recommendation=advice(best_float)), min_speedup_over_float=at)
    assert (check.metric, check.answer) == ("speedup_over_float", answer)
    assert check.value == (1.2 if best_float == "fp16" else 1.5)


WITHOUT_COUNTS = changed("accuracy", lost=None, gained=None, metric="miou")
EQUAL, INFINITE = (
    {"numerics": Numerics(sqnr_db=None, max_abs_error=error, cosine=None, n=10, data="golden")}
    for error in (0, None)
)
UNSURE = changed("latency", speedup_log_se=10.0, rounds=2)
FEW = changed("accuracy", lost=4, gained=2)


@pytest.mark.parametrize(
    ("change", "confidence", "limit", "answer"),
    [
        (FEW, 0.9, {"max_drop_pp": 0.9}, "passed"),
        (FEW, 0.999, {"max_drop_pp": 0.9}, "inconclusive"),
        (WITHOUT_COUNTS, 0.95, {"max_drop_pp": 0.7}, "passed"),  # by its own interval
        (WITHOUT_COUNTS, 0.95, {"max_drop_pp": 0.5}, "inconclusive"),
        (WITHOUT_COUNTS, 0.99, {"max_drop_pp": 0.7}, "failed"),  # which is of 0.95 and no more
        (EQUAL, 0.95, {"min_sqnr_db": 200}, "passed"),
        (EQUAL, 0.95, {"min_token_sqnr_db": 200}, "passed"),
        (UNSURE, 0.9999, {"min_speedup": 1.2}, "inconclusive"),
    ],
)
def test_an_answer_is_as_sure_as_asked(subject, change, confidence, limit, answer):
    check = only(subject(**change), confidence, **limit)
    assert check.answer == answer
    assert ("tells too little for 0.99" in check.reason) == (answer == "failed")


@pytest.mark.parametrize(
    ("limit", "metric", "kept", "broken", "reason"),
    [
        ("max_size_mb", "size_bytes", 5.0, 4.9, "5 MB, max 4.9 MB"),
        ("max_rss_mb", "peak_rss_bytes", 91, 89, "90 MB, max 89 MB"),
        ("min_agreement", "agreement", 0.997, 0.998, "0.9970 of 1,000 images, min 0.998"),
        ("min_sqnr_db", "sqnr_db", 35, 36, "35.0 dB, min 36 dB"),
        ("min_token_sqnr_db", "token_sqnr_db", 21, 22, "21.5 dB, min 22 dB"),
        ("min_top1", "top1", 0.79, 0.81, "0.7990 on 1,000 images, min 0.81"),
    ],
)
def test_what_is_not_random_passes_or_fails(subject, limit, metric, kept, broken, reason):
    passed, failed = only(subject(), **{limit: kept}), only(subject(), **{limit: broken})
    assert (passed.metric, passed.answer, failed.answer) == (metric, "passed", "failed")
    assert passed.interval is failed.interval is None
    assert failed.reason == reason


@pytest.mark.parametrize("limit", MEASURED)
def test_what_was_not_measured_fails_and_says_how_to_measure_it(subject, limit):
    section, command = MEASURED[limit]
    check = only(subject(**{section: None}), **{limit: 0.5})
    assert (check.answer, check.value) == ("failed", None)
    assert check.reason == f"not measured: run vitedge {command} vit-int8"


@pytest.mark.parametrize(
    ("limit", "section", "change"),
    [
        ("min_top1", "accuracy", {"artifact": float("nan")}),
        ("min_agreement", "accuracy", {"agreement": float("nan")}),
        ("min_speedup", "latency", {"speedup": float("nan")}),
        ("min_speedup", "latency", {"speedup_log_se": float("nan")}),
        ("min_speedup", "latency", {"speedup": 0.0}),
        ("min_speedup", "latency", {"rounds": 1}),
        ("min_sqnr_db", "numerics", {"sqnr_db": float("nan")}),
    ],
)
def test_a_number_that_is_none_fails(subject, limit, section, change):
    artifact = subject()  # JSON cannot hold NaN; a caller in Python can
    report = msgspec.structs.replace(artifact.report, **changed(section, **change))
    check = only(dataclasses.replace(artifact, report=report), **{limit: 0.5})
    assert (check.answer, check.value) == ("failed", None)


@pytest.mark.parametrize(
    ("change", "limit", "why"),
    [
        ({}, {"min_miou": 0.5}, "its metric is top1"),
        (INFINITE, {"min_sqnr_db": 1}, "not finite"),
        (INFINITE, {"min_token_sqnr_db": 1}, "not finite"),
        (
            changed("numerics", token_sqnr_db=None),
            *({"min_token_sqnr_db": 1}, "no tokens and no pixels"),
        ),
        (changed("latency", against="a/slow"), {"min_speedup": 1.2}, "with a/slow, not with FP32"),
        (changed("latency", speedup=None), {"min_speedup": 1.2}, "timed alone"),
        ({}, {"min_speedup_over_float": 1.2}, "not timed in turn with a float precision"),
        (
            {"recommendation": advice("fp16")},
            *({"min_speedup_over_float": 1.2}, "not timed in turn with FP16, the best float"),
        ),
        (
            {"recommendation": advice("int8")},
            *({"min_speedup_over_float": 1.2}, "is the best float itself"),
        ),
    ],
)
def test_what_was_measured_otherwise_than_the_limit_says_fails(subject, change, limit, why):
    check = only(subject(**change), **limit)
    assert check.answer == "failed" and why in check.reason


@pytest.mark.parametrize(
    ("limit", "value"),
    [("max_drop_pp", 90.0), ("min_agreement", 0.1), ("min_sqnr_db", 1.0), ("min_top1", 0.1)],
)
def test_an_artifact_that_lost_parity_fails(subject, limit, value):
    parity = Parity(n=8, numerics=None, agreement=None, at_export_db=None, broken="")
    kept = only(subject(parity=parity), **{limit: value})
    parity = msgspec.structs.replace(parity, broken="its outputs are not finite")
    broken = only(subject(parity=parity), **{limit: value})
    assert (kept.answer, broken.answer) == ("passed", "failed")
    assert (broken.metric, broken.value) == (kept.metric, None)
    assert "does not compute here what it should: its outputs are not" in broken.reason
