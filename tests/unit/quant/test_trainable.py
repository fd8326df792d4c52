"""Which graphs can be trained: asked of tiny ones, before anything is calibrated."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper, parser

from vitedge.core.bundle import Golden
from vitedge.core.errors import InputError
from vitedge.core.runtime import TensorSpec
from vitedge.core.spec import Training
from vitedge.graph.run import Fp32Graph
from vitedge.quant.placement import Placement
from vitedge.quant.qat import trainable
from vitedge.quant.qat.network import Network

RANDOM = np.random.default_rng(0)
CONSTANTS = {
    "kernel": RANDOM.normal(size=(8, 3, 3, 3)) / 5,
    "gamma": RANDOM.uniform(0.5, 2, 8),
    "beta": RANDOM.normal(size=8),
    "mean": RANDOM.normal(size=8),
    "variance": RANDOM.uniform(0.5, 2, 8),
    "scales": np.array([1, 1, 0.6, 0.6]),
    "vector": RANDOM.normal(size=(1, 8)),
}
IMAGES = RANDOM.integers(0, 256, (3, 8, 8, 3), np.uint8)
STEM = """
    float = Cast <to = 1> (image)
    pixels = Transpose <perm = [0, 3, 1, 2]> (float)
    maps = Conv (pixels, kernel)
"""


@pytest.fixture
def graph(tmp_path):
    """An exported graph of STEM and what is given, and the golden images of it."""

    def write(text, *outputs):
        given = ", ".join(f"float {name}" for name in outputs)
        made = parser.parse_graph(f"g (uint8[1, 8, 8, 3] image) => ({given}) {{ {STEM}{text} }}")
        for node in made.node:
            node.name = node.output[0]
        read = {name for node in made.node for name in node.input}
        made.initializer.extend(
            numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in CONSTANTS.items()
            if name in read
        )
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        onnx.save(model, tmp_path / "model.onnx")
        main, *further = (TensorSpec(name, (1,), "float32") for name in outputs)
        image = TensorSpec("image", (1, 8, 8, 3), "uint8")
        exported = Fp32Graph(tmp_path / "model.onnx", image, main, 0, 0, tuple(further))
        first, *others = exported.outputs(IMAGES)
        names = (spec.name for spec in further)
        labels = np.full(len(IMAGES), -1)
        return exported, Golden(IMAGES, first, labels, dict(zip(names, others, strict=True)))

    return write


NORM = "y = BatchNormalization (maps, gamma, beta, mean, variance)"


def test_what_a_batchnorm_has_measured_is_no_weight(graph):
    exported, golden = graph(NORM, "y")
    trainable.check(exported, golden, Training())
    student = Network(exported.path, Placement(), {}, "fp32", learned=True)
    student(torch.from_numpy(IMAGES)).logits.square().mean().backward()
    assert set(student.trained_weights()) == {"kernel", "gamma", "beta"}
    assert all(weight.grad.abs().min() > 0 for weight in student.weights)


def test_an_output_of_no_image_passes(graph):
    trainable.check(*graph(f"{NORM} fixed = Identity (vector)", "y", "fixed"), Training())


REFUSED = {
    "y = AveragePool <kernel_shape = [2, 2], pads = [1, 0, 0, 0]> (maps)": (
        "'y' .AveragePool. has settings that cannot be trained here: uneven padding"
    ),
    'y = Resize <mode = "nearest", nearest_mode = "ceil"> (maps, , scales)': (
        "'y' is .* off in training from what the FP32 graph gives"
    ),
    "y = LpNormalization <p = 1> (maps)": (
        "'y' is an operator that cannot be trained here: LpNormalization"
    ),
    """top = GlobalMaxPool (maps) row = Squeeze (top) sign = Sign (row) one = Abs (sign)
    shape = Cast <to = 7> (one) y = Expand (maps, shape)""": (
        "'y' .Expand. cannot be computed in training"
    ),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_trained_is_named(graph, text):
    exported, golden = graph(text, "y")
    with pytest.raises(InputError, match=REFUSED[text]) as refused:
        trainable.check(exported, golden, Training())
    assert "`precision='int8'`" in refused.value.fix


def test_a_loss_on_features_needs_a_norm(graph):
    how = Training(features=1.0)
    with pytest.raises(InputError, match=r"`features` .* LayerNorm gives, and this model has none"):
        trainable.check(*graph(NORM, "y"), how)
    norm = "last = Transpose <perm = [0, 2, 3, 1]> (maps) y = LayerNormalization (last, gamma)"
    trainable.check(*graph(norm, "y"), how)
