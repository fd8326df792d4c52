"""Which precision is recommended, and what the reason says, for timings and losses of all kinds."""

import math
import re

import pytest
from msgspec.structs import replace

from tests.support.page_reports import measured, timing, with_part
from vitedge.core.measurements import Lead, Timing
from vitedge.core.report import Candidate, Numerics, Size
from vitedge.measure.recommendation import candidates_of, recommend

FP32 = Candidate(precision="fp32", p50_ms=10.0, bytes=4000)


def candidate(precision, low, speedup, high, **known):
    """A candidate that loses nothing and is a quarter (INT8) or half (FP16) of FP32's size."""
    plain = {"drop_pp": 0.0, "drop_ci_pp": (-0.2, 0.2), "sqnr_db": 35.0, "max_abs_error": 0.1}
    return Candidate(
        precision=precision,
        p50_ms=10 / speedup,
        speedup=speedup,
        speedup_ci=(low, high),
        bytes=1000 if precision == "int8" else 2000,
        **{**plain, **known},
    )


def chosen(*others, max_drop_pp=0.5):
    advice = recommend([FP32, *others], max_drop_pp)
    precisions = ["fp32", *(other.precision for other in others)]
    assert [c.precision for c in advice.candidates] == precisions
    assert "\n" not in advice.reason
    return advice


def test_faster_and_as_accurate_is_shipped():
    advice = chosen(candidate("int8", 1.25, 1.31, 1.38))
    assert advice.precision == "int8"
    assert advice.reason == (
        "1.31× faster than FP32 (1.25 to 1.38), 0.00 points lost, 4.0× smaller"
    )
    assert advice.confidence == 0.95


def test_a_ruined_token_is_not_shipped_however_fast_and_whatever_the_whole_output_keeps():
    features = {"drop_pp": None, "drop_ci_pp": None, "sqnr_db": 29.2}
    fast = candidate("int8", 1.9, 2.0, 2.1, **features, token_sqnr_db=5.6)
    advice = chosen(fast)
    assert advice.precision == "fp32"
    assert "keeps 29.2 dB SQNR, 5.6 in its worst token or pixel, less than 20" in advice.reason
    assert chosen(replace(fast, token_sqnr_db=25.0)).precision == "int8"
    labelled = replace(fast, drop_pp=0.1)  # what counts was measured
    assert chosen(labelled).precision == "int8"


def test_slower_is_not_shipped_and_says_so():
    advice = chosen(candidate("int8", 0.95, 0.97, 0.99, drop_pp=0.1))
    assert advice.precision == "fp32"
    assert advice.reason == (
        "INT8 is slower (0.97× FP32's speed, 0.95 to 0.99), 0.10 points lost; "
        "it is 4.0× smaller, if size is what counts"
    )


def test_a_tie_in_speed_goes_to_the_more_exact():
    advice = chosen(candidate("int8", 0.99, 1.02, 1.05))
    assert advice.precision == "fp32"
    assert "INT8 is not measurably faster (1.02× FP32's speed, 0.99 to 1.05)" in advice.reason
    assert "4.0× smaller" in advice.reason


def test_no_smaller_and_no_faster_promises_nothing():
    advice = chosen(replace(candidate("int8", 0.99, 1.02, 1.05), bytes=3990))
    assert advice.precision == "fp32"
    assert "size" not in advice.reason and "smaller" not in advice.reason


def test_faster_but_it_loses_too_much():
    int8 = candidate("int8", 2.0, 2.1, 2.2, drop_pp=3.0, drop_ci_pp=(2.5, 3.5))
    advice = chosen(int8)
    assert advice.precision == "fp32"
    assert advice.reason == (
        "INT8 is faster (2.10× FP32's speed, 2.00 to 2.20) but loses 3.00 points, more than 0.5"
    )
    assert chosen(int8, max_drop_pp=3.5).precision == "int8"  # what the user allowed


def test_fp16_is_shipped_where_int8_loses_too_much():
    int8 = candidate("int8", 2.0, 2.1, 2.2, drop_pp=3.0)
    advice = chosen(candidate("fp16", 1.4, 1.5, 1.6), int8)
    assert advice.precision == "fp16"
    assert advice.reason.startswith("1.50× faster than FP32 (1.40 to 1.60), 0.00 points lost, 2.0×")
    assert (
        "INT8 is faster (2.10× FP32's speed, 2.00 to 2.20) but loses 3.00 points" in advice.reason
    )


