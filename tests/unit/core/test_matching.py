"""Queries that come in another order are compared with FP32's own; unlike ones stay unlike."""

import numpy as np
import pytest

from vitedge.core.matching import PAIRS, distances, in_order, match, nearest
from vitedge.measure.accuracy.output_error import OutputErrors

IMAGES, QUERIES, CLASSES = 3, 60, 10


def outputs(seed=0, queries=QUERIES):
    """Logits with what all queries share, as a focal loss leaves it, and boxes: (n, q, …)."""
    random = np.random.default_rng(seed)
    logits = random.normal(-4.6, 0.5, (IMAGES, queries, CLASSES))
    boxes = random.random((IMAGES, queries, 4))
    return [logits.astype(np.float32), boxes.astype(np.float32)]


def shuffled(arrays, seed=1):
    order = np.random.default_rng(seed).permuted(
        np.tile(np.arange(arrays[0].shape[1]), (IMAGES, 1)), axis=1
    )
    return [array[np.arange(IMAGES)[:, None], order] for array in arrays]


def per_image(arrays):
    return zip(*arrays, strict=True)


def noisy(arrays, level):
    random = np.random.default_rng(2)
    return [(x + random.normal(0, level * x.std(), x.shape)).astype(np.float32) for x in arrays]


def numerics(fp32, artifact, orders=("choice", "choice")):
    errors = OutputErrors(["logits", "boxes"], "features", orders)
    errors.update(fp32, errors.matched(fp32, artifact))
    return errors.result("data")


def test_a_mere_permutation_is_exact():
    fp32 = outputs()
    result = numerics(fp32, shuffled(fp32))
    assert [error.max_abs_error for error in result.outputs.values()] == [0, 0]
    assert result.sqnr_db is None and result.kept_queries == 1
    by_place = numerics(fp32, shuffled(fp32), ("", ""))
    assert by_place.outputs["boxes"].sqnr_db < 5 and by_place.kept_queries is None


def test_queries_that_all_look_alike_take_no_longer_and_are_exact():
    fp32 = [np.ones((IMAGES, 900, width), np.float32) for width in (CLASSES, 4)]
    assert numerics(fp32, fp32).max_abs_error == 0


def test_noise_is_what_it_is_once_the_order_is_set_right():
    fp32 = outputs()
    result = numerics(fp32, shuffled(noisy(fp32, 0.05)))
    straight = numerics(fp32, noisy(fp32, 0.05), ("", ""))
    for name, error in result.outputs.items():
        assert error.sqnr_db == pytest.approx(straight.outputs[name].sqnr_db, abs=0.1)
    assert result.kept_queries == 1
    assert result.token_sqnr_db is None and straight.token_sqnr_db  # a query has no place


def test_another_models_queries_are_not_kept_whatever_their_sqnr():
    result = numerics(outputs(0), outputs(7))
    assert result.kept_queries < 0.1
    assert result.outputs["boxes"].sqnr_db < 12


def test_outputs_of_one_query_move_together_and_others_stay():
    logits, boxes = outputs()
    third = np.arange(IMAGES * 5, dtype=np.float32).reshape(IMAGES, 5)
    order = np.arange(QUERIES)[::-1]
    got = [logits[:, order], third[:, ::-1], boxes[:, order] * 0 + boxes[:, order]]
    matching = in_order([logits, third, boxes], got, ["choice", "", "choice"])
    np.testing.assert_array_equal(matching.outputs[0], logits)
    np.testing.assert_array_equal(matching.outputs[1], third[:, ::-1])
    np.testing.assert_array_equal(matching.outputs[2], boxes)


def test_relations_of_queries_move_in_rows_and_columns():
    logits, boxes = outputs()
    relations = np.random.default_rng(3).random((IMAGES, QUERIES, QUERIES)).astype(np.float32)
    order = np.random.default_rng(4).permutation(QUERIES)
    got = [logits[:, order], boxes[:, order], relations[:, order][:, :, order]]
    orders = ["choice", "choice", f"{PAIRS}choice"]
    matching = in_order([logits, boxes, relations], got, orders)
    np.testing.assert_array_equal(matching.outputs[2], relations)


def test_what_is_not_finite_stays_where_it_is():
    fp32 = outputs()
    broken = [fp32[0] * np.nan, fp32[1]]
    columns, kept = match(fp32, broken)
    np.testing.assert_array_equal(columns, np.tile(np.arange(QUERIES), (IMAGES, 1)))
    assert not kept.any()
    assert numerics(fp32, broken).max_abs_error is None


@pytest.mark.parametrize("level", [0.05, 0.3, 1.0])
def test_pairs_cost_little_more_than_the_best_ones(level):
    optimize = pytest.importorskip("scipy.optimize")
    fp32 = outputs(queries=300)
    for want, got in zip(*map(per_image, (fp32, shuffled(noisy(fp32, level)))), strict=True):
        cost = distances(want, got)
        order = nearest(cost)
        assert sorted(order) == list(range(300))
        best = cost[optimize.linear_sum_assignment(cost)].sum()
        assert best * (1 - 1e-9) <= cost[np.arange(300), order].sum() <= 1.2 * best
