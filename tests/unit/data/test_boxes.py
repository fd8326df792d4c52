"""Boxes come from COCO's format or an .npz, in the photograph's pixels, and none that cannot be."""

import json

import numpy as np
import pytest
from PIL import Image

from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess
from vitedge.data.geometry import fit
from vitedge.data.open import has_labels, open_images
from vitedge.data.placement import placement

SQUARE = Preprocess(height=32, width=32, resize="exact")
LABELS = ("cat", "dog")
SIZE = (40, 20)


def coco(folder, annotations=(), categories=((7, "dog"), (3, "cat")), files=("a.png", "b.png")):
    """A COCO folder with images of SIZE, those of `files` that begin with a letter before m."""
    (folder / "images").mkdir()
    for name in files:
        if name < "m":
            Image.new("RGB", SIZE, (9, 9, 200)).save(folder / "images" / name)
    sides = {"width": SIZE[0], "height": SIZE[1]}
    listed = [{"id": i, "file_name": name, **sides} for i, name in enumerate(files)]
    content = {
        "images": listed,
        "annotations": [
            {"id": i, "image_id": 0, "category_id": 7, "bbox": [1, 2, 10, 5]} | annotation
            for i, annotation in enumerate(annotations)
        ],
        "categories": [{"id": key, "name": name} for key, name in categories],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return str(folder)


def opened(path, labels=LABELS, preprocess=SQUARE):
    return open_images(path, "evaluation", preprocess, labels, "detection")


def refusal(path, **options):
    with pytest.raises(InputError) as caught:
        opened(path, **options)
    return caught.value.what + caught.value.fix


def test_a_coco_folder_gives_objects_of_the_models_classes(tmp_path):
    crowd = {"category_id": 3, "bbox": [0, 0, 40, 20], "iscrowd": 1, "area": 5}
    images = opened(coco(tmp_path, [{}, crowd], files=("a.png", "b.png", "z.png")))
    (batch,) = images.batches(8)
    first, second = batch.labels
    assert first.boxes.tolist() == [[1, 2, 11, 7], [0, 0, 40, 20]]
    assert first.classes.tolist() == [1, 0] and first.areas.tolist() == [50, 5]
    assert first.crowds.tolist() == [False, True] and second.boxes.shape == (0, 4)
    assert images.skipped == {"listed and missing": 1} and first.placement.size == SIZE
    assert has_labels(str(tmp_path), "detection")


def test_calibration_takes_the_images_alone(tmp_path):
    images = open_images(coco(tmp_path), "calibration", SQUARE, LABELS, "detection")
    assert [len(batch.images) for batch in images.batches(8)] == [2]


def test_an_npz_gives_the_same_as_coco(tmp_path):
    path = tmp_path / "set.npz"
    arrays = {"boxes": [[1, 2, 10, 5], [3, 3, 4, 4]], "box_classes": [1, 0], "box_images": [1, 1]}
    np.savez(path, images=np.zeros((2, 20, 40, 3), np.uint8), **arrays)
    (batch,) = opened(str(path)).batches(4)
    assert batch.labels[0].boxes.shape == (0, 4)
    assert batch.labels[1].boxes.tolist() == [[1, 2, 11, 7], [3, 3, 7, 7]]
    assert batch.labels[1].classes.tolist() == [1, 0] and not batch.labels[1].crowds.any()


def test_categories_without_names_go_by_order_or_by_id(tmp_path):
    path = coco(tmp_path, [{}, {"category_id": 3}])
    numbers = tuple(map(str, range(2)))
    assert next(opened(path, numbers).batches(1)).labels[0].classes.tolist() == [1, 0]
    ninety = tuple(map(str, range(91)))
    assert next(opened(path, ninety).batches(1)).labels[0].classes.tolist() == [7, 3]
    assert "2 categories with ids up to 7" in refusal(path, labels=("0", "1", "2"))


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        ({"bbox": [1, 2, 0, 5]}, "1 box is empty or reversed: annotation 0 of image 0"),
        ({"bbox": [9, 9, -3, 5]}, "empty or reversed"),
        ({"bbox": [40, 2, 5, 5]}, "1 box is outside the image"),
        ({"bbox": [1, -9, 5, 5]}, "outside the image"),
        ({"bbox": [1, 2, 3]}, "$.annotations[0].bbox"),
        ({"image_id": 5}, "1 annotations are of no image that it lists"),
        ({"category_id": 5}, "of no category that it lists"),
        ({"bbox": [1, 2, 1e400, 5]}, "not as COCO's are"),
    ],
)
def test_boxes_that_no_object_can_have_are_refused_by_name(tmp_path, annotation, says):
    assert says in refusal(coco(tmp_path, [annotation]))