@pytest.mark.parametrize(
    ("low", "shipped", "reason"),
    [
        (1.08, "int8", "1.12× faster than FP16 (1.08 to 1.16), 1.68× than FP32, 0.00 points lost"),
        (0.97, "fp16", "1.50× faster than FP32 (1.40 to 1.60), 0.00 points lost, 2.0× smaller"),
    ],
)
def test_int8_is_held_to_the_best_float_by_what_was_timed_in_turn(low, shipped, reason):
    """Their intervals over FP32 touch: pairing the rounds tells more."""
    fp16, int8 = candidate("fp16", 1.4, 1.5, 1.6), candidate("int8", 1.55, 1.68, 1.8)
    lead = Lead(speedup=1.12, speedup_ci=(low, 1.16), log_se=0.01)
    advice = recommend([FP32, fp16, int8], 0.5, {"int8": {"fp16": lead}})
    assert (advice.precision, advice.best_float) == (shipped, "fp16")
    assert advice.reason.startswith(reason)
    fp32, half, calibrated = advice.candidates
    assert fp32.speedup_over_float is half.speedup_over_float is None
    assert (calibrated.speedup_over_float, calibrated.speedup_over_float_ci) == (1.12, (low, 1.16))


def test_where_floats_are_no_faster_int8_is_held_to_fp32():
    advice = chosen(candidate("fp16", 0.9, 1.0, 1.1), candidate("int8", 1.5, 1.6, 1.7))
    assert (advice.precision, advice.best_float) == ("int8", "fp32")
    assert advice.candidates[-1].speedup_over_float == 1.6


AMX = {
    "vit_tiny": ((13.5, 5.6, 7.2), (39.0, 27.1), "bf16"),
    "vit_base": ((142.9, 38.3, 27.2), (40.0, 29.1), "int8"),
    "repvit_m0_9": ((11.0, 5.7, 6.3), (47.0, 39.0), "bf16"),
    "levit_conv_128s": ((8.0, 5.5, 5.9), (43.0, 23.0), "bf16"),
    "mobilevit_xxs": ((10.4, 9.0, 10.2), (45.0, 22.0), "bf16"),
    "efficientvit_b0": ((7.9, 6.6, 7.5), (44.0, 15.0), "bf16"),
    "mobilenetv4_hybrid_medium": ((20.0, 10.1, 9.8), (44.0, 22.0), "bf16"),
}
"""p50 of FP32, BF16 and INT8, ms, SQNR of the last two, dB, and what to ship: OpenVINO, AMX."""


@pytest.mark.parametrize(("p50_ms", "level_db", "shipped"), AMX.values(), ids=AMX)
def test_bf16_is_shipped_where_int8_is_not_clearly_faster(p50_ms, level_db, shipped):
    """Within 4%, one run does not tell which is faster."""
    fp32_ms, *others_ms = p50_ms
    unlabelled = {"drop_pp": None, "drop_ci_pp": None}
    others = [
        candidate(
            name, 0.98 * fp32_ms / ms, fp32_ms / ms, 1.02 * fp32_ms / ms, **unlabelled, sqnr_db=db
        )
        for name, ms, db in zip(("bf16", "int8"), others_ms, level_db, strict=True)
    ]
    advice = recommend([FP32, *others], 0.5)
    assert (advice.precision, advice.best_float) == (shipped, "bf16")
    if shipped == "int8":
        assert advice.reason.startswith("1.41× faster than BF16 (1.35 to 1.47), 5.25× than FP32")
    else:
        assert re.search(r"INT8 is (slower|not measurably faster) than BF16 \(", advice.reason)


