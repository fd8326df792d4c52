"""The embedded segmentation model is as good as stated, and its recipe makes it again."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vitedge.data.shapes import CLASSES
from vitedge.models.zoo import ZOO

torch = pytest.importorskip("torch")

WEIGHTS = Path(__file__).parents[3] / "vitedge" / "models" / "zoo" / "shapes.safetensors"
SHAPES = ZOO["shapes"]


def test_the_models_outputs_are_the_classes_of_the_masks() -> None:
    assert SHAPES.labels == CLASSES
    assert SHAPES.config.num_classes == len(CLASSES)


def test_the_embedded_model_has_at_least_85_percent_miou_on_the_held_out_shapes() -> None:
    from safetensors.torch import load_file

    from examples.references.shapes import miou
    from vitedge.models.zoo.build import build

    model = build(SHAPES.config)
    model.load_state_dict(load_file(WEIGHTS))
    mean, pixels = miou(model.eval())
    assert mean >= 0.85
    assert pixels >= 0.94


def test_training_is_deterministic_and_seeds_differ() -> None:
    from examples.references.shapes import train
    from vitedge.models.zoo.build import build

    def trained(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        model = build(SHAPES.config)
        train(model, 1, torch.Generator().manual_seed(seed), range(64))
        return torch.cat([value.flatten() for value in model.parameters()]).detach()

    first, again, other = trained(3), trained(3), trained(4)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


@pytest.mark.heavy
def test_the_recipe_runs_and_prints_miou_and_pixel_accuracy(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.references.shapes", "--epochs", "1"]
    run = subprocess.run(
        [*command, "--output", str(tmp_path / "a")], capture_output=True, text=True, check=True
    )
    assert run.stderr == ""  # no progress bar where nobody watches
    match = re.fullmatch(r"held-out mIoU: ([\d.]+)%, pixel accuracy: ([\d.]+)%\n", run.stdout)
    assert match and float(match[1]) > 30  # more than the background was learned
    assert (tmp_path / "a").stat().st_size == pytest.approx(WEIGHTS.stat().st_size, rel=0.01)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
