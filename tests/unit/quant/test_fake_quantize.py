"""What is trained is what runtimes compute, and its gradients are LSQ's."""

import math

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import parser

from vitedge.quant.placement import Activation, Weight
from vitedge.quant.qat.fake_quantize import ActivationQuantizer, WeightQuantizer
from vitedge.quant.weights import quantize_weight, to_integers

RNG = np.random.default_rng(0)
VALUES = RNG.normal(0, 1, (3, 64, 16)).astype(np.float32)


def q_dq(values, scale, zero, unsigned):
    shape = ", ".join(map(str, values.shape))
    model = parser.parse_model(f"""<ir_version: 9, opset_import: ["": 18]>
        graph (float[{shape}] x, float scale, {"uint8" if unsigned else "int8"} zero)
        => (float[{shape}] y) {{
            q = QuantizeLinear(x, scale, zero)
            y = DequantizeLinear(q, scale, zero)
        }}""")
    zero = np.array(zero, np.uint8 if unsigned else np.int8)
    feed = {"x": values, "scale": np.array(scale, np.float32), "zero": zero}
    return ort.InferenceSession(model.SerializeToString()).run(None, feed)[0]


def activation(scale, unsigned=False, zero=0, learned=True, floats="fp32"):
    placed = Activation(np.array(scale, np.float32), unsigned, zero)
    return ActivationQuantizer(placed, floats, learned=learned)


@pytest.mark.parametrize(("unsigned", "zero"), [(False, 0), (True, 128), (True, 0)])
@pytest.mark.parametrize("scale", [0.01, 0.05])
def test_an_activation_is_quantized_as_onnx_runtime_does(unsigned, zero, scale):
    quantizer = activation(scale, unsigned, zero)
    stored = float(quantizer.scale().detach())
    got = torch.vmap(quantizer)(torch.from_numpy(VALUES)).detach().numpy()
    np.testing.assert_array_equal(got, q_dq(VALUES, stored, zero, unsigned))


def test_gradients_are_those_of_lsq():
    """Esser 2020, equations 3 and 5, written out value by value."""
    quantizer = activation(0.01)
    x = torch.from_numpy(VALUES).requires_grad_()
    upstream = torch.from_numpy(RNG.normal(0, 1, VALUES.shape).astype(np.float32))
    torch.vmap(quantizer)(x).backward(upstream)
    scale = float(quantizer.scale().detach())
    v, g = VALUES.astype(np.float64) / scale, upstream.numpy().astype(np.float64)
    inside = (v > -128.5) & (v < 127.5)
    slope = np.where(inside, np.round(v) - v, np.where(v < 0, -128, 127))
    of_scale = (g * slope).sum() / math.sqrt(VALUES[0].size * 127)
    np.testing.assert_array_equal(x.grad.numpy(), np.where(inside, upstream.numpy(), 0))
    assert float(quantizer.scale.log.grad) == pytest.approx(of_scale * scale, rel=1e-3)


def test_a_frozen_scale_is_not_trained():
    quantizer = activation(0.01, learned=False)
    x = torch.from_numpy(VALUES).requires_grad_()
    torch.vmap(quantizer)(x).sum().backward()
    assert quantizer.scale.log.grad is None and x.grad is not None


def test_a_scale_of_float16_is_one_that_float16_has():
    quantizer = activation(0.01, floats="fp16")
    scale = float(quantizer.scale().detach())
    assert scale == float(np.float16(scale))
    torch.vmap(quantizer)(torch.from_numpy(VALUES)).square().sum().backward()
    assert float(quantizer.scale.log.grad.abs()) > 0


@pytest.mark.parametrize("pair_safe", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((64, 32), 1), ((32, 64), 0), ((8, 3, 4, 4), 0)])
@pytest.mark.parametrize("qmax", [7, 127])
def test_a_weight_becomes_the_integers_that_are_exported(pair_safe, shape, axis, qmax):
    weight = RNG.normal(0, 1, shape).astype(np.float32)
    weight[:2] = 3.0  # pairs that sum above the limit
    _, scales = quantize_weight(weight, axis, "minmax", qmax=qmax, pair_safe=pair_safe)
    scales *= 0.8  # as training leaves them: some weights are clipped
    placed = Weight(axis, qmax, pair_safe)
    quantizer = WeightQuantizer(placed, torch.from_numpy(scales), "fp32", learned=True)
    stored = quantizer.scale().detach().numpy()
    integers = to_integers(weight, stored, axis, qmax, pair_safe)
    steps = np.moveaxis(np.moveaxis(integers, axis, -1) * stored, -1, axis)
    np.testing.assert_array_equal(quantizer(torch.from_numpy(weight)).detach().numpy(), steps)


def test_gradients_of_a_weight_and_its_scales_are_those_of_lsq():
    weight = torch.from_numpy(RNG.normal(0, 1, (64, 4)).astype(np.float32)).requires_grad_()
    scales = torch.tensor([0.01, 0.02, 0.05, 0.1])
    quantizer = WeightQuantizer(Weight(1, 127, False), scales, "fp32", learned=True)
    upstream = torch.from_numpy(RNG.normal(0, 1, (64, 4)).astype(np.float32))
    quantizer(weight).backward(upstream)
    stored = quantizer.scale().detach().numpy().astype(np.float64)
    v, g = weight.detach().numpy() / stored, upstream.numpy().astype(np.float64)
    inside = np.abs(v) < 127.5
    slope = np.where(inside, np.round(v) - v, np.sign(v) * 127)
    of_scales = (g * slope).sum(0) / math.sqrt(64 * 127) * stored
    np.testing.assert_array_equal(weight.grad.numpy(), np.where(inside, upstream.numpy(), 0))
    np.testing.assert_allclose(quantizer.scale.log.grad.numpy(), of_scales, rtol=1e-3, atol=1e-6)
