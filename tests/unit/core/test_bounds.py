"""What a report says of a bound, by its worst output, and by no output that is broken."""

from __future__ import annotations

import pytest

from vitedge.core.bounds import (
    BROKEN_DB,
    aims,
    breaches,
    check,
    check_tokens,
    levels,
    shortfalls,
    within_reach,
)
from vitedge.core.errors import InputError, SharedError
from vitedge.core.manifest import Bounds, Losses
from vitedge.core.report import Numerics, OutputNumerics, TokenSqnr

ALL = Bounds(max_drop_pp=1, min_sqnr_db=30, min_token_sqnr_db=20)


def output(
    sqnr_db: float | None, error: float | None = 0.1, worst: float | None = None
) -> OutputNumerics:
    tokens = None if worst is None else TokenSqnr(worst=worst, p5=None)
    return OutputNumerics(sqnr_db=sqnr_db, max_abs_error=error, cosine=1, token_sqnr_db=tokens)


def numerics(*outputs: OutputNumerics) -> Numerics:
    main = outputs[0]
    return Numerics(
        sqnr_db=main.sqnr_db,
        max_abs_error=main.max_abs_error,
        cosine=main.cosine,
        token_sqnr_db=main.token_sqnr_db,
        n=1,
        data="golden",
        outputs={f"output {i}": one for i, one in enumerate(outputs)} if len(outputs) > 1 else {},
    )


def test_the_worst_output_and_the_worst_token_of_any_count() -> None:
    several = numerics(output(40), output(30, worst=25), output(50, worst=12))
    assert levels(several, 0.5) == Losses(drop_pp=0.5, sqnr_db=30, token_sqnr_db=12)
    assert levels(numerics(output(40))) == Losses(drop_pp=None, sqnr_db=40, token_sqnr_db=None)


def test_outputs_that_equal_fp32_have_no_noise_and_meet_all() -> None:
    equal = levels(numerics(output(None, 0.0)), 0.0)
    assert equal == Losses(drop_pp=0.0, sqnr_db=None, token_sqnr_db=None)
    assert not shortfalls(ALL, equal)


@pytest.mark.parametrize("broken", [output(None, None), output(None, 3.0)])
def test_an_output_that_is_not_finite_or_has_no_signal_meets_none(broken: OutputNumerics) -> None:
    lost = levels(numerics(output(40, worst=35), broken), 0.0)
    assert lost.sqnr_db == lost.token_sqnr_db == BROKEN_DB
    assert set(shortfalls(ALL, lost)) == {"min_sqnr_db", "min_token_sqnr_db"}
    assert within_reach(ALL, lost) == "", "no limit can allow that"


def test_shortfalls_are_how_far_it_is_from_each_bound() -> None:
    lost = Losses(drop_pp=1.5, sqnr_db=30, token_sqnr_db=12)
    assert shortfalls(ALL, lost) == {"max_drop_pp": 0.5, "min_token_sqnr_db": 8}
    assert breaches(ALL, lost) == (
        "loses 1.5 points, more than `max_drop_pp=1`, and keeps 12.00 dB in its worst token or "
        "pixel, less than `min_token_sqnr_db=20`"
    )
    assert within_reach(ALL, lost) == "`max_drop_pp=1.5` and `min_token_sqnr_db=12`"


def test_what_is_suggested_is_met() -> None:
    lost = Losses(drop_pp=1.234, sqnr_db=29.99, token_sqnr_db=None)
    assert within_reach(ALL, lost) == "`max_drop_pp=1.24` and `min_sqnr_db=29.9`"
    assert not shortfalls(Bounds(max_drop_pp=1.24, min_sqnr_db=29.9), lost)


def test_aims_are_said_in_one_sentence() -> None:
    assert aims(ALL) == (
        "lose 1 points at most and keep 30 dB and keep 20 dB in the worst token or pixel"
    )


@pytest.mark.parametrize("limit", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["max_drop_pp", "min_sqnr_db", "min_token_sqnr_db"])
def test_a_value_that_is_no_limit_is_refused(name: str, limit: float) -> None:
    with pytest.raises(InputError, match=f"`{name}={limit:g}` is no limit"):
        check(Bounds(**{name: limit}))


def test_tokens_are_bounded_only_where_there_are_some() -> None:
    check_tokens(ALL, "a-model", [(2, ""), (3, "")])
    check_tokens(ALL, "a-model", [(3, "scores"), (4, "")])
    check_tokens(Bounds(min_sqnr_db=30), "a-model", [(2, "")])
    with pytest.raises(SharedError, match="no output of tokens"):
        check_tokens(ALL, "a-model", [(2, "")])
    with pytest.raises(SharedError, match="matched"):
        check_tokens(ALL, "a-model", [(3, "scores")])
