"""Every operator that can be trained computes what ONNX Runtime does."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from vitedge.quant.qat.operators import OPERATORS, attributes

OPSET = 20
A = np.random.default_rng(0).normal(0, 1, (2, 3, 4, 5)).astype(np.float32)
POSITIVE = np.abs(A) + 0.1
IMAGE = np.random.default_rng(1).normal(0, 1, (2, 3, 9, 8)).astype(np.float32)
KERNEL = np.random.default_rng(2).normal(0, 1, (4, 3, 3, 3)).astype(np.float32)
BIAS = np.arange(4, dtype=np.float32)
ROWS = np.random.default_rng(3).normal(0, 1, (6, 5)).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def scalar(value):
    return np.array(value, np.float32)


UNARY = (
    *("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Gelu", "HardSwish", "Identity", "Mish", "Neg"),
    *("Relu", "Sigmoid", "Sin", "Softplus", "Tanh", "HardSigmoid", "Elu", "LeakyRelu", "Selu"),
    *("GlobalMaxPool", "Round", "Sign"),
    *("LogSoftmax", "Softmax", "GlobalAveragePool", "Flatten", "Transpose", "Shape", "Dropout"),
)
BINARY = (
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Max",
    "Min",
    "Sum",
    "MatMul",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
)
CASES = [
    *((op, [A], {}) for op in UNARY),
    *((op, [A, A[..., ::-1].copy() if op != "MatMul" else A.swapaxes(2, 3)], {}) for op in BINARY),
    *((op, [POSITIVE], {}) for op in ("Log", "Sqrt", "Reciprocal")),
    ("Pow", [POSITIVE, scalar(1.5)], {}),
    ("Gelu", [A], {"approximate": "tanh"}),
    ("Div", [ints(7, -7, 8), ints(2, 2, -3)], {}),
    ("Mod", [ints(7, -7, 8), ints(2, 2, -3)], {}),
    ("And", [A > 0, A < 1], {}),
    ("Or", [A > 1, A < -1], {}),
    ("Not", [A > 0], {}),
    ("Where", [A > 0, A, A * 2], {}),
    ("PRelu", [A, np.full((3, 1, 1), 0.3, np.float32)], {}),
    ("Cast", [A * 3], {"to": TensorProto.INT64}),
    ("Clip", [A, scalar(-0.5), scalar(0.5)], {}),
    ("Clip", [A, None, scalar(0.5)], {}),
    ("Concat", [A, A], {"axis": -1}),
    ("ConstantOfShape", [ints(2, 3)], {}),
    ("Range", [ints(1)[0], ints(9)[0], ints(3)[0]], {}),
    ("Einsum", [A, A], {"equation": "bhid,bhjd->bhij"}),
    ("Expand", [A[:, :1], ints(1, 3, 1, 1)], {}),
    ("Tile", [A, ints(1, 2, 1, 3)], {}),
    ("Gather", [A, ints(0, -1)], {"axis": 2}),
    ("Gather", [A, np.array(1, np.int64)], {"axis": 1}),
    ("Gather", [A, np.array([[0, 2], [1, 1]], np.int64)], {"axis": 1}),
    ("GatherND", [A, np.array([[0, 1], [1, 2]], np.int64)], {}),
    ("GatherElements", [A, np.array([[[[1, -1]]]], np.int64)], {"axis": 3}),
    ("ScatterND", [A, np.array([[0, 1], [1, 2]], np.int64), A[0, :2] * 2], {}),
    ("ScatterND", [A, np.array([[0, 1], [0, 1]], np.int64), A[0, :2]], {"reduction": "add"}),
    ("DepthToSpace", [IMAGE[:1, :, :4].reshape(1, 4, 6, 4)], {"blocksize": 2}),
    ("DepthToSpace", [IMAGE[:, :, :8].reshape(2, 8, 6, 4)], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", [IMAGE[:, :, :8]], {"blocksize": 2}),
    ("GridSample", [IMAGE, ROWS[:5, :4].reshape(2, 5, 1, 2) / 2], {}),
    (
        "GridSample",
        [IMAGE, ROWS[:5, :4].reshape(2, 5, 1, 2)],
        {"align_corners": 1, "padding_mode": "border"},
    ),
    ("Gemm", [ROWS, ROWS.T.copy(), BIAS[:1]], {"alpha": 0.5, "beta": 2.0}),
    ("Gemm", [ROWS, ROWS], {"transB": 1}),
    ("Gemm", [ROWS, ROWS], {"transA": 1}),
    ("LayerNormalization", [A, A[0, 0, 0], A[1, 0, 0]], {"epsilon": 1e-3}),
    ("LayerNormalization", [A, A[0, 0]], {"axis": 2}),
    ("BatchNormalization", [A, *(POSITIVE[0, :, 0, i] for i in range(4))], {}),
    ("InstanceNormalization", [A, A[0, :, 0, 0], A[0, :, 0, 1]], {}),
    ("GroupNormalization", [A[:, :2], BIAS[1:3], BIAS[2:]], {"num_groups": 2}),
    ("Pad", [A, ints(0, 1, 2, 0), scalar(0.5), ints(2, 3)], {}),
    ("Pad", [A, ints(0, 0, 1, 2, 0, 0, 1, 0)], {"mode": "reflect"}),
    ("Pad", [A, ints(0, 0, 1, 2, 0, 0, 1, 0)], {"mode": "edge"}),
    *(
        (f"Reduce{how}", [A, ints(1, -1)], {"keepdims": keep})
        for how in ("L1", "L2", "Max", "Mean", "Min", "Sum")
        for keep in (0, 1)
    ),
    ("ReduceMean", [A], {}),
    ("ReduceMean", [A], {"noop_with_empty_axes": 1}),
    ("Reshape", [A, ints(0, -1, 10)], {}),
    ("Slice", [A, ints(1, -3), ints(3, 2**62), ints(2, 3)], {}),
    ("Slice", [A, ints(-1), ints(-(2**62)), ints(3), ints(-2)], {}),
    ("Slice", [A, ints(0), ints(5), ints(-1), ints(2)], {}),
    ("Slice", [A, ints(3), ints(1), ints(2)], {}),
    ("Split", [A, ints(1, 2)], {"axis": 1}),
    ("Split", [A], {"axis": -1, "num_outputs": 2}),
    ("Squeeze", [A[:, :1], ints(1)], {}),
    ("Squeeze", [A[:1, :1]], {}),
    ("Unsqueeze", [A, ints(0, -1)], {}),
    ("Softmax", [A], {"axis": 1}),
    ("Transpose", [A], {"perm": [0, 2, 1, 3]}),
    ("Shape", [A], {"start": 1, "end": 3}),
    ("Conv", [IMAGE, KERNEL, BIAS], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("Conv", [IMAGE, KERNEL], {"pads": [0, 1, 2, 1], "dilations": [2, 2]}),
    ("Conv", [IMAGE, KERNEL], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", [IMAGE, KERNEL], {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("Conv", [IMAGE, KERNEL[:3, :1]], {"group": 3}),
    ("Conv", [IMAGE, KERNEL[:, :, :1, :1], BIAS], {"strides": [3, 2]}),
    ("Conv", [IMAGE[..., 0], KERNEL[..., 0]], {}),
    ("ConvTranspose", [IMAGE[:, :3], KERNEL[:3], BIAS[:3]], {"strides": [2, 2]}),
    ("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("MaxPool", [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("AveragePool", [IMAGE], {"kernel_shape": [2, 2], "count_include_pad": 1}),
    ("Resize", [IMAGE, None, None, ints(2, 3, 18, 4)], {"mode": "linear"}),
    ("Resize", [IMAGE, None, None, ints(2, 3, 18, 16)], {"mode": "cubic", "cubic_coeff_a": -0.75}),
    (
        "Resize",
        [IMAGE, None, None, ints(2, 3, 5, 4)],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    (
        "Resize",
        [IMAGE, None, np.array([1, 1, 2, 2], np.float32)],
        {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
    ),
]


@pytest.mark.parametrize(("op", "inputs", "options"), CASES, ids=[c[0] for c in CASES])
def test_an_operator_computes_what_onnx_runtime_does(op, inputs, options):
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    outputs = ["y0", "y1"] if op == "Split" else ["y0"]
    node = helper.make_node(op, names, outputs, "node", **options)
    feed = {name: np.asarray(x) for name, x in zip(names, inputs, strict=True) if x is not None}
    graph = helper.make_graph(
        [node],
        "graph",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x in feed.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    want = ort.InferenceSession(model.SerializeToString()).run(None, feed)
    tensors = [None if x is None else torch.from_numpy(np.array(x)) for x in inputs]
    result = OPERATORS[op](*tensors, **attributes(node))
    got = [result] if isinstance(result, torch.Tensor) else result
    for output, runtime in zip(got, want, strict=True):
        assert tuple(output.shape) == runtime.shape
        np.testing.assert_allclose(output.numpy(), runtime, rtol=1e-4, atol=1e-5)


def test_every_operator_is_compared():
    apart = {"Constant", "Swish"}  # has no inputs; ONNX Runtime has none before opset 24
    assert set(OPERATORS) - apart == {op for op, _, _ in CASES}
