"""What a user's images become: exact tensors, counted skips, or an error that says what to do."""

import hashlib
import re
import struct
import threading
import time
import zlib
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess
from vitedge.data.imageset import ImageSet
from vitedge.data.open import Arrays, has_labels, open_images

SIZE_8 = Preprocess(height=8, width=8)
CATS_AND_DOGS = ("cat", "dog")


def picture(height=8, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, pixels=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture() if pixels is None else pixels).save(path, **options)
    return path


def open_set(path, role="calibration", preprocess=SIZE_8, labels=CATS_AND_DOGS):
    return open_images(str(path), role, preprocess, labels)


def everything(images):
    (batch,) = images.batches(len(images))
    return batch


def decoded(file, preprocess=SIZE_8):
    """The one image of `file`'s folder."""
    batch = everything(open_set(file.parent, preprocess=preprocess))
    assert len(batch.images) == 1
    return np.asarray(batch.images[0])


def refusal(path, role="evaluation", **options):
    with pytest.raises(InputError) as caught:
        list(open_set(path, role, **options).batches(4))
    assert caught.value.fix
    return caught.value


# -- pixels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "PNG", "webp"])
def test_a_lossless_file_gives_its_own_pixels_and_their_digest(tmp_path, suffix):
    save(tmp_path / f"naïve file 名.{suffix}", lossless=True)
    np.testing.assert_array_equal(decoded(tmp_path / "x"), picture())
    expected = hashlib.sha256(picture().tobytes()).hexdigest()[:16]
    assert everything(open_set(tmp_path)).digests == (expected,)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "JPG"])
def test_a_jpeg_gives_the_pixels_pillow_decodes(tmp_path, suffix):
    file = save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(decoded(file), np.asarray(Image.open(file)))


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (6, lambda a: np.rot90(a, 3)),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_a_photo_taken_sideways_is_turned_upright(tmp_path, orientation, upright, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = save(tmp_path / f"a.{suffix}", picture(6, 10), exif=exif, lossless=True)
    expected = upright(picture(6, 10))
    size = Preprocess(height=expected.shape[0], width=expected.shape[1])
    np.testing.assert_array_equal(decoded(file, size), expected)


TWO_COLOURS = np.repeat(np.array([[255, 0, 7], [3, 200, 100]], np.uint8), 32, axis=0)
TWO_COLOURS = TWO_COLOURS.reshape(8, 8, 3)
GREY = picture()[:, :, 0]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(GREY), np.stack([GREY] * 3, axis=-1)),
        (Image.fromarray(GREY > 127), np.stack([(GREY > 127) * np.uint8(255)] * 3, axis=-1)),
        (Image.fromarray(TWO_COLOURS).quantize(2), TWO_COLOURS),
        (Image.fromarray(np.dstack([picture(), np.full((8, 8), 255, np.uint8)])), picture()),
    ],
    ids=["greyscale", "black and white", "palette", "opaque alpha"],
)
def test_an_image_of_another_mode_has_its_real_colours(tmp_path, image, expected):
    image.save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == image.mode != "RGB"
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), expected)


def test_16_bit_rgb_keeps_the_high_byte_of_each_channel(tmp_path):
    wide = np.random.default_rng(0).integers(0, 65536, (8, 8, 3)).astype(">u2")
    write_png(tmp_path / "a.png", wide)
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), (wide >> 8).astype(np.uint8))


def test_a_phone_picture_with_a_preview_behind_it_is_the_picture(tmp_path):
    preview = Image.fromarray(picture(seed=1))
    file = save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    with Image.open(file) as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
        np.testing.assert_array_equal(decoded(file), np.asarray(image))