@pytest.mark.parametrize(
    ("fp8_gain", "int8_gain", "fp8_db", "shipped"),
    [
        (2.4, 1.8, 31.0, "fp8"),
        (1.8, 2.4, 31.0, "int8"),
        (2.4, 2.4, 31.0, "fp8"),  # the more exact of two that are as fast
        (1.5, 1.5, 31.0, "fp16"),
        (2.4, 1.8, 12.0, "int8"),
    ],
)
def test_among_fp16_int8_and_fp8_the_fastest_exact_one_is_shipped(
    fp8_gain, int8_gain, fp8_db, shipped
):
    def timed(name, gain, level_db):
        unlabelled = {"drop_pp": None, "drop_ci_pp": None}
        return candidate(name, 0.98 * gain, gain, 1.02 * gain, **unlabelled, sqnr_db=level_db)

    few = [
        *(timed("fp16", 1.5, 60.0), timed("int8", int8_gain, 28.0), timed("fp8", fp8_gain, fp8_db)),
    ]
    advice = recommend([FP32, *few], 0.5)
    assert (advice.precision, advice.best_float) == (shipped, "fp16")
    by_name = {c.precision: c for c in advice.candidates}
    assert by_name["fp8"].speedup_over_float == pytest.approx(fp8_gain / 1.5)
    assert by_name["fp16"].speedup_over_float is None
    if shipped == "fp8":
        assert "× faster than FP16" in advice.reason and "INT8 is" in advice.reason


def test_candidates_stand_in_the_order_of_their_error():
    """INT8 of one target may be more exact than FP16 of it, whose sums overflow."""
    int8 = candidate("int8", 1.5, 1.6, 1.7, sqnr_db=40.0)
    advice = recommend([candidate("fp16", 1.4, 1.5, 1.6, sqnr_db=30.0), int8, FP32], 0.5)
    assert [c.precision for c in advice.candidates] == ["fp32", "int8", "fp16"]
    assert (advice.precision, advice.best_float) == ("int8", "fp16")  # FP16 without INT8
    assert advice.candidates[1].speedup_over_float == pytest.approx(1.6 / 1.5)


def test_int8_must_be_faster_than_fp16_too():
    fp16 = candidate("fp16", 1.4, 1.5, 1.6)
    assert chosen(fp16, candidate("int8", 1.5, 1.6, 1.7)).precision == "fp16"  # the intervals touch
    advice = chosen(fp16, candidate("int8", 1.7, 1.8, 1.9))
    assert advice.precision == "int8"
    assert "FP16 is slower (1.50× FP32's speed" in advice.reason
    assert "size" not in advice.reason  # the slower one is larger, too


def test_the_order_they_come_in_does_not_matter():
    few = [candidate("int8", 1.5, 1.6, 1.7), FP32, candidate("fp16", 1.4, 1.5, 1.6)]
    advice = recommend(few, 0.5)
    assert advice.precision == "fp16"
    assert [c.precision for c in advice.candidates] == ["fp32", "fp16", "int8"]


@pytest.mark.parametrize(
    ("interval", "said"),
    [((-0.53, 0.53), "drop -0.53 to +0.53: more images would tell"), (None, "too few images")],
)
def test_few_images_are_enough_to_choose_but_it_says_they_are_few(interval, said):
    advice = chosen(candidate("int8", 1.2, 1.3, 1.4, drop_ci_pp=interval))
    assert advice.precision == "int8"
    assert said in advice.reason


def test_accuracy_gained_is_no_loss():
    advice = chosen(candidate("int8", 1.2, 1.3, 1.4, drop_pp=-0.14))
    assert advice.precision == "int8"
    assert "0.14 points gained" in advice.reason


# -- where accuracy was not measured ------------------------------------------------------------

UNMEASURED = {"drop_pp": None, "drop_ci_pp": None}


@pytest.mark.parametrize(("sqnr_db", "precision"), [(19.9, "fp32"), (20.0, "int8"), (35, "int8")])
def test_without_accuracy_the_outputs_decide(sqnr_db, precision):
    advice = chosen(candidate("int8", 1.2, 1.3, 1.4, **UNMEASURED, sqnr_db=sqnr_db))
    assert advice.precision == precision
    assert f"{sqnr_db:.1f} dB SQNR" in advice.reason
    assert ("accuracy was not measured" in advice.reason) == (precision == "int8")


def test_outputs_equal_to_those_of_fp32_are_exact_enough():
    advice = chosen(candidate("int8", 1.2, 1.3, 1.4, **UNMEASURED, sqnr_db=None, max_abs_error=0.0))
    assert advice.precision == "int8"
    assert "outputs equal to FP32's" in advice.reason


@pytest.mark.parametrize("max_abs_error", [None, math.nan, math.inf])
def test_an_unknown_error_is_not_shipped(max_abs_error):
    unknown = {**UNMEASURED, "sqnr_db": None, "max_abs_error": max_abs_error}
    advice = chosen(candidate("int8", 1.2, 1.3, 1.4, **unknown))
    assert advice.precision == "fp32"
    assert "its error is not known" in advice.reason


