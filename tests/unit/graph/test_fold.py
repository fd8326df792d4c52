"""What folding changes, by what runtimes then take and by the outputs, which stay."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import openvino as ov
import pytest
import torch
from onnx import parser

from tests.support.graphs import build, run
from vitedge.graph import fold
from vitedge.graph.run import Runner


def folded(path):
    graph = ir.load(path)
    fold.constants(graph)
    model = ir.to_proto(graph)
    folder = path.parent / "folded"
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    return model, folder / "model.onnx"


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("indices", [[[0, 2], [1, 0], [0, 0]], [[[0]]]], ids=["matrix", "cube"])
def test_a_gather_by_a_matrix_is_one_by_a_row(tmp_path, axis, indices):
    body = f"r = Reshape(x, cube)\n y = Gather <axis = {axis}> (r, indices)"
    cube = np.array([4, 16, 3])
    path = build(tmp_path, body, cube=cube, indices=np.array(indices))
    model, after = folded(path)
    (gather,) = (node for node in model.graph.node if node.op_type == "Gather")
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    assert ranks[gather.input[1]] == 1
    np.testing.assert_array_equal(run(path), run(after))


def test_a_constant_is_split_once(tmp_path):
    body = """
        first, second = Split <axis = 1> (both, sizes)
        p = MatMul(x, first)
        q = MatMul(x, second)
        y = Concat <axis = 2> (p, q)
    """
    both = np.random.default_rng(0).normal(size=(12, 8))
    path = build(tmp_path, body, both=both, sizes=np.array([5, 3]))
    model, after = folded(path)
    assert [node.op_type for node in model.graph.node if node.op_type != "Split"] == [
        node.op_type for node in model.graph.node
    ]
    stored = {tensor.name for tensor in model.graph.initializer}
    assert all(n.input[1] in stored for n in model.graph.node if n.op_type == "MatMul")
    np.testing.assert_allclose(run(path), run(after), rtol=1e-5, atol=1e-5)


def test_a_learned_query_is_normalized_once(tmp_path):
    body = """
        queries = LayerNormalization <axis = -1> (learned, scale, shift)
        turned = Transpose <perm = [1, 0]> (queries)
        y = MatMul (x, turned)
    """
    draw = np.random.default_rng(0).normal
    constants = {"learned": (8, 12), "scale": (12,), "shift": (12,)}
    path = build(tmp_path, body, **{name: draw(size=size) for name, size in constants.items()})
    model, after = folded(path)
    assert not {"LayerNormalization", "Transpose"} & {node.op_type for node in model.graph.node}
    np.testing.assert_allclose(run(path), run(after), rtol=1e-5, atol=1e-5)


def test_im2col_of_torch_is_gathered_by_rows(tmp_path):
    module = torch.nn.Sequential(torch.nn.Unfold(3, padding=1, stride=2), torch.nn.Flatten())
    images = torch.rand(2, 3, 8, 8)
    batch = {0: torch.export.Dim("batch")}
    program = torch.onnx.export(
        module, (images,), dynamo=True, opset_version=20, dynamic_shapes=(batch,), verbose=False
    )
    fold.constants(program.model)
    program.save(tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    assert {ranks[n.input[1]] for n in graph.node if n.op_type == "Gather"} == {1}
    session = ort.InferenceSession(tmp_path / "model.onnx")
    more = torch.rand(5, 3, 8, 8)
    (got,) = session.run(None, {session.get_inputs()[0].name: more.numpy()})
    np.testing.assert_array_equal(got, module(more).numpy())


def test_a_tensor_is_clipped_twice_each_time_by_its_bounds(tmp_path):
    body = """
        a = Max(x, low)
        b = Min(a, high)
        c = Max(x, lower)
        d = Min(c, higher)
        y = Concat <axis = 0> (b, d)
    """
    bounds = {"low": 0.4, "high": 0.5, "lower": 0.2, "higher": 0.7}
    path = build(tmp_path, body, **{name: np.float32(value) for name, value in bounds.items()})
    model, after = folded(path)
    assert [node.op_type for node in model.graph.node].count("Clip") == 2
    np.testing.assert_array_equal(run(path), run(after))


@pytest.mark.parametrize("stride", [1, 2])
def test_zeros_padded_before_a_maxpool_count_on_every_runtime(tmp_path, stride):
    module = torch.nn.Sequential(torch.nn.ZeroPad2d(1), torch.nn.MaxPool2d(3, stride))
    x = -torch.rand(1, 2, 6, 6) - 1
    torch.onnx.export(module, (x,), tmp_path / "model.onnx", opset_version=20, verbose=False)
    _, after = folded(tmp_path / "model.onnx")
    want, x = module(x).numpy(), x.numpy()
    (as_it_came,) = Runner(tmp_path / "model.onnx")(x)
    session = ort.InferenceSession(after)
    (onnxruntime,) = session.run(None, {session.get_inputs()[0].name: x})
    openvino = ov.compile_model(after, "CPU")(x)[0]
    for got in (as_it_came, onnxruntime, openvino):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("rank", "dims"), [(3, 2), (2, 3)], ids=["flat", "kept"])
def test_a_stack_of_one_matrix_is_a_matrix_where_the_output_stays(tmp_path, rank, dims):
    body = f"r = Reshape(x, {'cube' if rank == 3 else 'square'})\n y = MatMul(r, one)"
    shapes = {"cube": np.array([4, 16, 3]), "square": np.array([64, 3])}
    weight = np.random.default_rng(0).normal(size=(1, 3, 5))
    path = build(tmp_path, body, **shapes, one=weight)
    model, after = folded(path)
    (product,) = (node for node in model.graph.node if node.op_type == "MatMul")
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    assert ranks[product.input[1]] == dims
    np.testing.assert_allclose(run(path), run(after), rtol=1e-6)


@pytest.mark.parametrize("pool", [torch.nn.AvgPool2d, torch.nn.MaxPool2d])
def test_a_pool_larger_than_its_map_runs_on_every_runtime(tmp_path, pool):
    module = torch.nn.Sequential(pool(64, ceil_mode=True), torch.nn.Flatten())
    x = torch.rand(1, 2, 4, 6)
    torch.onnx.export(module, (x,), tmp_path / "model.onnx", opset_version=20, verbose=False)
    _, after = folded(tmp_path / "model.onnx")
    want, x = module(x).numpy(), x.numpy()
    for got in (Runner(after)(x)[0], ov.compile_model(after, "CPU")(x)[0]):
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_pool_that_fills_up_its_map_is_none_of_the_whole(tmp_path):
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> m (float[1, 2, 5, 7] x) => (float[1, 2, 5, 7] y)'
        '{ y = MaxPool <auto_pad = "SAME_UPPER", kernel_shape = [9, 9]> (x) }'
    )
    onnx.save(model, tmp_path / "model.onnx")
    _, after = folded(tmp_path / "model.onnx")
    x = np.random.default_rng(0).random((1, 2, 5, 7), np.float32)
    np.testing.assert_array_equal(Runner(after)(x)[0], Runner(tmp_path / "model.onnx")(x)[0])