def write_png(path, pixels, transparent=()):
    """A 16-bit RGB PNG, which Pillow reads but cannot write."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    key = chunk(b"tRNS", struct.pack(">3H", *transparent)) if transparent else b""
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + key
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# -- size ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_exact_squashes_with_the_filter_asked_for(tmp_path, name):
    file = save(tmp_path / "a.png", picture(20, 30))
    preprocess = Preprocess(height=8, width=6, resize="exact", interpolation=name)
    expected = Image.open(file).resize((6, 8), Image.Resampling[name.upper()])
    np.testing.assert_array_equal(decoded(file, preprocess), expected)


SIDE_10, WIDE = Preprocess(height=8, width=8, resize_px=10), Preprocess(height=8, width=16)


@pytest.mark.parametrize(
    ("size", "preprocess", "resized", "corner"),
    [
        ((20, 30), SIDE_10, (15, 10), (4, 1)),  # corner (15 - 8) / 2 = 3.5 rounds to even: 4
        ((37, 20), SIDE_10, (10, 18), (1, 5)),  # long side 10 · 37 / 20 = 18.5 is cut to 18
        ((3, 5), SIZE_8, (13, 8), (2, 0)),  # scaled up until it fills the crop
        ((4, 12), WIDE, (24, 8), (4, 0)),  # covered and no more
        ((12, 4), WIDE, (16, 48), (0, 20)),
        ((9, 9), WIDE, (16, 16), (0, 4)),
        ((16, 48), WIDE, (24, 8), (4, 0)),
    ],
)
def test_the_shorter_side_is_resized_and_the_centre_cropped_as_torchvision_does(
    tmp_path, size, preprocess, resized, corner
):
    file = save(tmp_path / "a.png", picture(*size))
    left, top = corner
    box = (left, top, left + preprocess.width, top + preprocess.height)
    expected = Image.open(file).resize(resized, Image.Resampling.BICUBIC).crop(box)
    np.testing.assert_array_equal(decoded(file, preprocess), expected)


# -- images that are skipped and counted --------------------------------------------------------


def truncated(file):
    file.write_bytes(save(file, picture(64, 64)).read_bytes()[:-40])


def animation(file):
    save(file, save_all=True, append_images=[Image.fromarray(picture(seed=1))])


def see_through(file):
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[3, 4] = 254
    save(file, np.dstack([picture(), alpha]), lossless=True)


def large(width, height):
    return lambda file: Image.new("1", (width, height)).save(file)


CORRUPT, TRANSPARENT = "corrupt, truncated or no image", "transparent"
UNUSABLE = {
    "no image": ("a.jpg", lambda file: file.write_bytes(b"not an image at all"), CORRUPT),
    "empty": ("a.png", Path.touch, CORRUPT),
    **{f"truncated {end}": (f"a.{end}", truncated, CORRUPT) for end in ("png", "jpg", "webp")},
    "a GIF named PNG": ("a.png", lambda file: save(file, format="GIF"), CORRUPT),
    "a dangling link": ("a.png", lambda file: file.symlink_to("nowhere"), "not a readable file"),
    "a bomb": ("a.png", large(8001, 8000), "too large"),
    "a bomb Pillow warns of": ("a.png", large(10_000, 10_000), "too large"),
    "a bomb Pillow refuses": ("a.png", large(20_000, 10_000), "too large"),
    "a sliver that would grow": ("a.png", large(9_000_000 // 8, 1), "too large"),
    "CMYK": ("a.jpg", lambda file: Image.new("CMYK", (8, 8)).save(file), "CMYK"),
    "16-bit greyscale": (
        *("a.png", lambda file: save(file, np.zeros((8, 8), np.uint16))),
        "of pixel format I;16",
    ),
    **{f"an animated {end}": (f"a.{end}", animation, "animated") for end in ("png", "webp")},
    **{f"see-through {end}": (f"a.{end}", see_through, TRANSPARENT) for end in ("png", "webp")},
    "see-through grey": ("a.png", lambda file: save(file, picture()[:, :, :2]), TRANSPARENT),
    "a palette with a see-through colour": (
        *("a.png", lambda file: Image.new("P", (8, 8)).save(file, transparency=0)),
        TRANSPARENT,
    ),
    "16 bits with a see-through colour": (
        *("a.png", lambda file: write_png(file, np.zeros((8, 8, 3), ">u2"), (256, 512, 768))),
        TRANSPARENT,
    ),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_image_is_skipped_and_counted_and_the_others_used(tmp_path, kind):
    name, write, reason = UNUSABLE[kind]
    write(tmp_path / name)
    save(tmp_path / "zzz_good.png", picture(seed=9))
    images = open_set(tmp_path)
    assert len(images) == 2
    for _ in range(2):  # counts start anew with each iteration
        np.testing.assert_array_equal(everything(images).images, [picture(seed=9)])
        assert images.skipped == {reason: 1}


def test_a_folder_where_every_image_is_unusable_is_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").touch()
    Image.new("CMYK", (8, 8)).save(tmp_path / "cat" / "b.jpg")
    Image.new("CMYK", (8, 8)).save(tmp_path / "cat" / "c.jpg")
    error = refusal(tmp_path)
    assert "none of the 3 images" in error.what
    assert "2 CMYK, 1 corrupt, truncated or no image" in error.what


# -- folders and their labels -------------------------------------------------------------------


def test_class_folders_are_found_by_the_models_names_in_any_order(tmp_path):
    save(tmp_path / "cat" / "deep" / "er" / "a.png", picture(seed=1))
    save(tmp_path / "dog" / "b.png", picture(seed=2))
    images = open_set(tmp_path, "evaluation", labels=("horse", "dog", "cat"))
    batch = everything(images)
    np.testing.assert_array_equal(batch.labels, [2, 1])
    np.testing.assert_array_equal(batch.images, [picture(seed=1), picture(seed=2)])


def test_folders_of_a_model_without_names_are_numbered_in_sorted_order(tmp_path):
    for name in ("n03", "n01", "n02"):
        save(tmp_path / name / "a.png")
    batch = everything(open_set(tmp_path, "evaluation", labels=("0", "1", "2")))
    np.testing.assert_array_equal(batch.labels, [0, 1, 2])


def test_imagenets_folders_are_in_the_order_of_its_classes(tmp_path):
    """Named by WordNet ID, which no model's labels are."""
    for name in ("n02123045", "n01440764", "n02084071"):
        save(tmp_path / name / "a.png")
    named = ("tench", "tabby", "dog")
    batch = everything(open_set(tmp_path, "evaluation", labels=named))
    np.testing.assert_array_equal(batch.labels, [0, 1, 2])
    assert "do not name a class" in refusal(tmp_path, labels=(*named, "newt")).what


