"""What a stranger's graph may ask for is told before anything of it is computed."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.hostile import content
from vitedge.core.errors import InputError
from vitedge.graph import io

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def read(tmp_path, model):
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return io.read(path)


def loop(count, condition, kept):
    """A Loop over nothing, whose condition is `kept`: the node that makes it."""
    body = helper.make_graph(
        [kept, helper.make_node("Identity", ["v"], ["v_out"])],
        "body",
        [
            helper.make_tensor_value_info("i", INT, []),
            helper.make_tensor_value_info("c", BOOL, []),
            helper.make_tensor_value_info("v", FLOAT, [1, 3]),
        ],
        [
            helper.make_tensor_value_info("c_out", BOOL, []),
            helper.make_tensor_value_info("v_out", FLOAT, [1, 3]),
        ],
    )
    model = content.linear()
    for name, value in (("count", count), ("condition", condition)):
        if value is not None:
            model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    inputs = ["count" if count is not None else "", "condition" if condition is not None else ""]
    model.graph.node.append(helper.make_node("Loop", [*inputs, "y"], ["z"], "loop", body=body))
    return model


SAME = helper.make_node("Identity", ["c"], ["c_out"])
COMPUTED = helper.make_node("Not", ["c"], ["c_out"])


@pytest.mark.parametrize(
    ("count", "condition"), [(2**62, True), (None, True), (None, None), (100_000, None)]
)
def test_a_loop_that_says_it_goes_on_is_refused(tmp_path, count, condition):
    with pytest.raises(InputError, match=r"m\.onnx has a loop"):
        read(tmp_path, loop(count, condition, SAME))


@pytest.mark.parametrize(
    ("count", "condition", "kept"),
    [(1000, True, SAME), (2**63 - 1, True, COMPUTED), (2**62, False, SAME)],
)
def test_loops_as_exporters_write_them_are_read(tmp_path, count, condition, kept):
    read(tmp_path, loop(count, condition, kept))


def with_node(op, inputs, output="big", shape=None, **constants):
    model = content.linear()
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    model.graph.node.append(helper.make_node(op, inputs, [output], op))
    return model


@pytest.mark.parametrize(
    "model",
    [
        with_node("ConstantOfShape", ["s"], s=[10**6, 10**5]),
        with_node("Tile", ["x", "s"], s=[1, 1, 10**4, 10**4]),
        with_node("Expand", ["x", "s"], s=[10**6, 3, 32, 32]),
    ],
    ids=["ConstantOfShape", "Tile", "Expand"],
)
def test_a_tensor_that_no_image_needs_is_refused(tmp_path, model):
    with pytest.raises(InputError, match=r"m\.onnx.* GiB"):
        read(tmp_path, model)


def test_many_constants_that_are_computed_are_refused_by_their_sum(tmp_path):
    model = content.linear()
    model.graph.initializer.append(numpy_helper.from_array(np.array([10**8]), "s"))
    for index in range(4):
        node = helper.make_node("ConstantOfShape", ["s"], [f"big{index}"], f"n{index}")
        model.graph.node.append(node)
    with pytest.raises(InputError, match="of constants alone"):
        read(tmp_path, model)


@pytest.mark.parametrize("opset", [1, 999])
def test_opsets_that_nobody_reads_are_refused(tmp_path, opset):
    with pytest.raises(InputError, match=f"has opset {opset}; 7 to 25 can be read"):
        read(tmp_path, content.linear(opset))


def test_the_attention_of_small_patches_is_no_bomb(tmp_path):
    """16,384 tokens of an image of 1,024²: 12 heads of it are a thousand times the image."""
    model = content.linear()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1024
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 1024
    del model.graph.node[:]
    model.graph.initializer.append(numpy_helper.from_array(np.array([12, 16384, 1]), "t"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 0, 0]), "a"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 3, 256, 256]), "b"))
    for node in (
        helper.make_node("Slice", ["x", "a", "b"], ["part"], "slice"),
        helper.make_node("Reshape", ["part", "t"], ["q"], "tokens"),
        helper.make_node("Transpose", ["q"], ["k"], "keys", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k"], ["scores"], "scores"),  # 12.9 GB
        helper.make_node("ReduceMax", ["scores"], ["y"], "y", keepdims=0),
    ):
        model.graph.node.append(node)
    read(tmp_path, model)
