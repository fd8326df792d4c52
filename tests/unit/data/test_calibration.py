"""The images a recipe calibrates on are those it promises, at every pass and on every machine."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from vitedge.core.errors import InputError
from vitedge.core.progress import Steps
from vitedge.core.spec import Calibration, Preprocess
from vitedge.data.calibration import POOL_IMAGES, CalibrationImages, farthest_points, thumbnail
from vitedge.data.decode import Skip
from vitedge.data.imageset import ImageSet
from vitedge.data.open import open_images

SELECTIONS = ("first", "random", "stratified", "diverse")
SIZE_16 = Preprocess(height=16, width=16)


def recipe(selection, count, seed=0):
    return Calibration(
        name="mine",
        description="a test's",
        num_samples=count,
        selection=selection,
        seed=seed,
        activations="minmax",
        weights="minmax",
    )


def chosen(images, selection, count, seed=0):
    """The images of a selection, after one pass over them."""
    calibration = CalibrationImages(images, recipe(selection, count, seed), Steps(None))
    assert all(len(image) == 1 for image in calibration)
    return calibration


def noise(index):
    """An image that says which one it is."""
    image = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image[0, 0] = index // 256, index % 256, 0
    return image


def numbered(classes, bad=(), used=id):
    """Noise, one image for each entry of `classes`; those in `bad` are unusable."""

    def load(index):
        used(index)
        if index in bad:
            raise Skip("corrupt, truncated or no image")
        return noise(index), classes[index]

    return ImageSet("numbered", len(classes), load, decodes=True, strata=classes)


def indices(images):
    """Which images of `numbered` these are."""
    return [256 * int(image[0, 0, 0, 0]) + int(image[0, 0, 0, 1]) for image in images]


# -- every selection ----------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [(), range(0, 100, 3)], ids=["all usable", "a third unusable"])
@pytest.mark.parametrize("selection", SELECTIONS)
def test_every_pass_has_the_same_images_and_the_record_names_them(selection, bad):
    images = chosen(numbered([i % 4 for i in range(100)], bad), selection, 24)
    passes = [list(images) for _ in range(3)]
    next(iter(images))  # a look at one of them is no pass
    for later in passes[1:]:
        np.testing.assert_array_equal(passes[0], later)
    digests = [hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in passes[0]]
    record = images.record()
    assert record.image_digests == tuple(digests)
    assert len(set(digests)) == record.images == 24
    assert record.digest == hashlib.sha256("".join(digests).encode()).hexdigest()
    assert record.recipe.selection == selection
    assert bool(record.skipped) == bool(bad)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_the_same_seed_gives_the_same_digest_and_another_another(selection):
    digits = open_images("digits", "calibration", SIZE_16, ())
    digests = [chosen(digits, selection, 20, seed).record().digest for seed in (0, 0, 1, 2)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == (1 if selection == "first" else 3)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_set_that_is_too_small_is_used_whole(selection):
    images = chosen(numbered([0, 0, 0, 1, 1, -1, 2], bad=[3]), selection, 50)
    assert sorted(indices(images)) == [0, 1, 2, 4, 5, 6]
    assert images.record().skipped == {"corrupt, truncated or no image": 1}


@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_set_without_one_usable_image_is_refused(selection):
    with pytest.raises(InputError, match="none of the 9 images of 'numbered' is usable: 9 corrupt"):
        chosen(numbered([0] * 9, bad=range(9)), selection, 4)


# -- first and random ---------------------------------------------------------------------------


def test_first_takes_the_sets_own_order_and_random_the_one_it_always_had():
    assert indices(chosen(numbered([0] * 40, bad=[1, 2]), "first", 5)) == [0, 3, 4, 5, 6]
    images = chosen(numbered([0] * 40), "random", 10)
    assert indices(images) == [22, 20, 25, 4, 10, 15, 28, 11, 18, 29]


# -- stratified ---------------------------------------------------------------------------------


def count_of_each(classes, calibration):
    return dict(Counter(classes[i] for i in indices(calibration)))


def test_stratified_balances_where_random_does_not():
    classes = [0] * 900 + [1] * 60 + [2] * 40
    random = count_of_each(classes, chosen(numbered(classes), "random", 30))
    stratified = count_of_each(classes, chosen(numbered(classes), "stratified", 30))
    assert random[0] > 20
    assert stratified == {0: 10, 1: 10, 2: 10}


@pytest.mark.parametrize("seed", range(3))
def test_classes_that_run_out_leave_their_share_to_the_others(seed):
    classes = [0] * 90 + [1] * 7 + [2] * 2 + [-1] * 90
    counts = count_of_each(classes, chosen(numbered(classes), "stratified", 29, seed))
    assert counts == {0: 10, 1: 7, 2: 2, -1: 10}
    classes = [i % 2 for i in range(40)]
    bad = [i for i in range(40) if classes[i] and i > 4]
    calibration = chosen(numbered(classes, bad), "stratified", 12, seed)
    assert count_of_each(classes, calibration) == {0: 10, 1: 2}


def test_with_fewer_images_than_classes_each_is_of_another_class():
    classes = [i % 50 for i in range(500)]
    counts = [count_of_each(classes, chosen(numbered(classes), "stratified", 8, s)) for s in (0, 1)]
    assert [set(count.values()) for count in counts] == [{1}, {1}]
    assert set(counts[0]) != set(counts[1])


@pytest.mark.parametrize("seed", range(5))
def test_an_unusable_image_is_replaced_by_one_of_its_class(seed):
    classes = [i % 5 for i in range(200)]
    bad = [i for i in range(200) if classes[i] == 3 and i % 3] + list(range(0, 200, 25))
    calibration = chosen(numbered(classes, bad), "stratified", 20, seed)
    assert count_of_each(classes, calibration) == dict.fromkeys(range(5), 4)


def test_stratified_decodes_no_more_than_it_takes():
    used = []
    calibration = chosen(numbered([i % 7 for i in range(5000)], used=used.append), "stratified", 30)
    assert len(used) == calibration.record().images == 30


@pytest.mark.parametrize("labels", [("cat", "dog"), ("newt", "toad", "frog")], ids=str)
def test_class_folders_and_npz_labels_are_the_classes_known_to_the_model_or_not(tmp_path, labels):
    pictures, classes = [noise(i) for i in range(24)], [7] * 20 + [9] * 4
    for index, picture in enumerate(pictures):
        file = tmp_path / "folder" / ("cat" if classes[index] == 7 else "dog") / f"{index:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
    np.savez(tmp_path / "set.npz", images=np.stack(pictures), labels=np.array(classes))
    for path in (tmp_path / "folder", tmp_path / "set.npz"):
        images = open_images(str(path), "calibration", SIZE_16, labels)
        assert count_of_each(classes, chosen(images, "stratified", 8)) == {7: 4, 9: 4}


def test_stratified_without_labels_is_refused(tmp_path):
    Image.fromarray(noise(0)).save(tmp_path / "a.png")
    np.savez(tmp_path / "set.npz", images=np.stack([noise(0)] * 3))
    for path in (str(tmp_path), str(tmp_path / "set.npz"), "random", "shapes"):
        images = open_images(path, "calibration", SIZE_16, ())
        with pytest.raises(InputError) as refused:
            CalibrationImages(images, recipe("stratified", 4), Steps(None))
        assert f"'{path}' have no labels" in refused.value.what and "'mine'" in refused.value.what
        assert '"random" or "diverse"' in refused.value.fix


# -- diverse ------------------------------------------------------------------------------------


def lopsided(copies=1):
    """950 images of nearly one kind and 50 of ten others, each so many times; and their kinds."""
    rng = np.random.default_rng(5)
    kinds = rng.integers(0, 256, (11, 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    kind_of = [0] * 950 + [1 + i % 10 for i in range(50)]
    rng.shuffle(kind_of)
    kind_of *= copies

    def load(index):
        jitter = np.random.default_rng(index % 1000).integers(-6, 7, (16, 16, 3))
        return np.clip(kinds[kind_of[index]] + jitter, 0, 255).astype(np.uint8), kind_of[index]

    return ImageSet("lopsided", len(kind_of), load, decodes=False, strata=kind_of), kind_of


@pytest.mark.parametrize("seed", range(3))
def test_diverse_takes_every_rare_kind_where_random_misses_most(seed):
    images, kind_of = lopsided()
    digest_of = {b.digests[0]: kind_of[i] for i, b in enumerate(images.batches(1))}
    kinds = {
        selection: {
            digest_of[d] for d in chosen(images, selection, 16, seed).record().image_digests
        }
        for selection in ("random", "diverse")
    }
    assert kinds["diverse"] == set(range(11))
    assert len(kinds["random"]) < 6


def test_diverse_covers_real_images_better_than_random():
    """How far the image worst represented is from the nearest one chosen."""
    digits = open_images("digits", "calibration", SIZE_16, ())
    every = np.stack([thumbnail(batch.images[0]) for batch in digits.batches(1)])
    farthest = {}
    for selection in ("random", "diverse"):
        thumbnails = np.stack([thumbnail(image[0]) for image in chosen(digits, selection, 32)])
        to_nearest = [np.square(thumbnails - features).sum(axis=1).min() for features in every]
        farthest[selection] = max(to_nearest)
    assert farthest["diverse"] < 0.8 * farthest["random"]


def test_diverse_decodes_a_bounded_pool_once():
    used = []
    images = chosen(numbered([0] * 20_000, used=used.append), "diverse", 10)
    assert len(set(used)) <= POOL_IMAGES + 2 * 4 + 1  # and what threads decode ahead
    before = len(used)
    list(images)
    assert len(used) - before == 10


def test_a_recipe_for_many_images_has_a_pool_to_choose_from():
    four_times, _ = lopsided(copies=4)
    record = chosen(four_times, "diverse", 900).record()
    assert len(set(record.image_digests)) == 900


def test_the_farthest_point_is_taken_first_and_none_twice():
    points = np.array([[0], [1], [10], [4], [0]], np.int32)
    assert farthest_points(points, 3) == [0, 2, 3]
    assert farthest_points(points, 99) == [0, 2, 3, 1, 4]
    assert farthest_points(np.zeros((4, 2), np.int32), 4) == [0, 1, 2, 3]


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 9, 3), (37, 64, 3), (224, 224, 3)], ids=str)
def test_a_thumbnail_is_mean_and_contrast_of_an_image_of_any_size(shape):
    grey = thumbnail(np.full(shape, 100, np.uint8))
    np.testing.assert_array_equal(grey, [100] * 192 + [0] * 192)


def test_a_thumbnail_tells_texture_from_plain_colour():
    checked = np.indices((32, 32)).sum(axis=0) % 2 * 200
    textured = thumbnail(np.stack([checked] * 3, axis=-1).astype(np.uint8))
    np.testing.assert_array_equal(textured, 100)


# -- what means nothing -------------------------------------------------------------------------


def in_memory(pictures):
    strata = [0] * len(pictures)
    return ImageSet("mine", len(pictures), lambda i: (pictures[i], 0), decodes=False, strata=strata)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_images_of_one_colour_each_or_all_the_same_are_refused(selection):
    for count in (1, 6):
        plain = [np.full((16, 16, 3), (i, 9, 200), np.uint8) for i in range(count)]
        for pictures in (plain, [np.zeros((16, 16, 3), np.uint8)] * count):
            with pytest.raises(InputError, match="image of 'mine' is blank: one colour") as said:
                chosen(in_memory(pictures), selection, 4)
            assert said.value.fix
    with pytest.raises(InputError, match="the 4 calibration images of 'mine' are all the same"):
        chosen(in_memory([noise(3)] * 6), selection, 4)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_one_image_is_no_mistake_nor_are_some_blank_or_double_ones(selection):
    pictures = [np.zeros((16, 16, 3), np.uint8)] * 3 + [noise(3)] * 2
    for images, count in ((in_memory([noise(3)]), 1), (in_memory(pictures), 5)):
        assert chosen(images, selection, 5).record().images == count


@pytest.mark.parametrize("selection", ["first", "random", "diverse"])
def test_noise_is_no_mistake(selection):
    images = open_images("random", "calibration", SIZE_16, ())
    assert chosen(images, selection, 5).record().images == 5