def test_an_empty_class_folder_still_counts_as_a_class(tmp_path):
    (tmp_path / "n01").mkdir()
    save(tmp_path / "n02" / "a.png")
    batch = everything(open_set(tmp_path, "evaluation", labels=("0", "1")))
    np.testing.assert_array_equal(batch.labels, [1])


def test_hidden_files_and_folders_are_no_images_and_no_classes(tmp_path):
    save(tmp_path / "n01" / "a.png")
    (tmp_path / "n01" / "._a.png").touch()
    (tmp_path / "n01" / "notes.txt").touch()
    (tmp_path / ".git").mkdir()
    assert len(open_set(tmp_path, "evaluation", labels=("0",))) == 1


def test_linked_folders_are_followed_and_loops_are_not(tmp_path):
    save(tmp_path / "elsewhere" / "a.png")
    root = tmp_path / "set"
    root.mkdir()
    (root / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(root)
    assert len(open_set(root, "evaluation")) == 1


@pytest.mark.parametrize(
    ("folders", "labels", "what", "fix"),
    [
        ("fedcba", CATS_AND_DOGS, "6 class folders .* a, b, c, d, e, …", "cat, dog"),
        # ImageNet has two: the bird and the machine
        (["crane"], ("crane", "dog", "crane"), "crane", "labels.txt"),
        (["n01"], ("0", "1", "2"), "1 class folders and the model has 3 classes", "class index"),
    ],
)
def test_class_folders_that_are_not_the_models_are_refused(tmp_path, folders, labels, what, fix):
    for name in folders:
        save(tmp_path / name / "a.png")
    error = refusal(tmp_path, labels=labels)
    assert re.search(what, error.what) and fix in error.fix


def test_images_next_to_the_class_folders_are_not_evaluated(tmp_path):
    save(tmp_path / "cat" / "a.png")
    save(tmp_path / "stray.png")
    images = open_set(tmp_path, "evaluation")
    np.testing.assert_array_equal(everything(images).labels, [0])
    assert images.skipped == {"outside the class folders": 1}


def test_evaluation_needs_class_folders(tmp_path):
    save(tmp_path / "a.png")
    error = refusal(tmp_path)
    assert "no class folders" in error.what
    assert "class_name/" in error.fix


def test_calibration_takes_a_flat_folder_and_folders_of_any_name(tmp_path):
    save(tmp_path / "a.png")
    np.testing.assert_array_equal(everything(open_set(tmp_path)).labels, [-1])
    save(tmp_path / "monday" / "a.png")
    assert len(open_set(tmp_path)) == 2


@pytest.mark.parametrize("role", ["evaluation", "calibration"])
def test_an_empty_folder_is_refused(tmp_path, role):
    assert "no images" in refusal(tmp_path, role).what


def test_what_is_no_data_set_is_refused(tmp_path):
    error = refusal("digit")
    assert "there is no 'digit'" in error.what and "did you mean 'digits'?" in error.fix
    assert "class_name/" in refusal(tmp_path / "nope").fix
    assert "not a data set" in refusal(save(tmp_path / "a.png")).what


# -- npz ----------------------------------------------------------------------------------------


def savez(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


PAIR = np.stack([picture(seed=1), picture(seed=2)])


def test_an_npz_gives_its_own_pixels_and_labels(tmp_path):
    images = open_set(savez(tmp_path / "a.npz", images=PAIR, labels=[1, 0]), "evaluation")
    batch = everything(images)
    np.testing.assert_array_equal(batch.images, PAIR)
    np.testing.assert_array_equal(batch.labels, [1, 0])
    assert batch.labels.dtype == np.int64
    batch.images[:] = 0  # does not change the set
    np.testing.assert_array_equal(everything(images).images, PAIR)


def test_npz_images_of_another_size_are_resized(tmp_path):
    file = savez(tmp_path / "a.npz", images=picture(16, 24)[None], labels=[0])
    expected = Image.fromarray(picture(16, 24)).resize((12, 8), Image.Resampling.BICUBIC)
    (image,) = everything(open_set(file, "evaluation")).images
    np.testing.assert_array_equal(image, expected.crop((2, 0, 10, 8)))


def test_npz_images_of_the_input_size_still_get_the_crop_margin(tmp_path):
    file = savez(tmp_path / "a.npz", images=PAIR, labels=[0, 1])
    images = open_set(file, preprocess=SIDE_10)
    expected = Image.fromarray(PAIR[0]).resize((10, 10), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(everything(images).images[0], expected.crop((1, 1, 9, 9)))


def test_calibration_takes_an_npz_without_labels(tmp_path):
    batch = everything(open_set(savez(tmp_path / "a.npz", images=PAIR)))
    np.testing.assert_array_equal(batch.labels, [-1, -1])


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"labels": [0, 1]}, "no array 'images'"),
        ({"images": PAIR}, "no array 'labels'"),
        ({"images": PAIR / 255, "labels": [0, 1]}, "float64 (2, 8, 8, 3), not uint8"),
        ({"images": PAIR[..., 0], "labels": [0, 1]}, "uint8 (2, 8, 8), not uint8 (n, H, W, 3)"),
        ({"images": PAIR[:0], "labels": []}, "uint8 (0, 8, 8, 3)"),
        ({"images": PAIR, "labels": [0, 1, 1]}, "int64 (3,), not integer (2,)"),
        ({"images": PAIR, "labels": [0.0, 1.0]}, "float64 (2,), not integer (2,)"),
        ({"images": PAIR, "labels": [0, 2]}, "has 2, and the model's classes are 0 to 1"),
        ({"images": PAIR, "labels": [-1, 0]}, "has -1, and the model's classes are 0 to 1"),
        ({"images": PAIR, "labels": np.array(["cat", None])}, "says it holds objects"),
    ],
)
def test_an_npz_that_is_not_what_it_should_be_is_refused(tmp_path, arrays, complaint):
    assert complaint in refusal(savez(tmp_path / "a.npz", **arrays)).what


