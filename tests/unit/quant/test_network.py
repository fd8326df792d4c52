"""A graph in torch computes what its ONNX file does, and its gradients are right."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from vitedge.core import catalog
from vitedge.core.errors import InputError
from vitedge.core.progress import SILENT
from vitedge.graph.external import with_constants
from vitedge.graph.io import write
from vitedge.graph.run import Runner
from vitedge.quant.calibrate import calibrate
from vitedge.quant.placement import Placement
from vitedge.quant.qat.network import Network
from vitedge.quant.qdq import quantize, quantizers

RECIPE = catalog.find_calibration("default")
TARGET = catalog.targets()["onnxruntime-cpu"].quantization


@pytest.fixture(scope="module")
def training_images(calibration_batches):
    return np.concatenate(calibration_batches(32, 1))


@pytest.fixture(scope="module")
def digits(digits_graph, calibration_batches):
    batches = iter(calibration_batches(16, 1))
    return calibrate(digits_graph(1).path, batches, RECIPE, TARGET, SILENT)[0]


def network(calibrated, **how):
    placed, scales = quantizers(calibrated)
    tensors = {name: torch.from_numpy(scale) for name, scale in scales.items()}
    return Network(calibrated.path, placed, tensors, "fp32", **{"learned": True, **how})


def run(path, images):
    runner = Runner(path, as_written=True)
    return np.concatenate([runner(image[None])[0] for image in images])


def test_without_quantizers_it_computes_what_the_file_does(digits, training_images):
    plain = Network(digits.path, Placement(), {}, "fp32", learned=False)
    got = plain(torch.from_numpy(training_images[:8])).logits.detach().numpy()
    np.testing.assert_allclose(got, run(digits.path, training_images[:8]), rtol=0, atol=2e-5)


def test_with_them_it_computes_what_is_exported(digits, training_images, tmp_path):
    model, _ = quantize(digits, SILENT, {})
    write(model, tmp_path / "int8.onnx")
    images = training_images[:16]
    got = network(digits)(torch.from_numpy(images)).logits.detach().numpy()
    want, fp32 = run(tmp_path / "int8.onnx", images), run(digits.path, images)
    errors = np.abs(got - want).max(1) / np.abs(want).max(1)
    # what is left is a value at the edge of two steps, rounded the other way
    assert np.median(errors) < 1e-3
    assert np.linalg.norm(got - want) < 0.3 * np.linalg.norm(want - fp32)


def test_gradient_checkpointing_changes_no_gradient(digits, training_images):
    gradients = []
    for checkpointing in (False, True):
        student = network(digits, checkpointing=checkpointing)
        student(torch.from_numpy(training_images[:8])).logits.square().mean().backward()
        gradients.append([p.grad for p in student.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 50
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-8)


def test_a_step_down_the_gradient_lowers_the_loss(digits, training_images):
    images = torch.from_numpy(training_images[:16])
    teacher = Network(digits.path, Placement(), {}, "fp32", learned=False)
    target = teacher(images).logits.detach()
    student = network(digits)
    optimizer = torch.optim.SGD(student.parameters(), 0.02)
    losses = []
    for _ in range(4):
        loss = (student(images).logits - target).square().mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]


def test_trained_weights_are_written_and_the_rest_shared(digits, tmp_path):
    student = network(digits)
    weights = {name: value + 1 for name, value in student.trained_weights().items()}
    path = digits.path.with_name("moved.onnx")
    with_constants(digits.path, weights, path)
    before, after = (onnx.load(file).graph.initializer for file in (digits.path, path))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in after}
    for tensor in before:
        moved = 1 if tensor.name in weights else 0
        want = numpy_helper.to_array(tensor) + moved
        np.testing.assert_allclose(stored[tensor.name], want, rtol=1e-6)
    assert "image.scale" not in weights and len(weights) > 40


def test_pixels_keep_their_scale(digits_graph, calibration_batches):
    target = catalog.targets()["openvino-cpu"].quantization  # has INT8 Conv
    batches = iter(calibration_batches(4, 1))
    student = network(calibrate(digits_graph(1).path, batches, RECIPE, target, SILENT)[0])
    learned = [quantizer.scale.log.requires_grad for quantizer in student.activation_quantizers]
    assert learned.count(False) == 1 and not learned[0]


def test_an_operator_that_cannot_be_trained_is_named(digits, tmp_path):
    model = onnx.load(digits.path)
    model.graph.node[-1].op_type = "NonZero"
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(InputError, match="cannot be trained here: NonZero"):
        Network(tmp_path / "odd.onnx", Placement(), {}, "fp32", learned=True)
