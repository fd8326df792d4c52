"""`vitedge qat` on more than classifiers: hybrids, several outputs, dense ones; or why not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vitedge as ve
from benchmarks.conv_transformer import ConvTransformer
from tests.support import several_outputs as small
from tests.support.machine import ONNXRUNTIME
from vitedge.core.progress import Steps

SHORT = {"epochs": 1, "batch_size": 4, "num_samples": 8, "duration_s": 0}
FOUR_BITS = """
name = "w4"
description = "there is much to win back"
num_samples = 8
activations = "minmax"
weights = "minmax"
weight_bits = 4
equalize = "off"
"""
HOW = ve.Training(learning_rate=1e-5, checkpoint_steps=2, floats="fp32")


class Hybrid(nn.Module):
    """Convolutions whose BatchNorms fold, squeeze-and-excite, attention; scores and a map."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.depth = ConvTransformer(4, dense=True), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, pixels):
        classes = self.trunk(pixels)
        return {"classes": classes, "depth": self.depth(classes)}


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory):
    """It, as somebody's ONNX file, with what its images are."""
    folder = tmp_path_factory.mktemp("hybrid")
    size = ve.Preprocess(height=small.SIZE, width=small.SIZE)
    model = ve.load(Hybrid(), preprocess=size, task="segmentation")
    (fp32,) = ve.export(model, targets=ONNXRUNTIME, duration_s=0, output=folder)
    small.images(folder, 28, labelled=False)
    (folder / "w4.toml").write_text(FOUR_BITS)
    return fp32.bundle.path / "model.onnx"


class Interrupted(Steps):
    """A user's Ctrl-C, at a step of training."""

    def __call__(self, step, done, total, note=""):
        if step == "training" and done == 3:
            raise KeyboardInterrupt


def qat(model, output, **options):
    folder = model.parents[1]
    files = {"train_data": str(folder / "images.npz"), "calibration": str(folder / "w4.toml")}
    how = {**SHORT, **files, "training": HOW, "output": output}
    return ve.qat(model, target=ONNXRUNTIME, **how, **options)


def trained(results):
    """The model file, and the record of its training."""
    bundle = results[-1].bundle
    return (bundle.path / "model.onnx").read_bytes(), bundle.manifest.quantization


def test_a_hybrid_trains_on_all_its_outputs_and_resumes(hybrid, tmp_path):
    how = {"task": "segmentation"}
    model, record = trained(qat(hybrid, tmp_path / "whole", **how))
    kinds = {(layer.op, layer.role) for layer in record.layers if layer.quantized or layer.stored}
    assert {("Conv", "conv"), ("MatMul", "linear")} <= kinds
    before, *_, after = record.training.looks
    assert record.training.steps == 6 and after.loss < before.loss
    with pytest.raises(KeyboardInterrupt):
        qat(hybrid, tmp_path / "parts", **how, progress=Interrupted(None))
    again, _ = trained(qat(hybrid, tmp_path / "parts", **how, resume=True))
    assert again == model


def test_dense_maps_are_trained(hybrid, tmp_path):
    how = {"task": "dense", "model_output": "depth"}
    _, record = trained(qat(hybrid, tmp_path, **how))
    before, *_, after = record.training.looks
    assert after.loss < before.loss and after.accuracy is None


REFUSED = {
    "'classes' is of queries that 'best' orders by their scores": ("classes", ("boxes",), ""),
    "`labels` trains classifiers": ("tokens", (), "labels = 1.0"),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_trained_is_refused_by_name(vitedge, tmp_path, said):
    main, further, settings = REFUSED[said]
    model = small.write(tmp_path, main, *further)
    (tmp_path / "how.toml").write_text(settings)
    outputs = [word for name in (main, *further) for word in ("--model-output", name)]
    ran = vitedge(
        *("qat", model, "--preprocess", tmp_path / "model.toml", "--task", "features", *outputs),
        *("--target", ONNXRUNTIME, "--train-data", small.images(tmp_path, 40, labelled=False)),
        *("--training", tmp_path / "how.toml", "--output", tmp_path / "out", "--duration", 0),
        code=2,
    )
    assert said.replace("`labels`", "labels") in ran.stderr.replace("\n", " ").replace("`", "")
    assert not list((tmp_path / "out").glob("*"))