def test_an_npz_in_nchw_is_told_to_transpose(tmp_path):
    file = savez(tmp_path / "a.npz", images=PAIR.transpose(0, 3, 1, 2), labels=[0, 1])
    assert "transpose it from NCHW" in refusal(file).fix


def with_a_bit_error(data):
    return data[:200] + bytes([data[200] ^ 0xFF]) + data[201:]


@pytest.mark.parametrize(
    "damage",
    [*(itemgetter(slice(keep)) for keep in (0, 3, 100, -30)), with_a_bit_error],
    ids=["empty", "3 bytes", "100 bytes", "cut off", "a bit error"],
)
def test_a_damaged_npz_is_refused(tmp_path, damage):
    file = savez(tmp_path / "a.npz", images=PAIR, labels=[0, 1])
    file.write_bytes(damage(file.read_bytes()))
    assert "cannot read" in refusal(file).what


def test_a_single_array_renamed_to_npz_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", PAIR)
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    assert "cannot read" in refusal(tmp_path / "a.npz").what


# -- digits and random --------------------------------------------------------------------------

INPUT_32 = Preprocess(height=32, width=32)


def test_digits_are_split_so_that_no_image_is_in_both_roles():
    training = open_images("digits", "calibration", INPUT_32, ())
    held_out = open_images("digits", "evaluation", INPUT_32, ())
    assert (len(training), len(held_out)) == (1078, 719)
    assert not {*everything(training).digests} & {*everything(held_out).digests}