@pytest.mark.parametrize("broken", [{**UNMEASURED, "sqnr_db": math.nan}, {"drop_pp": math.nan}])
def test_nan_is_never_exact_enough(broken):
    assert chosen(candidate("int8", 1.2, 1.3, 1.4, **broken)).precision == "fp32"


def test_nan_is_never_faster():
    assert chosen(candidate("int8", math.nan, math.nan, math.nan)).precision == "fp32"


def test_an_infinite_sqnr_is_exact_enough():
    assert (
        chosen(candidate("int8", 1.2, 1.3, 1.4, **UNMEASURED, sqnr_db=math.inf)).precision == "int8"
    )


def test_one_precision_is_no_choice():
    assert recommend([FP32], 0.5) is None
    assert recommend([], 0.5) is None


# -- from reports -------------------------------------------------------------------------------


NUMERICS = Numerics(sqnr_db=33.0, max_abs_error=0.2, cosine=0.9, n=9, data="golden")
SIZE = Size(bytes=1000, fp32_bytes=4000)
INT8 = measured("a", "int8", 8.0, 0.8, scenarios=False, size=SIZE)
FASTER = {"fp32": Timing(**timing(10.0, 0)), "speedup": 1.25, "speedup_ci": (1.2, 1.3)}
TIMED = with_part(INT8, "latency", **FASTER)
"""The report of an INT8 bundle, timed in turn with FP32."""


def accuracy(metric, drop_pp):
    interval = (drop_pp - 0.2, drop_pp + 0.2)
    return replace(TIMED.accuracy, metric=metric, drop_pp=drop_pp, drop_ci_pp=interval)


def report(**sections):
    return replace(TIMED, **{"accuracy": None, **sections})


def test_a_report_gives_fp32_and_its_own_precision():
    fp32, int8 = candidates_of([report(accuracy=accuracy("top1", 0.1), numerics=NUMERICS)])
    assert fp32 == FP32
    lost = {"drop_pp": 0.1, "drop_ci_pp": (0.1 - 0.2, 0.1 + 0.2)}
    assert int8 == candidate("int8", 1.2, 1.25, 1.3, **lost, sqnr_db=33.0, max_abs_error=0.2)


def test_like_features_are_no_accuracy():
    alike = accuracy("knn_agreement", 4.0)
    _, int8 = candidates_of([report(accuracy=alike, numerics=NUMERICS)])
    assert (int8.drop_pp, int8.drop_ci_pp, int8.sqnr_db) == (None, None, 33.0)


@pytest.mark.parametrize(("error", "precision"), [(0.02, "int8"), (0.2, "fp32")])
def test_dense_maps_are_held_to_their_pixel_error(error, precision):
    """An SQNR is of all of a map: of one far from zero it is high whatever its pixels say."""
    measured = replace(accuracy("pixel_error", 100 * error), artifact=error, agreement=None)
    fp32, int8 = candidates_of([report(accuracy=measured, numerics=NUMERICS)])
    assert (int8.drop_pp, int8.pixel_error) == (None, error)
    advice = recommend([fp32, int8], 0.5)
    assert advice.precision == precision and f"{error:.1%} pixel error" in advice.reason


def test_what_was_not_timed_with_fp32_is_no_candidate():
    alone = with_part(report(), "latency", fp32=None, speedup=None, speedup_ci=None)
    assert candidates_of([alone]) == []
    precisions = [candidate.precision for candidate in candidates_of([alone, report()])]
    assert precisions == ["fp32", "int8"]


def test_a_detector_that_moves_boxes_is_not_shipped_however_well_its_logits_keep():
    unlabelled = {"drop_pp": None, "drop_ci_pp": None, "sqnr_db": 33.0}
    moving = candidate("int8", 1.9, 2.0, 2.1, **unlabelled, box_iou=0.88)
    advice = chosen(moving)
    assert advice.precision == "fp32"
    assert "moves boxes: their IoU is 88.0%, not 95%" in advice.reason
    steady = chosen(replace(moving, box_iou=0.97))
    assert steady.precision == "int8" and "boxes' IoU 97.0%" in steady.reason
    assert chosen(replace(moving, drop_pp=0.1)).precision == "int8"  # what counts was measured
    few = chosen(replace(moving, kept_queries=0.95))
    assert "moves boxes" in few.reason and "queries" not in few.reason
