"""Three answers: each limit against a report that keeps it, breaks it, or cannot tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.unit.gate.conftest import sections
from vitedge.core.errors import InputError
from vitedge.core.measurements import Distribution
from vitedge.core.report import Numerics, Parity
from vitedge.gate.judge import judge
from vitedge.gate.limits import Limits
from vitedge.gate.subject import Subject
from vitedge.gate.verdict import Check

Make = Callable[..., Subject]


def only(subject: Subject, confidence: float = 0.95, **limit: float) -> Check:
    (check,) = judge(subject, Limits(**limit), confidence).checks
    return check


def changed(section: str, **changes: Any) -> dict[str, Any]:
    return {section: msgspec.structs.replace(sections()[section], **changes)}


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
def test_a_drop_passes_fails_or_cannot_be_told(
    subject: Make, lost: int, gained: int, limit: float, answer: str
) -> None:
    check = only(subject(**changed("accuracy", lost=lost, gained=gained)), max_drop_pp=limit)
    assert check.answer == answer
    assert check.interval is not None and check.value == pytest.approx((lost - gained) / 10)
    assert check.interval[0] <= check.value <= check.interval[1]


def test_no_image_of_719_that_differs_proves_no_drop_below_a_hundredth_of_a_point(
    subject: Make,
) -> None:
    equal = subject(**changed("accuracy", lost=0, gained=0, n=719))
    check = only(equal, max_drop_pp=0.01)
    assert check.answer == "inconclusive"
    assert check.needed == 30_000  # the rule of three: 3.0 / 0.0001
    assert "about 30,000 or more would" in check.reason


def test_the_number_of_images_grows_as_the_drop_nears_its_limit(subject: Make) -> None:
    limits = (0.15, 0.3, 0.45)
    needed = [only(subject(), max_drop_pp=limit).needed for limit in limits]
    assert needed[0] > needed[1] > needed[2] > 1000
    check = only(subject(), max_drop_pp=0.1)  # exactly what was measured
    assert (check.answer, check.needed) == ("inconclusive", None)
    assert "no number of images would" in check.reason


def test_more_confidence_is_harder_to_give(subject: Make) -> None:
    artifact = subject(**changed("accuracy", lost=4, gained=2))
    answers = [only(artifact, confidence, max_drop_pp=0.9).answer for confidence in (0.9, 0.999)]
    assert answers == ["passed", "inconclusive"]


def test_an_fp32_artifact_loses_nothing_to_itself(subject: Make) -> None:
    check = only(subject(precision="fp32"), max_drop_pp=0.01)
    assert (check.answer, check.value, check.interval) == ("passed", 0, None)


@pytest.mark.parametrize(
    ("limit", "answer"), [(1.3, "passed"), (1.45, "inconclusive"), (1.7, "failed")]
)
def test_a_speed_up_passes_fails_or_cannot_be_told(
    subject: Make, limit: float, answer: str
) -> None:
    check = only(subject(), min_speedup=limit)
    assert (check.metric, check.bound, check.answer) == ("speedup", "min", answer)
    assert check.interval[0] == pytest.approx(1.424, abs=0.002)  # 1.5 · exp(-t(19) · 0.03)
    assert (check.needed is not None and check.needed > 400) == (answer == "inconclusive")


@pytest.mark.parametrize(
    ("limit", "answer"), [(1.85, "passed"), (1.82, "inconclusive"), (1.78, "failed")]
)
def test_a_p90_passes_fails_or_cannot_be_told(subject: Make, limit: float, answer: str) -> None:
    check = only(subject(), max_p90_ms=limit)
    assert (check.answer, check.value) == (answer, 1.81)


@pytest.mark.parametrize(
    ("limit", "metric", "kept", "broken"),
    [
        ("max_size_mb", "size_bytes", 5.0, 4.9),
        ("max_rss_mb", "peak_rss_bytes", 91, 89),
        ("min_agreement", "agreement", 0.997, 0.998),
        ("min_sqnr_db", "sqnr_db", 35, 36),
        ("min_top1", "top1", 0.79, 0.81),
    ],
)
def test_what_is_not_random_passes_or_fails(
    subject: Make, limit: str, metric: str, kept: float, broken: float
) -> None:
    passed, failed = only(subject(), **{limit: kept}), only(subject(), **{limit: broken})
    assert (passed.metric, passed.answer, failed.answer) == (metric, "passed", "failed")
    assert passed.interval is failed.interval is None


@pytest.mark.parametrize(
    ("limit", "section", "command"),
    [
        ("max_drop_pp", "accuracy", "vitedge validate vit-int8"),
        ("min_speedup", "latency", "vitedge bench vit-int8"),
        ("max_p90_ms", "latency", "vitedge bench vit-int8"),
        ("max_size_mb", "size", "vitedge validate vit-int8"),
        ("max_rss_mb", "memory", "vitedge bench vit-int8"),
        ("min_agreement", "accuracy", "vitedge validate vit-int8"),
        ("min_sqnr_db", "numerics", "vitedge validate vit-int8"),
        ("min_top1", "accuracy", "vitedge validate vit-int8"),
        ("min_miou", "accuracy", "vitedge validate vit-int8"),
    ],
)
def test_what_was_not_measured_fails_and_says_how_to_measure_it(
    subject: Make, limit: str, section: str, command: str
) -> None:
    check = only(subject(**{section: None}), **{limit: 0.5})
    assert (check.answer, check.value) == ("failed", None)
    assert check.reason.startswith("not measured") and command in check.reason


@pytest.mark.parametrize(
    ("limit", "change"),
    [
        ("min_top1", changed("accuracy", artifact=float("nan"))),
        ("min_agreement", changed("accuracy", agreement=float("nan"))),
        ("min_speedup", changed("latency", speedup=float("nan"))),
        ("min_speedup", changed("latency", speedup_log_se=float("nan"))),
        ("min_speedup", changed("latency", speedup=0.0)),
        ("min_speedup", changed("latency", rounds=1)),
        ("min_sqnr_db", changed("numerics", sqnr_db=float("nan"))),
    ],
)
def test_a_number_that_is_none_fails(subject: Make, limit: str, change: dict[str, Any]) -> None:
    artifact = subject()
    section, value = next(iter(change.items()))
    # JSON cannot hold NaN; a caller in Python can
    report = msgspec.structs.replace(artifact.report, **{section: value})
    artifact = dataclasses.replace(artifact, report=report)
    check = only(artifact, **{limit: 0.5})
    assert (check.answer, check.value) == ("failed", None)


def test_another_metric_than_the_limit_is_on_fails(subject: Make) -> None:
    check = only(subject(), min_miou=0.5)
    assert check.answer == "failed" and "its metric is top1" in check.reason


def test_outputs_equal_to_fp32_keep_any_sqnr(subject: Make) -> None:
    equal = Numerics(sqnr_db=None, max_abs_error=0, cosine=1, n=10, data="golden")
    assert only(subject(numerics=equal), min_sqnr_db=200).answer == "passed"


def test_a_report_without_counts_is_judged_by_its_interval_where_that_is_sure_enough(
    subject: Make,
) -> None:
    artifact = subject(**changed("accuracy", lost=None, gained=None, metric="miou"))
    assert only(artifact, 0.95, max_drop_pp=0.7).answer == "passed"
    assert only(artifact, 0.95, max_drop_pp=0.5).answer == "inconclusive"
    assert "tells too little" in only(artifact, 0.99, max_drop_pp=0.7).reason


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("max_drop_pp", 90.0),
        ("min_agreement", 0.1),
        ("min_sqnr_db", 1.0),
        ("min_top1", 0.1),
    ],
)
def test_an_artifact_that_lost_parity_fails(subject: Make, limit: str, value: float) -> None:
    parity = Parity(n=8, numerics=None, agreement=None, at_export_db=None, broken="")
    kept = only(subject(parity=parity), **{limit: value})
    parity = msgspec.structs.replace(parity, broken="its outputs are not finite")
    broken = only(subject(parity=parity), **{limit: value})
    assert (kept.answer, broken.answer) == ("passed", "failed")
    assert (broken.metric, broken.value) == (kept.metric, None)
    assert "does not compute here what it should: its outputs are not" in broken.reason


def test_outputs_that_are_not_finite_fail(subject: Make) -> None:
    nothing = Numerics(sqnr_db=None, max_abs_error=None, cosine=None, n=10, data="pictures")
    check = only(subject(numerics=nothing), min_sqnr_db=1)
    assert check.answer == "failed" and "not finite" in check.reason


def test_a_speed_up_over_another_artifact_is_none_over_fp32(subject: Make) -> None:
    artifact = subject(**changed("latency", against="artifacts/slow"))
    check = only(artifact, min_speedup=1.2)
    assert check.answer == "failed" and "with artifacts/slow, not with FP32" in check.reason


def test_a_ratio_that_is_hardly_known_is_inconclusive(subject: Make) -> None:
    artifact = subject(**changed("latency", speedup_log_se=10.0, rounds=2))
    assert only(artifact, 0.9999, min_speedup=1.2).answer == "inconclusive"


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("accuracy", {"n": 0}),
        ("numerics", {"n": 0}),
        ("latency", {"speedup_log_se": 1e4}),
        ("latency", {"p90_share_se": -1.0}),
        ("latency", {"distribution": Distribution(quantiles_ms=(), series=())}),
    ],
)
def test_figures_that_nobody_measures_are_refused(
    subject: Make, section: str, change: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=rf"\$\.{section}"):
        subject(**changed(section, **change))
