"""What logits and boxes say: scores by softmax or sigmoid, boxes by centre or corners."""

import numpy as np
import pytest

from vitedge.core.detections import box_likeness, check_shapes, detections, iou, rows
from vitedge.core.errors import InputError
from vitedge.core.spec import Detection

SOFTMAX, SIGMOID = Detection(scores="softmax"), Detection(scores="sigmoid")
CORNERS = Detection(scores="softmax", boxes="corners")
BOXES = np.array([[0.5, 0.5, 0.2, 0.4], [0.2, 0.3, 0.1, 0.1]], np.float32)


def test_a_softmax_gives_each_query_its_best_class_but_no_object():
    logits = np.log(np.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]], np.float32))
    found = detections(logits, BOXES, SOFTMAX)
    assert found.queries.tolist() == [1, 0] and found.classes.tolist() == [0, 1]
    assert found.scores == pytest.approx([0.6, 0.2])
    assert found.boxes[1] == pytest.approx([0.4, 0.3, 0.6, 0.7])


def test_a_sigmoid_may_give_a_query_several_classes():
    logits = np.array([[3.0, 2.0, -5.0], [1.0, -4.0, 2.0]], np.float32)
    found = detections(logits, BOXES, SIGMOID)
    assert found.queries.tolist() == [0, 0] and found.classes.tolist() == [0, 1]  # as many as two
    more = detections(logits, BOXES, Detection(scores="sigmoid", most=4))
    assert list(zip(more.queries.tolist(), more.classes.tolist(), strict=True)) == [
        *((0, 0), (0, 1), (1, 2), (1, 0)),
    ]


def test_boxes_that_are_corners_stay_so():
    logits = np.zeros((2, 3), np.float32)
    assert detections(logits, BOXES, CORNERS).boxes.tolist() == BOXES.tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_query_that_is_not_finite_detects_nothing(value):
    logits, boxes = np.zeros((2, 2, 3), np.float32), np.stack([BOXES, BOXES])
    boxes[0, 1, 2] = value
    logits[1, :, 0] = value
    for rule in (SOFTMAX, SIGMOID):
        table = rows([logits, boxes], rule)
        assert table.shape == (2, 2 if rule is SIGMOID else 1, 6)
        assert (table[1, :, 0] == -1).all() and table[0, 0, 0] > 0


def test_iou_of_boxes_pair_by_pair():
    first = np.array([[0, 0, 2, 2], [0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [2, 2, 0, 0]])
    second = np.array([[1, 0, 3, 2], [5, 5, 6, 6], [1, 1, 1, 1], [3, 3, 3, 3], [0, 0, 2, 2]])
    assert iou(first, second) == pytest.approx([1 / 3, 0, 1, 0, 0])


def test_boxes_count_by_how_sure_fp32_is_that_they_show_anything():
    logits = np.log(np.array([[[0.9, 0.05, 0.05], [0.05, 0.05, 0.9]]], np.float32))
    moved = BOXES[None].copy()
    moved[0, 1, 0] = 0.9  # of the query that shows nothing
    alike = box_likeness([logits, BOXES[None]], [logits, moved], SOFTMAX)
    assert alike.iou == pytest.approx(0.9 / 0.95)
    moved[0, 0] = np.nan
    assert box_likeness([logits, BOXES[None]], [logits, moved], SOFTMAX).iou == 0


def test_outputs_of_other_shapes_are_refused_with_what_they_should_be():
    logits, boxes = np.zeros((1, 5, 4)), np.zeros((1, 5, 4))
    check_shapes([logits, boxes], SOFTMAX, 3, "tiny")
    check_shapes([logits, boxes], SIGMOID, 4, "tiny")
    for outputs, rule in (([logits], SOFTMAX), ([logits, boxes[..., :2]], SOFTMAX)):
        with pytest.raises(InputError, match="boxes"):
            check_shapes(outputs, rule, 3, "tiny")
    with pytest.raises(InputError, match=r"logits \(B, queries, 4\) of 3 classes and no object"):
        check_shapes([logits[..., :3], boxes], SOFTMAX, 3, "tiny")
