"""Photographs taken sideways: each source's models see what its own library makes of a file."""

import json
import shutil

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image
from sklearn.datasets import load_sample_images

import vitedge as ve
from vitedge.core.spec import Preprocess
from vitedge.core.toml import load_toml
from vitedge.data.header import read
from vitedge.data.open import open_images
from vitedge.models.preprocessing import from_timm, from_torchvision
from vitedge.models.sources.preprocessing_hf import from_hf

pytestmark = pytest.mark.usefixtures("peers")
SIDE = 48
PROCESSOR = {"image_processor_type": "ViTImageProcessor", "size": {"height": SIDE, "width": SIDE}}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A class folder of one photograph in EXIF's eight orientations, square: nothing is resized."""
    folder = tmp_path_factory.mktemp("photographs")
    picture = Image.fromarray(load_sample_images().images[0]).crop((200, 100, 248, 148))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        (folder / "a").mkdir(exist_ok=True)
        picture.save(folder / "a" / f"{orientation}.jpg", exif=exif, quality=95)
    return folder


def of_timm(folder):
    from timm.data import create_dataset

    return [image for image, _ in create_dataset("folder", folder)]


def of_torchvision(folder):
    from torchvision.datasets import ImageFolder

    return [image for image, _ in ImageFolder(folder)]


def of_transformers(folder):
    from transformers.image_utils import load_image

    return [load_image(str(file)) for file in sorted(folder.glob("a/*.jpg"))]


def torchvision_preprocess():
    from torchvision.models import ViT_B_16_Weights

    return from_torchvision(ViT_B_16_Weights.DEFAULT.transforms(), (0, 0))


@pytest.mark.parametrize(
    ("preprocess", "loader"),
    [
        (lambda: from_timm({"input_size": (3, 224, 224)}), of_timm),
        (torchvision_preprocess, of_torchvision),
        (lambda: from_hf(PROCESSOR, "vit", (SIDE, SIDE)), of_transformers),
    ],
    ids=["timm", "torchvision", "transformers"],
)
@pytest.mark.parametrize("role", ["calibration", "evaluation"])
def test_pixels_are_those_of_the_librarys_own_loader(photographs, preprocess, loader, role):
    spec = replace(preprocess(), height=SIDE, width=SIDE, resize="exact", resize_px=0)
    (batch,) = open_images(str(photographs), role, spec, ("a",)).batches(8)
    want = np.stack([np.asarray(image) for image in loader(photographs)])
    np.testing.assert_array_equal(batch.images, want)
    as_stored = spec.exif == "ignore"
    assert (batch.images == batch.images[:1]).all() == as_stored  # or the eight differ


@pytest.mark.parametrize("exif", ["apply", "ignore"])
def test_predictions_are_of_the_pixels_that_the_manifest_says(photographs, bundles, tmp_path, exif):
    folder = tmp_path / "bundle"
    shutil.copytree(bundles["onnxruntime", "fp32"], folder)
    stated = json.loads((folder / "manifest.json").read_text())
    assert stated["preprocessing"]["host"]["exif"] == "apply"
    stated["preprocessing"]["host"]["exif"] = exif
    (folder / "manifest.json").write_text(json.dumps(stated))
    file = photographs / "a" / "6.jpg"
    pixels = np.asarray(Image.open(file))
    with ve.open(folder) as bundle:
        as_stored, turned = bundle.predict([pixels, np.rot90(pixels, -1)])
        assert as_stored != turned
        predictions = bundle.predict([file, Image.open(file)])
    assert predictions == [turned if exif == "apply" else as_stored] * 2


def test_a_file_of_ones_own_may_say_so(tmp_path):
    (tmp_path / "p.toml").write_text('height = 8\nwidth = 8\nexif = "ignore"\n')
    assert load_toml(tmp_path / "p.toml", Preprocess).exif == "ignore"
    assert Preprocess(height=8, width=8).exif == "apply"


def test_a_header_has_the_size_that_is_decoded(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 10)).save(tmp_path / "a.jpg", exif=exif)
    for choice, size in (("apply", (10, 6)), ("ignore", (6, 10))):
        header = read(str(tmp_path / "a.jpg"), choice)
        assert header and (header.width, header.height) == size
