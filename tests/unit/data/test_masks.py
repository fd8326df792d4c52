"""Masks lie on their images pixel by pixel, or are refused."""

import numpy as np
import pytest
from PIL import Image

from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess
from vitedge.data.open import open_images

INPUT = Preprocess(height=16, width=16, resize_px=20, interpolation="nearest")
CLASSES = ("sky", "sea", "land")


def write(folder, name, mask, mode="L"):
    """An image whose red channel is its mask times 50, losslessly, and the mask."""
    for part in ("images", "masks"):
        (folder / part).mkdir(exist_ok=True)
    pixels = np.stack([mask * 50, mask * 0, mask * 0], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    image = Image.fromarray(mask.astype(np.uint8))
    if mode == "P":
        image.putpalette([7, 8, 9] * 256)
    image.save(folder / "masks" / f"{name}.png")


def squares(seed, size=(40, 30)):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, (size[0] // 5, size[1] // 5)).repeat(5, 0).repeat(5, 1)


def open_masks(path):
    return open_images(str(path), "evaluation", INPUT, CLASSES, "segmentation")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_image_and_mask_are_resized_and_cropped_alike(tmp_path, mode):
    for index, size in enumerate([(40, 30), (30, 40), (25, 75)]):
        write(tmp_path, str(index), squares(index, size), mode)
    (batch,) = open_masks(tmp_path).batches(3)
    assert batch.labels.shape == (3, 16, 16)
    np.testing.assert_array_equal(batch.images[..., 0], batch.labels * 50)
    assert len(np.unique(batch.labels)) == 3


def test_ignored_pixels_stay_ignored(tmp_path):
    mask = squares(0)
    mask[:, ::2] = 255
    write(tmp_path, "a", mask)
    (batch,) = open_masks(tmp_path).batches(1)
    assert set(np.unique(batch.labels)) <= {-1, 0, 1, 2}
    assert (batch.labels == -1).any()


def test_an_npz_of_masks_is_the_folder_of_the_same(tmp_path):
    masks = np.stack([squares(seed) for seed in range(4)])
    for index, mask in enumerate(masks):
        write(tmp_path, str(index), mask)
    images = np.stack([np.asarray(Image.open(tmp_path / f"images/{i}.png")) for i in range(4)])
    np.savez(tmp_path / "a.npz", images=images, masks=masks)
    (files,), (arrays,) = open_masks(tmp_path).batches(4), open_masks(tmp_path / "a.npz").batches(4)
    np.testing.assert_array_equal(files.images, arrays.images)
    np.testing.assert_array_equal(files.labels, arrays.labels)
    assert files.digests == arrays.digests


def test_a_class_the_model_does_not_have_is_refused(tmp_path):
    write(tmp_path, "a", squares(0) + 1)
    with pytest.raises(InputError, match="holds class 3, and the model's classes are 0 to 2"):
        list(open_masks(tmp_path).batches(1))


def test_a_folder_without_images_says_how_it_should_look_and_images_without_masks_are_named(
    tmp_path,
):
    with pytest.raises(InputError, match="no images in") as caught:
        open_masks(tmp_path)
    assert "masks/" in caught.value.fix
    for name in "abc":
        write(tmp_path, name, squares(0))
    (tmp_path / "masks" / "b.png").unlink()
    with pytest.raises(InputError, match=r"1 images of .* have no mask: b"):
        open_masks(tmp_path)


def test_a_mask_of_another_size_or_kind_is_skipped_and_counted(tmp_path):
    for name in "abcd":
        write(tmp_path, name, squares(0))
    Image.fromarray(squares(0, (40, 35)).astype(np.uint8)).save(tmp_path / "masks" / "a.png")
    Image.new("RGB", (30, 40)).save(tmp_path / "masks" / "b.png")
    (tmp_path / "masks" / "c.png").write_bytes(b"not a PNG")
    images = open_masks(tmp_path)
    (batch,) = images.batches(4)
    assert len(batch.images) == 1
    assert images.skipped == {
        "of another size than its mask": 1,
        "with a mask of pixel format RGB, not 8-bit grey or palette": 1,
        "with a mask that is corrupt or no PNG": 1,
    }


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "missing"),
        ({"masks": np.zeros((2, 8, 8))}, "float64"),
        ({"masks": np.zeros((2, 8, 7), int)}, r"not integer \(2, 8, 8\)"),
    ],
)
def test_an_npz_without_fit_masks_is_refused(tmp_path, arrays, says):
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 8, 8, 3), np.uint8), **arrays)
    with pytest.raises(InputError, match=says):
        open_masks(tmp_path / "a.npz")


def test_calibration_looks_at_the_images_and_not_at_the_masks(tmp_path):
    for name in "abc":
        write(tmp_path, name, squares(ord(name)))
    images = open_images(str(tmp_path), "calibration", INPUT, CLASSES, "segmentation")
    assert len(images) == 3
    images = open_images(str(tmp_path / "images"), "evaluation", INPUT, (), "features")
    (batch,) = images.batches(3)  # features need no labels
    np.testing.assert_array_equal(batch.labels, [-1] * 3)


def test_digits_has_no_masks():
    with pytest.raises(InputError, match="'digits' has no masks"):
        open_images("digits", "evaluation", INPUT, CLASSES, "segmentation")


def test_more_than_255_classes_keep_their_indices(tmp_path):
    masks = np.full((1, 16, 16), 300)
    masks[0, 0] = -1
    np.savez(tmp_path / "a.npz", images=np.zeros((1, 16, 16, 3), np.uint8), masks=masks)
    exact = Preprocess(height=16, width=16, resize="exact")
    many = tuple(str(index) for index in range(400))
    data = str(tmp_path / "a.npz")
    (batch,) = open_images(data, "evaluation", exact, many, "segmentation").batches(1)
    assert set(np.unique(batch.labels)) == {-1, 300}
    with pytest.raises(InputError, match="holds class 300"):
        list(open_images(data, "evaluation", exact, CLASSES, "segmentation").batches(1))


def test_two_images_of_one_name_are_refused(tmp_path):
    write(tmp_path, "a", squares(0))
    (tmp_path / "images" / "a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="have one name"):
        open_masks(tmp_path)
