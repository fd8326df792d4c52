"""The embedded models are as good as stated, on data they were not trained on; recipes repeat."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from vitedge.data.open import open_images
from vitedge.data.shapes import CLASSES, TRAINING
from vitedge.models.sources import ModelRequest, resolve
from vitedge.models.zoo import ZOO
from vitedge.models.zoo.build import build

PACKAGE = Path(__file__).parents[3] / "vitedge"
DATA = PACKAGE / "data" / "digits.npz"
DIGITS, SHAPES = ZOO["digits"], ZOO["shapes"]


# -- digits ---------------------------------------------------------------------------------------


def test_the_embedded_digits_are_scikit_learns_with_its_stratified_split():
    original = load_digits()
    _, held_out = train_test_split(
        np.arange(1797), test_size=0.4, stratify=original.target, random_state=0
    )
    with np.load(DATA) as file:
        np.testing.assert_array_equal(file["images"], original.images)
        np.testing.assert_array_equal(file["labels"], original.target)
        assert (file["images"].dtype, file["labels"].dtype) == (np.uint8, np.uint8)
        np.testing.assert_array_equal(np.flatnonzero(file["held_out"]), sorted(held_out))
    assert len(held_out) == 719


def test_digits_are_enlarged_to_32_pixels_and_255_levels():
    original = load_digits().images[0]
    grey = Image.fromarray(np.round(original * 255 / 16).astype(np.uint8))
    expected = grey.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB")
    with np.load(DATA) as file:
        role = "evaluation" if file["held_out"][0] else "calibration"
    first = next(open_images("digits", role, DIGITS.preprocess, DIGITS.labels).batches(1))
    np.testing.assert_array_equal(first.images[0], expected)


def test_the_embedded_model_gets_at_least_98_5_percent_of_the_held_out_digits_right():
    from examples.references.digits import top1

    assert top1(resolve(ModelRequest("digits")).content) >= 0.985


# -- shapes ---------------------------------------------------------------------------------------


def test_the_models_outputs_are_the_classes_of_the_masks():
    assert SHAPES.labels == CLASSES
    assert SHAPES.config.num_classes == len(CLASSES)


def test_the_embedded_model_has_at_least_85_percent_miou_on_the_held_out_shapes():
    from examples.references.shapes import miou

    mean, pixels = miou(resolve(ModelRequest("shapes")).content)
    assert mean >= 0.85
    assert pixels >= 0.94


def test_the_embedded_setr_has_at_least_80_percent_miou_on_the_held_out_shapes():
    from examples.references.shapes import miou

    mean, _ = miou(resolve(ModelRequest("shapes-setr")).content)
    assert mean >= 0.8


def test_the_embedded_detector_has_at_least_60_percent_map_on_the_held_out_shapes():
    from examples.references.shapes_detr import average_precision

    mean, at_50 = average_precision(resolve(ModelRequest("shapes-detr")).content)
    assert mean >= 0.6 and at_50 > mean


def test_the_embedded_detector_begins_with_the_encoder_of_the_embedded_setr():
    from examples.references.shapes_detr import take_encoder

    torch.manual_seed(0)
    detector, setr = build(ZOO["shapes-detr"].config), resolve(ModelRequest("shapes-setr")).content
    take_encoder(detector)
    images = torch.randn(2, 3, 64, 64)
    tokens = setr.patch_embed(images) + setr.pos_embed
    for block in setr.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(detector.encode(images), setr.norms[0](tokens))


def test_pairs_are_the_cheapest_in_each_group_and_what_is_missed_costs():
    from examples.references.set_prediction import Truth, matched, set_loss

    boxes = torch.tensor([[[0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.3, 0.3], [0.5, 0.5, 0.9, 0.9]] * 2])
    truth = Truth(boxes[:, [1, 0]], torch.tensor([[3, 1]]), torch.tensor([2]))
    logits = torch.full((1, 6, 5), -4.0)
    batch, queries, objects = matched(logits, boxes, truth, groups=2)
    assert batch.tolist() == [0] * 4
    assert sorted(zip(queries.tolist(), objects.tolist(), strict=True)) == [
        *((0, 1), (1, 0), (3, 1), (4, 0)),
    ]
    right, wrong = logits.clone(), logits.clone()
    for query, kind in ((0, 1), (1, 3), (3, 1), (4, 3)):
        right[0, query, kind] = wrong[0, query, (kind + 1) % 5] = 4.0
    assert set_loss(right, boxes, truth, 2) < set_loss(logits, boxes, truth, 2)
    assert set_loss(logits, boxes, truth, 2) < set_loss(wrong, boxes, truth, 2)
    aside = set_loss(right, boxes + 0.1, truth, 2)
    assert set_loss(right, boxes, truth, 2) < aside


def test_positions_of_a_map_are_of_the_last_drawn_object_over_them():
    from examples.references.set_prediction import Truth, dense_loss

    truth = Truth(
        torch.tensor([[[0.5, 0.5, 0.8, 0.8], [0.5, 0.5, 0.3, 0.3], [0.5, 0.5, 1.0, 1.0]]]),
        torch.tensor([[0, 1, 2]]),
        torch.tensor([2]),  # the third is no object
    )
    centres = torch.tensor([[0.5, 0.5], [0.2, 0.2], [0.02, 0.02]])
    boxes = truth.boxes[:, [1, 0, 0]]
    logits = torch.full((1, 3, 3), -8.0)
    logits[0, 0, 1] = logits[0, 1, 0] = 8.0
    assert float(dense_loss(logits, boxes, truth, centres)) < 1e-2
    assert float(dense_loss(logits, boxes[:, [1, 0, 0]], truth, centres)) > 1


def test_mirrored_boxes_stay_on_their_shapes():
    from examples.references.shapes_detr import load, mirrored

    images, truth = load([TRAINING[0]])
    marked = torch.zeros(1, 3, 64, 64)
    x, y, width, height = (64 * truth.boxes[0, 0]).tolist()
    rows = slice(round(y - height / 2), round(y + height / 2))
    marked[..., rows, round(x - width / 2) : round(x + width / 2)] = 1
    assert images.shape == marked.shape and truth.counts[0] >= 1
    for flips in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)):
        turned, boxes = mirrored(marked, truth.boxes, flips)
        x, y, width, height = (64 * boxes[0, 0]).tolist()
        inside = turned[..., round(y - height / 2) : round(y + height / 2), :]
        inside = inside[..., round(x - width / 2) : round(x + width / 2)]
        assert inside.all() and inside.sum() == turned.sum()


def test_training_is_deterministic_and_seeds_differ():
    from examples.references.shapes import train

    def trained(seed):
        torch.manual_seed(seed)
        model = build(SHAPES.config)
        train(model, 1, torch.Generator().manual_seed(seed), range(64))
        return torch.cat([value.flatten() for value in model.parameters()]).detach()

    first, again, other = trained(3), trained(3), trained(4)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


# -- the recipes ----------------------------------------------------------------------------------


def run_recipe(name, output, *flags):
    """What a recipe of one epoch prints."""
    command = [sys.executable, "-m", f"examples.references.{name}", "--epochs", "1", *flags]
    run = subprocess.run(
        [*command, "--output", str(output)], capture_output=True, text=True, check=True
    )
    assert run.stderr == ""  # no progress bar where nobody watches
    weights = PACKAGE / "models" / "zoo" / f"{name.replace('_', '-')}.safetensors"
    assert output.stat().st_size == pytest.approx(weights.stat().st_size, rel=0.01)
    return run.stdout


@pytest.mark.heavy
def test_the_recipe_of_digits_is_deterministic_and_prints_the_accuracy(tmp_path):
    first, again = (run_recipe("digits", tmp_path / name, "--seed", "3") for name in ("a", "b"))
    assert first == again and first.startswith("held-out top-1: ")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.heavy
def test_the_recipe_of_the_detector_prints_average_precision(tmp_path):
    printed = run_recipe("shapes_detr", tmp_path / "a")
    match = re.fullmatch(r"held-out mAP: ([\d.]+)%, at an overlap of 0.50: ([\d.]+)%\n", printed)
    assert match and float(match[2]) > 20


@pytest.mark.heavy
def test_the_recipe_of_setr_prints_miou(tmp_path):
    printed = run_recipe("shapes_setr", tmp_path / "a")
    match = re.fullmatch(r"held-out mIoU: ([\d.]+)%, pixel accuracy: ([\d.]+)%\n", printed)
    assert match and float(match[1]) > 30


@pytest.mark.heavy
def test_the_recipe_of_shapes_prints_miou_and_pixel_accuracy(tmp_path):
    printed = run_recipe("shapes", tmp_path / "a")
    match = re.fullmatch(r"held-out mIoU: ([\d.]+)%, pixel accuracy: ([\d.]+)%\n", printed)
    assert match and float(match[1]) > 30  # more than the background was learned
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
