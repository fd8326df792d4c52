"""`vitedge check-data` as a user types it, on photographs and what goes wrong with them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

import vitedge as ve

DIGITS = [str(number) for number in range(10)]


def tile(seed, size=96):
    """A piece of a photograph, another one for each seed."""
    photo = load_sample_image(("china.jpg", "flower.jpg")[seed % 2])
    rng = np.random.default_rng(seed)
    top, left = (int(rng.integers(0, side - size)) for side in photo.shape[:2])
    return Image.fromarray(photo[top : top + size, left : left + size])


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path):
    """Two classes of four sound images each."""
    for seed in range(8):
        save(tmp_path / "photos" / ("cat", "dog")[seed % 2] / f"{seed}.png", tile(seed))
    return tmp_path / "photos"


def findings(check):
    """What was found, with its severity, how often, and the names of examples."""
    return {
        finding["what"]: (
            finding["severity"],
            finding["count"],
            [Path(example).name for example in finding["examples"]],
        )
        for finding in check["findings"]
    }


def test_a_sound_set_is_ready(vitedge, photos):
    check = vitedge("check-data", photos, "--json").document
    assert (check["images"], check["usable"], check["used_as"]) == (8, 8, "evaluation")
    assert check["classes"] == [{"name": "cat", "images": 4}, {"name": "dog", "images": 4}]
    assert check["width_px"] == check["height_px"] == [96, 96, 96]
    assert check["modes"] == {"RGB": 8} and check["findings"] == []
    text = vitedge("check-data", photos).stdout
    assert "ready for evaluation" in text and "96 pixels" in text and "median" not in text


def test_every_file_that_is_not_read_as_it_is_has_its_reason(vitedge, photos):
    cats = photos / "cat"
    whole = save(cats / "whole.jpg", tile(20)).read_bytes()
    (cats / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (cats / "empty.png").write_bytes(b"")
    save(cats / "page.jpg", tile(21), format="GIF")
    save(cats / "print.jpg", tile(22).convert("CMYK"))
    save(cats / "deep.png", Image.fromarray(np.arange(96 * 96, dtype=np.uint16).reshape(96, 96)))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(cats / "lying.jpg", tile(23).crop((0, 0, 96, 64)), exif=exif)
    save(cats / "grey.png", tile(24).convert("L"))
    save(cats / "clear.png", tile(25).convert("RGBA"))
    save(cats / "flat.png", Image.new("RGB", (96, 96), "red"))
    save(cats / "sliver.png", tile(26).crop((0, 0, 96, 8)))
    save(cats / "notes.gif", tile(27))
    (cats / ".DS_Store").write_bytes(b"x")
    os.symlink(cats / "0.png", cats / "link.png")
    os.symlink(cats / "nowhere.png", cats / "broken.png")
    check = vitedge("check-data", photos, "--json").document
    found = findings(check)
    assert found["skipped: corrupt, truncated or no image"] == (
        *("warning", 3),
        ["cut.jpg", "empty.png (0 bytes)", "page.jpg (GIF)"],
    )
    assert found["skipped: CMYK"] == ("warning", 1, ["print.jpg"])
    assert found["skipped: of pixel format I;16"] == ("warning", 1, ["deep.png"])
    assert found["skipped: not a readable file"][1] == 1
    assert found["turned upright, as their EXIF orientation says"] == ("info", 1, ["lying.jpg"])
    (photos.parent / "as_stored.toml").write_text('height = 96\nwidth = 96\nexif = "ignore"\n')
    asked = ("--model", "vit_tiny_patch16_224", "--preprocess", photos.parent / "as_stored.toml")
    stored = findings(vitedge("check-data", photos, *asked, "--json", code=2).document)
    ignored = "left as stored: the model's library ignores their EXIF orientation"
    assert stored[ignored] == ("info", 1, ["lying.jpg"])
    assert found["one colour all over"] == ("warning", 1, ["flat.png"])
    assert found["other files, not read (1 .gif)"] == ("info", 1, ["notes.gif"])
    assert found["hidden, not read"] == ("info", 1, [".DS_Store"])
    assert found["links to files elsewhere"][1] == 2
    assert found["copies of another image"][1] == 1
    assert any(what.startswith("over 4 times") for what in found)
    assert check["modes"]["L"] == check["modes"]["RGBA"] == check["modes"]["CMYK"] == 1
    assert check["images"] - check["usable"] == sum(check["skipped"].values()) == 6
    # and it is what an export would skip
    from vitedge.data.open import open_images

    images = open_images(
        str(photos), "evaluation", ve.Preprocess(height=224, width=224, resize="exact"), ()
    )
    assert sum(len(batch.images) for batch in images.batches(4)) == check["usable"]
    assert dict(images.skipped) == check["skipped"]


def test_one_image_in_two_classes_is_a_conflict(vitedge, photos):
    with Image.open(photos / "cat" / "0.png") as image:
        save(photos / "dog" / "copy.webp", image, lossless=True)
    found = findings(vitedge("check-data", photos, "--json").document)
    assert found["one image in several classes"][:2] == ("warning", 1)
    text = vitedge("check-data", photos).stdout
    assert "copy.webp" in text and "1 warning" in text


@pytest.mark.parametrize(
    ("folders", "code", "says"),
    [
        (DIGITS, 0, []),
        (DIGITS[:9], 0, ["classes of the model's 10 that have no images here"]),
        ([str(number + 1) for number in range(10)], 0, ["taken in the order of text"]),
        (["cat", *DIGITS[1:9]], 2, ["1 of 9 class folders name no class"]),
        ([], 0, ["for calibration only"]),
    ],
)
def test_classes_against_a_models_labels(vitedge, tmp_path, folders, code, says):
    for number, folder in enumerate(folders or ["."]):
        save(tmp_path / "set" / folder / "a.png", tile(number))
    ran = vitedge("check-data", tmp_path / "set", "--model", "digits", "--json", code=code)
    found = findings(ran.document)
    assert all(any(text in what for what in found) for text in says), found
    assert bool(ran.stderr) == (code == 2) and (says or not found)


def test_names_that_differ_in_case_are_told_with_what_they_should_be(photos):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 32), torch.nn.Flatten())
    size = ve.Preprocess(height=32, width=32)
    model = ve.load(module, preprocess=size, labels=["Cat", "dog"])
    check = ve.check_data(photos, model=model)
    (error,) = check.errors
    assert error.exit_code == 2 and f"'{photos}'" in error.what and "(cat → Cat)" in error.what
    (finding,) = check.findings
    assert finding.examples == ("cat → Cat",)
    renamed = ve.load(module, preprocess=size, labels=["cat", "dog"])
    assert ve.check_data(photos, model=renamed).findings == ()


def test_an_artifact_and_a_name_read_alike(vitedge, bundles, held_out, tmp_path):
    images, labels = held_out.images[:40], held_out.labels[:40]
    np.savez(tmp_path / "val.npz", images=images, labels=labels)
    by_name = vitedge("check-data", tmp_path / "val.npz", "--model", "digits", "--json").document
    artifact = bundles["onnxruntime", "int8"]
    by_artifact = vitedge(
        "check-data", tmp_path / "val.npz", "--model", artifact, "--json"
    ).document
    assert by_name["classes"] == by_artifact["classes"] and by_name["findings"] == []
    counts = {entry["name"]: entry["images"] for entry in by_name["classes"]}
    assert counts == {str(n): int((labels == n).sum()) for n in range(10)}
    np.savez(tmp_path / "bad.npz", images=images, labels=labels + 5)
    ran = vitedge("check-data", tmp_path / "bad.npz", "--model", "digits", code=2)
    assert "classes are 0 to 9" in ran.stderr


def test_images_of_another_set_are_found(vitedge, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "calib")
    for path in [*(tmp_path / "calib").glob("*/*")][2:]:
        path.unlink()
    ran = vitedge("check-data", photos, "--against", tmp_path / "calib", "--json", code=2)
    assert any("2 images are in" in what for what in findings(ran.document))
    shutil.rmtree(tmp_path / "calib")
    save(tmp_path / "calib" / "other.png", tile(99))
    assert vitedge("check-data", photos, "--against", tmp_path / "calib").code == 0


def test_masks(vitedge, tmp_path):
    for seed in range(3):
        mask = np.full((64, 64), seed, np.uint8)
        mask[:8] = 255
        save(tmp_path / "images" / f"{seed}.png", tile(seed, 64))
        save(tmp_path / "masks" / f"{seed}.png", Image.fromarray(mask))
    arguments = ("check-data", tmp_path, "--json")
    check = vitedge(*arguments, "--model", "shapes").document
    assert [c["images"] for c in check["classes"]] == [1, 1, 1] and check["task"] == "segmentation"
    of_nobody = vitedge(*arguments).document
    assert of_nobody["usable"] == 3 and of_nobody["findings"] == []
    save(tmp_path / "masks" / "2.png", Image.fromarray(np.full((64, 64), 9, np.uint8)))
    ran = vitedge(*arguments, "--model", "shapes", code=2)
    assert "2.png' holds class 9" in ran.stderr and ran.document["usable"] == 3
    (tmp_path / "masks" / "0.png").unlink()
    assert "have no mask: 0" in vitedge(*arguments, "--model", "shapes", code=2).stderr


def test_labels_of_no_model_are_compared_with_none(vitedge, tmp_path):
    images = np.stack([np.asarray(tile(seed, 32)) for seed in range(4)])
    np.savez(tmp_path / "set.npz", images=images, labels=[0, 1, -1, 2])
    ran = vitedge("check-data", "set.npz", code=2, cwd=tmp_path)
    assert "'labels' of 'set.npz' goes below 0 (image 2)" in ran.stderr
    assert "model's" not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing"], "there is no 'missing'"),
        (["empty"], "no images"),
        (["photos", "--model", "digitz"], "did you mean 'digits'"),
        (["photos", "--arch", "digits"], "--arch is of a --model, and none is given"),
    ],
)
def test_what_cannot_be_checked_gets_one_clear_line(vitedge, photos, arguments, says):
    (photos.parent / "empty").mkdir()
    ran = vitedge("check-data", *arguments, code=2, cwd=photos.parent)
    assert ran.stdout == "" and says in ran.stderr and "\n  fix: " in ran.stderr


def test_the_api_gives_the_same(photos, capfd):
    check = ve.check_data(photos, model="digits")
    assert check.usable == 8 and check.errors and check.errors[0].exit_code == 2
    noise = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    assert [f.severity for f in ve.check_data(noise).findings] == ["info"]  # it has no labels
    assert capfd.readouterr().out == ""


def test_a_coco_set_is_checked_by_its_own_categories_or_a_models(vitedge, tmp_path):
    import json

    for seed in range(4):
        save(tmp_path / "images" / f"{seed}.png", tile(seed))
    sides = {"width": 96, "height": 96}
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", **sides} for i in range(5)],
        "annotations": [{"id": 0, "image_id": 1, "category_id": 9, "bbox": [1, 1, 9, 9]}],
        "categories": [{"id": 9, "name": "cat"}, {"id": 4, "name": "dog"}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    check = vitedge("check-data", tmp_path, "--json").document
    assert (check["task"], check["used_as"], check["usable"]) == ("detection", "evaluation", 4)
    assert check["classes"] == [{"name": "cat", "images": 1}]
    assert check["skipped"] == {"listed and missing": 1}
    content["annotations"][0]["bbox"] = [1, 1, 0, 9]
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    check = vitedge("check-data", tmp_path, "--json", code=2).document
    (error,) = [f for f in check["findings"] if f["severity"] == "error"]
    assert "1 box is empty or reversed: annotation 0 of image 1" in error["what"]
