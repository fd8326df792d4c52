"""A file of any opset is brought into the target's, or the operator in the way is named."""

import numpy as np
import onnx
import pytest
from onnx import parser

from vitedge.core.errors import InputError
from vitedge.graph.foreign.canonical import canonical
from vitedge.graph.run import Runner

X = np.random.default_rng(0).normal(0, 2, (1, 4, 6, 6)).astype(np.float32)
GRAPHS = {
    7: "a = Softmax <axis = 1> (x) b = BatchNormalization(a, four, four, four, four)"
    " c = Squeeze <axes = [0]> (b) d = Unsqueeze <axes = [0]> (c)"
    " y = Slice <axes = [2], starts = [0], ends = [6]> (d)",
    9: 'h = Upsample <mode = "nearest"> (x, twice)'
    " y = Slice <axes = [2, 3], starts = [0, 0], ends = [6, 6]> (h)",
    11: "a = Clip(x, low, high) y, z = Split <axis = 1, split = [4, 4]> (w) w = Identity(a)",
    12: "r = Reshape(x, rows) a = Softmax(r) y = Reshape(a, dims)",
    23: "y = RMSNormalization <axis = -1> (x, six)",
    24: "a = Swish(x) y = Relu(a)",
}
GRAPHS[11] = "a = Clip(x, low, high) w = Concat <axis = 1> (a, a) y, z = Split <axis = 1> (w)"


def model(body, opset, path):
    text = (
        f'<ir_version: {3 if opset < 9 else 8}, opset_import: ["": {opset}]> '
        "g (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) <float[4] four = {1, 2, 3, 4}, "
        "float[6] six = {1, 2, 3, 4, 5, 6}, float[4] twice = {1, 1, 2, 2}, float low = {0}, "
        "int64[3] rows = {4, 6, 6}, int64[4] dims = {1, 4, 6, 6}, "
        f"float high = {{6}}> {{ {body} }}"
    )
    graph = parser.parse_model(text)
    read = {name for node in graph.graph.node for name in node.input}
    unread = [tensor for tensor in graph.graph.initializer if tensor.name not in read]
    for tensor in unread:
        graph.graph.initializer.remove(tensor)
    for tensor in graph.graph.initializer if opset < 9 else ():
        graph.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    onnx.save(graph, path)
    return path


@pytest.mark.parametrize("opset", GRAPHS)
def test_it_computes_the_same(opset, tmp_path):
    source, path = model(GRAPHS[opset], opset, tmp_path / "a.onnx"), tmp_path / "b.onnx"
    canonical(source, path, 20, X, "mine.onnx")
    converted = onnx.load(path)
    assert [entry.version for entry in converted.opset_import if not entry.domain] == [20]
    assert converted.ir_version == 9
    np.testing.assert_allclose(Runner(path)(X)[0], Runner(source)(X)[0], rtol=1e-5, atol=1e-6)


def test_what_stands_in_the_way_is_named(tmp_path):
    body = "s = Shape(x) b = BitwiseNot(s) c = BitwiseNot(b) y = Reshape(x, c)"
    source = model(body, 18, tmp_path / "a.onnx")
    with pytest.raises(InputError, match="BitwiseNot") as caught:
        canonical(source, tmp_path / "b.onnx", 17, X, "mine.onnx")
    assert "opset 17" in caught.value.fix
