"""mAP is COCO's, and so is what a drop of it is known to."""

import contextlib
import io
import sys

import numpy as np
import pytest

from vitedge.core.errors import SharedError, UnavailableError
from vitedge.data.imageset import Objects
from vitedge.data.placement import Placement
from vitedge.measure.accuracy import average_precision
from vitedge.measure.accuracy.average_precision import Evaluation, drop_pp, padded
from vitedge.measure.accuracy.detection_score import MeanAveragePrecision

CASES = 200


def case(seed):
    """Objects and detections of a few images: crowds, equal scores, one class, no object."""
    random = np.random.default_rng(seed)
    classes = 1 if seed % 5 == 0 else random.integers(2, 5)
    objects, detections = [], []
    for _ in range(random.integers(1, 8)):
        count = random.integers(0, 6) if seed % 7 else random.integers(0, 2)
        boxes = drawn(random, count)
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * random.uniform(0.5, 1, count)
        crowds = random.random(count) < 0.2
        labels = random.integers(0, classes, count)
        objects.append(np.column_stack([labels, boxes, areas, crowds]))
        near = boxes[random.integers(0, max(count, 1), random.integers(0, 9) * bool(count))]
        near = near + random.normal(0, 4, near.shape) * (random.random((len(near), 1)) < 0.8)
        found = np.concatenate([near, drawn(random, random.integers(0, 5))])
        scores = np.round(random.random(len(found)), 1 if seed % 3 else 6)
        ranked = np.argsort(-scores, kind="stable")
        guesses = random.integers(0, classes, len(found))
        detections.append(np.column_stack([scores, guesses, found])[ranked])
    as_tables = [padded([x.astype(np.float32) for x in part]) for part in (objects, detections)]
    single = (np.concatenate(objects)[:, 6] == 0).any()
    return as_tables if single else case(seed + 1000)


def drawn(random, count):
    corner = random.uniform(0, 150, (count, 2))
    return np.concatenate([corner, corner + random.uniform(2, 120, (count, 2))], axis=1)


def peers(objects, detections):
    """COCO's summary by pycocotools; -1 where there is no such object."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def of(table, class_at, box_at, further):
        listed = []
        for image, place in np.argwhere(table[..., 0] >= 0).tolist():
            row = table[image, place].astype(float)
            left, top, right, bottom = row[box_at : box_at + 4].tolist()
            listed.append(
                {
                    "id": len(listed) + 1,
                    "image_id": image,
                    "category_id": int(row[class_at]),
                    "bbox": [left, top, right - left, bottom - top],
                    **further(row),
                }
            )
        return listed

    sides = []
    truth = of(objects, 0, 1, lambda row: {"area": row[5], "iscrowd": int(row[6])})
    found = of(detections, 1, 2, lambda row: {"score": row[0], "iscrowd": 0})
    for answer in found:
        answer["area"] = answer["bbox"][2] * answer["bbox"][3]
    for annotations in (truth, found):
        side = COCO()
        images = [{"id": image} for image in range(len(objects))]
        categories = [{"id": index, "name": str(index)} for index in range(9)]
        side.dataset = {"images": images, "categories": categories, "annotations": annotations}
        side.createIndex()
        sides.append(side)
    evaluation = COCOeval(*sides, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[:6]


def test_it_equals_pycocotools_on_random_cases():
    values = []
    for seed in range(CASES):
        objects, detections = case(seed)
        with contextlib.redirect_stdout(io.StringIO()):
            want = peers(objects, detections)
        got = Evaluation(objects, detections).summary()
        known = {name: x for name, x in zip(average_precision.SUMMARY, want, strict=True) if x >= 0}
        assert got == pytest.approx(known, abs=1e-6), seed
        values.append(got["map"])
    assert 0.1 < np.mean(values) < 0.9 and np.std(values) > 0.1  # and not all alike


def many(seed, images=60, noise=0.0):
    """Objects and detections of them that miss by `noise` pixels."""
    random = np.random.default_rng(seed)
    boxes = [drawn(random, random.integers(1, 5)) for _ in range(images)]
    labels = [random.integers(0, 3, len(x)) for x in boxes]
    scores = [random.random(len(x)) for x in boxes]
    areas = [np.prod(x[:, 2:] - x[:, :2], axis=1) for x in boxes]
    objects = [
        np.column_stack([*o, np.zeros(len(o[0]))]) for o in zip(labels, boxes, areas, strict=True)
    ]
    random = np.random.default_rng(seed + 1)
    moved = [x + random.normal(0, noise, x.shape) for x in boxes]
    detections = [np.column_stack(part) for part in zip(scores, labels, moved, strict=True)]
    return [padded([x.astype(np.float32) for x in part]) for part in (objects, detections)]


def test_part_of_the_images_is_evaluated_as_if_there_were_no_others():
    objects, detections = many(0, images=12, noise=5)
    kept = [1, 2, 5, 7, 11]
    alone = Evaluation(objects[kept], detections[kept]).summary()["map"]
    whole = Evaluation(objects, detections)
    assert whole.over(kept) == pytest.approx(alone, abs=1e-12)
    assert whole.over(range(12)) == pytest.approx(whole.summary()["map"], abs=1e-12)


def test_a_drop_is_within_its_interval_and_that_narrows_with_more_images():
    widths = []
    for images in (40, 160):
        objects, sharp = many(3, images, noise=3)
        _, blurred = many(3, images, noise=6)
        first, second = Evaluation(objects, sharp), Evaluation(objects, blurred)
        low, high = drop_pp(first, second, 0.95)
        drop = 100 * (first.summary()["map"] - second.summary()["map"])
        assert low < drop < high and drop > 5
        widths.append(high - low)
    assert widths[1] < 0.7 * widths[0]
    assert drop_pp(first, first, 0.95)[0] < 0 < drop_pp(first, first, 0.95)[1]
    assert drop_pp(*[Evaluation(objects[:9], sharp[:9])] * 2, 0.95) is None


def test_boxes_are_scored_in_the_photographs_pixels():
    place = Placement((1 / 200, 1 / 100), (0.0, 0.25), (200, 50))
    objects = Objects(
        np.array([[20, 10, 60, 30]], np.float32),
        np.array([2]),
        np.array([800], np.float32),
        np.array([False]),
        place,
    )
    labels = np.array([objects], object)
    found = np.array([[[0.9, 2, 0.1, 0.35, 0.3, 0.55]]], np.float32)
    score = MeanAveragePrecision()
    score.add(labels, found, found)
    result = score.result(0.95)
    assert result.value.artifact == result.value.fp32 == pytest.approx(1.0)
    assert result.artifact[0, 0].tolist() == pytest.approx([0.9, 2, 20, 10, 60, 30], abs=1e-4)
    assert set(result.also) == {"map_50", "map_75", "map_small"}
    missed = MeanAveragePrecision()
    missed.add(labels, found[..., [0, 1, 3, 2, 5, 4]], None)
    assert missed.result(0.95).value.artifact == 0


def test_images_without_an_object_measure_nothing():
    empty = np.full((3, 1, 7), -1, np.float32)
    crowd = np.array([[[0, 1, 1, 9, 9, 64, 1]]], np.float32)
    for objects in (empty, crowd):
        with pytest.raises(SharedError, match="no image has an object that is no crowd"):
            Evaluation(objects, np.full((len(objects), 1, 6), -1, np.float32))


def test_without_the_library_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UnavailableError) as caught:
        Evaluation(*many(0, images=1))
    assert "vitedge[detection]" in caught.value.fix
