"""The embedded digits are scikit-learn's, and the embedded model was not trained on the test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitedge.data.open import Role, open_images
from vitedge.models.zoo import ZOO

sklearn_datasets = pytest.importorskip("sklearn.datasets")
sklearn_model_selection = pytest.importorskip("sklearn.model_selection")
torch = pytest.importorskip("torch")

PACKAGE = Path(__file__).parents[3] / "vitedge"
DATA = PACKAGE / "data" / "digits.npz"
WEIGHTS = PACKAGE / "models" / "zoo" / "digits.safetensors"
DIGITS = ZOO["digits"]


def test_the_embedded_digits_are_scikit_learns() -> None:
    original = sklearn_datasets.load_digits()
    with np.load(DATA) as file:
        np.testing.assert_array_equal(file["images"], original.images)
        np.testing.assert_array_equal(file["labels"], original.target)
        assert (file["images"].dtype, file["labels"].dtype) == (np.uint8, np.uint8)


def test_the_held_out_digits_are_scikit_learns_stratified_split() -> None:
    original = sklearn_datasets.load_digits()
    _, held_out = sklearn_model_selection.train_test_split(
        np.arange(1797), test_size=0.4, stratify=original.target, random_state=0
    )
    with np.load(DATA) as file:
        np.testing.assert_array_equal(np.flatnonzero(file["held_out"]), sorted(held_out))
    assert len(held_out) == 719


def test_digits_are_enlarged_to_32_pixels_and_255_levels() -> None:
    original = sklearn_datasets.load_digits().images[0]
    grey = Image.fromarray(np.round(original * 255 / 16).astype(np.uint8))
    expected = grey.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB")
    with np.load(DATA) as file:
        role: Role = "evaluation" if file["held_out"][0] else "calibration"
    first = next(open_images("digits", role, DIGITS.preprocess, DIGITS.labels).batches(1))
    np.testing.assert_array_equal(first.images[0], expected)


def test_the_embedded_model_gets_at_least_98_5_percent_of_the_held_out_digits_right() -> None:
    from safetensors.torch import load_file

    from examples.references.digits import top1
    from vitedge.models.zoo.vit import VisionTransformer

    model = VisionTransformer(DIGITS.config)
    model.load_state_dict(load_file(WEIGHTS))
    assert top1(model.eval()) >= 0.985


@pytest.mark.heavy
def test_the_recipe_runs_is_deterministic_and_prints_the_accuracy(tmp_path: Path) -> None:
    outputs = []
    for name in ("a", "b"):
        command = [
            sys.executable,
            "-m",
            "examples.references.digits",
            "--epochs",
            "1",
            "--seed",
            "3",
        ]
        run = subprocess.run(
            [*command, "--output", str(tmp_path / name)], capture_output=True, text=True, check=True
        )
        outputs.append(run.stdout)
        assert run.stderr == ""  # no progress bar where nobody watches
    assert outputs[0] == outputs[1]
    assert outputs[0].startswith("held-out top-1: ")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