def test_digits_of_another_size_are_resized():
    image = next(open_images("digits", "evaluation", INPUT_32, ()).batches(1)).images[0]
    large = next(open_set("digits", "evaluation", Preprocess(height=48, width=48), ()).batches(1))
    expected = Image.fromarray(image).resize((48, 48), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(large.images[0], expected)


def test_random_is_the_same_noise_every_time():
    first, again = (everything(open_set("random")) for _ in range(2))
    np.testing.assert_array_equal(first.images, again.images)
    assert first.images.shape == (1000, 8, 8, 3)
    assert len(set(first.digests)) == 1000
    assert (first.labels == -1).all()


def test_no_accuracy_is_measured_on_other_classes_nor_on_noise():
    assert "10 classes and the model has 2" in refusal("digits").what
    assert "noise" in refusal("random").what


# -- iteration ----------------------------------------------------------------------------------


def folder_of(tmp_path, count, bad=()):
    for i in range(count):
        file = save(tmp_path / f"{i:03}.png", np.full((8, 8, 3), i, np.uint8))
        if i in bad:
            file.write_bytes(b"")
    return open_set(tmp_path)


def values(batches):
    return [batch.images[:, 0, 0, 0].tolist() for batch in batches]


def test_batches_keep_the_order_or_have_one_of_their_own(tmp_path):
    images = folder_of(tmp_path, 10, bad=[4])
    assert values(list(images.batches(4))) == [[0, 1, 2, 3], [5, 6, 7, 8], [9]]
    assert values(list(images.batches(2, order=[5, 0, 3]))) == [[5, 0], [3]]
    assert list(images.batches(2, order=[])) == []


def test_a_sample_is_drawn_without_replacement_and_by_seed(tmp_path):
    images = folder_of(tmp_path, 40)
    draws = [[v for (v,) in values(list(images.sample(10, seed)))] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 10
    assert draws[0] == [22, 20, 25, 4, 10, 15, 28, 11, 18, 29]  # on every machine, for ever


@pytest.mark.parametrize("count", [15, 99])
def test_a_sample_replaces_what_it_had_to_skip_while_there_is_more(tmp_path, count):
    images = folder_of(tmp_path, 40, bad=range(0, 40, 2))
    drawn = {v for (v,) in values(list(images.sample(count, seed=0)))}
    assert len(drawn) == min(count, 20) and all(v % 2 for v in drawn)
    assert images.skipped.total() > 0


def test_the_next_batch_is_decoded_while_this_one_is_used_but_no_further(tmp_path):
    used = []

    def load(index):
        used.append(index)
        return picture(seed=index), 0

    images = ImageSet("counting", 200, load, decodes=True)
    batches = images.batches(4)
    next(batches)
    deadline = time.monotonic() + 5
    while len(used) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 8 <= len(used) <= 4 + 4 + 2 * 4 + 1
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("vitedge-decode")]


def test_sets_in_memory_need_no_thread():
    before = threading.active_count()
    next(open_images("digits", "evaluation", INPUT_32, ()).batches(1))
    assert threading.active_count() == before


def test_labels_are_told_from_their_absence(tmp_path):
    save(tmp_path / "classes" / "cat" / "a.png")
    save(tmp_path / "flat" / "a.png")
    np.savez(tmp_path / "with.npz", images=picture()[None], labels=[0])
    np.savez(tmp_path / "without.npz", images=picture()[None])
    expected = {"classes": True, "flat": False, "with.npz": True, "without.npz": False}
    for name, there in expected.items():
        assert has_labels(str(tmp_path / name), "classification") == there, name
        assert has_labels(str(tmp_path / name), "features"), "which takes none"
    assert has_labels("digits", "classification")
    assert not has_labels(Arrays(picture()[None]), "classification")
    (tmp_path / "masked" / "masks").mkdir(parents=True)
    assert has_labels(str(tmp_path / "masked"), "segmentation")
    assert not has_labels(str(tmp_path / "flat"), "segmentation")
