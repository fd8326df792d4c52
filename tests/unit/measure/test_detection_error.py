"""How far detections are from FP32's, and on which images most."""

import numpy as np
import pytest

from vitedge.core.spec import Detection
from vitedge.measure.accuracy.output_error import OutputErrors
from vitedge.measure.accuracy.worst_images import SCENE_PX, WorstImages

RULE = Detection(scores="sigmoid")
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 2, (6, 10, 3)).astype(np.float32)
BOXES = RANDOM.uniform(0.2, 0.8, (6, 10, 4)).astype(np.float32)


def numerics(logits, boxes, orders=()):
    errors = OutputErrors(["logits", "boxes"], "detection", orders, RULE)
    fp32 = [LOGITS, BOXES]
    errors.update(fp32, errors.matched(fp32, [logits, boxes]))
    return errors.result("random")


def test_equal_outputs_are_equal_detections():
    found = numerics(LOGITS, BOXES).detections
    assert (found.box_iou, found.top_overlap, found.top) == (1, 1, 10)


def test_boxes_that_move_show_in_their_iou_and_not_in_the_logits():
    result = numerics(LOGITS, BOXES + np.float32(0.05))
    assert result.sqnr_db is None and result.outputs["boxes"].sqnr_db > 15
    assert 0.3 < result.detections.box_iou < 0.9 and result.detections.top_overlap == 1


def test_scores_that_change_sides_show_in_the_overlap():
    noise = np.random.default_rng(1).normal(0, 1, LOGITS.shape).astype(np.float32)
    found = numerics(LOGITS + noise, BOXES).detections
    assert found.box_iou == 1 and 0.5 < found.top_overlap < 1


def test_queries_in_another_order_are_matched_first():
    turned = (LOGITS[:, ::-1].copy(), BOXES[:, ::-1].copy())
    assert numerics(*turned, orders=("topk", "topk")).detections.box_iou == pytest.approx(1)
    assert numerics(*turned).detections.box_iou < 0.5


def test_the_worst_images_are_those_whose_detections_changed_most():
    fp32 = np.tile(np.array([[0.9, 1, 0.1, 0.1, 0.5, 0.5]], np.float32), (5, 1, 1))
    artifact = fp32.copy()
    artifact[1, 0, 0] = 0.7  # less sure
    artifact[2, 0, 2:] += 0.3  # elsewhere
    artifact[3, 0, 1] = 0  # another class
    artifact[4, 0, 0] = -1  # nothing
    worst = WorstImages("detection")
    images = np.zeros((5, 320, 320, 3), np.uint8)
    worst.add(images, np.zeros(5), artifact, fp32)
    places, thumbnails = worst.result()
    assert places.tolist() == [3, 4, 2, 1] and thumbnails.shape[1:] == (SCENE_PX, SCENE_PX, 3)