def test_categories_that_are_no_class_of_the_model_are_named(tmp_path):
    path = coco(tmp_path, [{}], categories=((7, "horse"), (3, "cat")))
    said = refusal(path)
    assert "1 categories" in said and "horse" in said and "(cat, dog, …)" in said


def test_a_category_that_no_annotation_is_of_does_not_matter(tmp_path):
    path = coco(tmp_path, [{}], categories=((7, "dog"), (3, "horse")))
    assert next(opened(path).batches(1)).labels[0].classes.tolist() == [1]


def test_what_is_no_coco_is_refused(tmp_path):
    assert "annotations.json" in refusal(str(tmp_path)) and "COCO" in refusal(str(tmp_path))
    (tmp_path / "annotations.json").write_text("[]")
    assert "is not as COCO's are" in refusal(str(tmp_path))
    (tmp_path / "annotations.json").write_text('{"images":[],"annotations":[],"categories":[]}')
    assert "lists no image" in refusal(str(tmp_path))


def test_ids_that_two_images_share_are_refused(tmp_path):
    path = coco(tmp_path)
    content = json.loads((tmp_path / "annotations.json").read_text())
    content["images"][1]["id"] = 0
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    assert "images share an id: 0" in refusal(path)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"boxes": [[1, 2, 3, 4]]}, "no array 'box_classes'"),
        ({"boxes": [[1, 2, 3]], "box_classes": [0], "box_images": [0]}, "not numbers (1, 4)"),
        ({"boxes": [[1, 2, 3, 4]], "box_classes": [0.5], "box_images": [0]}, "not integer (1,)"),
        ({"boxes": [[1, 2, 3, 4]], "box_classes": [2], "box_images": [0]}, "classes are 0 to 1"),
        ({"boxes": [[1, 2, 3, 4]], "box_classes": [0], "box_images": [9]}, "images are 0 to 1"),
        ({"boxes": [[1, 2, np.nan, 4]], "box_classes": [0], "box_images": [0]}, "not finite"),
    ],
)
def test_arrays_that_are_no_boxes_are_refused(tmp_path, arrays, says):
    path = tmp_path / "set.npz"
    np.savez(path, images=np.zeros((2, 20, 40, 3), np.uint8), **arrays)
    assert says in refusal(str(path))


PLACED = {
    "exact": {},
    "padded at the end": {"resize": "inside", "pad": "end"},
    "padded around": {"resize": "inside", "pad": "center"},
    "square": {"pad": "square"},
    "cropped": {"resize": "shorter_side", "resize_px": 80},
    "cut": {"crop_share": 0.8},
    "person": {"resize": "box", "interpolation": "bilinear"},
}


@pytest.mark.parametrize("rule", PLACED)
@pytest.mark.parametrize("size", [(90, 60), (61, 83)])
def test_a_box_in_the_input_lies_where_its_pixels_came_from(rule, size):
    preprocess = Preprocess(height=72, width=72, **({"resize": "exact"} | PLACED[rule]))
    box = np.array([22, 18, 50, 44])
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    bright = fit(Image.fromarray(pixels), preprocess)[..., 0] >= 128
    rows, columns = (np.flatnonzero(bright.any(axis=axis)) for axis in (1, 0))
    edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 72
    place = placement(size, preprocess)
    tolerance = 0.75 / min(place.scale) / 72
    assert np.abs(place.in_pixels(edges) - box).max() <= tolerance
