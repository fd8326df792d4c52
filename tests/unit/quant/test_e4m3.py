"""FP8's numbers: rounded to the nearest, never NaN, and as ONNX Runtime's CPU rounds them."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from vitedge.quant import e4m3

FINITE = np.arange(256, dtype=np.uint8)[np.arange(256) & 0x7F != 0x7F].view(e4m3.DTYPE)


def test_every_number_of_the_format_stays_as_it_is():
    numbers = FINITE.astype(np.float32)
    assert len(set(numbers.tolist())) == 253  # both zeros are equal
    assert numbers.max() == e4m3.LARGEST
    np.testing.assert_array_equal(e4m3.rounded(numbers), numbers)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((17.0, 16.0), (19.0, 20.0), (18.1, 18.0)),  # ties to even; the nearest
        *((464.0, 448.0), (1e9, 448.0), (np.inf, 448.0), (-1e9, -448.0)),  # no NaN beyond the last
        *((2.0**-9, 2.0**-9), (2.0**-10, 0.0), (3 * 2.0**-11, 2.0**-9)),  # the least is 2⁻⁹
    ],
)
def test_a_value_is_rounded_to_the_nearest_or_the_largest(value, expected):
    assert e4m3.rounded(np.array(value, np.float32)) == expected


def test_spacing_is_the_distance_of_neighbours():
    positive = np.unique(FINITE.astype(np.float64))
    positive = positive[positive > 0]
    np.testing.assert_array_equal(e4m3.spacing(positive[:-1]), np.diff(positive))
    assert e4m3.spacing(np.array(1e6)) == e4m3.spacing(np.array(e4m3.LARGEST)) == 32


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("channels", [False, True], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("opset", [19, 20])
def test_onnx_runtime_rounds_alike(kind, channels, opset):
    """The accuracy of an FP8 artifact is simulated by its CPU kernels."""
    values = np.random.default_rng(0).normal(0, 200, (64, 8)).astype(kind)
    values[0] = [np.inf, -np.inf, 0, 460, 464, 465, 1e-4, 6e4]
    scales = np.linspace(0.5, 2, 8, dtype=kind) if channels else np.array(0.5, kind)
    inputs = ["x", "scale", "zero"], ["q", "scale", "zero"]
    axis = {"axis": 1} if channels else {}
    nodes = [
        helper.make_node("QuantizeLinear", inputs[0], ["q"], **axis),
        helper.make_node("DequantizeLinear", inputs[1], ["y"], **axis),
    ]
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = helper.make_graph(
        nodes,
        "rounding",
        [helper.make_tensor_value_info("x", element, values.shape)],
        [helper.make_tensor_value_info("y", element, values.shape)],
        [
            numpy_helper.from_array(scales, "scale"),
            numpy_helper.from_array(np.zeros(scales.shape, e4m3.DTYPE), "zero"),
        ],
    )
    assert graph.initializer[1].data_type == TensorProto.FLOAT8E4M3FN
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    (got,) = InferenceSession(model.SerializeToString()).run(None, {"x": values})
    steps = values.astype(np.float32) / scales.astype(np.float32)
    want = e4m3.rounded(steps).astype(kind) * scales
    np.testing.assert_array_equal(got, want)
