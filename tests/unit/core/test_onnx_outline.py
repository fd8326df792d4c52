"""What an ONNX file holds is told from its bytes, within bounds, without parsing it."""

import onnx
import pytest
from onnx import TensorProto, helper

from tests.support.hostile import content
from vitedge.core import onnx_outline
from vitedge.core.errors import InputError
from vitedge.core.onnx_outline import Malformed, expand, read


def calls(*bodies):
    """Functions F0, F1, …, each of the operators named: `F0` is a call, all else ONNX's own."""
    model = content.linear()
    for index, body in enumerate(bodies):
        nodes = [
            helper.make_node(op, ["a"], ["b"], domain="L" if op.startswith("F") else "")
            for op in body
        ]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("L", 1)]
        model.functions.append(helper.make_function("L", f"F{index}", ["a"], ["b"], nodes, opsets))
    name = f"F{len(bodies) - 1}"
    model.graph.node.append(helper.make_node(name, ["x"], ["q"], domain="L"))
    return model.SerializeToString()


def nodes_of(stored):
    return expand(read(stored), len(stored))


def test_the_messages_are_those_of_onnx():
    known, pending = {}, [onnx.ModelProto.DESCRIPTOR]
    while pending:
        message = pending.pop()
        if called(message) not in known:
            holds = [field for field in message.fields if field.message_type]
            known[called(message)] = {f.number: called(f.message_type) for f in holds}
            pending += [field.message_type for field in holds]
    assert {name: dict(holds) for name, holds in onnx_outline.FIELDS_OF.items()} == {
        name: holds for name, holds in known.items() if holds
    }


def called(message):
    return message.full_name.removeprefix("onnx.").replace("Proto", "")


def test_nodes_are_counted_after_functions_are_written_out():
    assert nodes_of(content.linear().SerializeToString()) == 2
    assert nodes_of(calls(["Relu", "Relu"], ["F0", "F0", "Relu"])) == 2 + 5


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        (calls(["Relu"], *[[f"F{index}"] * 2 for index in range(30)]), "nodes with its functions"),
        (calls(["F0"]), "calls itself"),
        (calls(["F1"], ["F0"]), "calls itself"),
        (calls(["Relu"], *[[f"F{index}"] for index in range(40)]), "functions call each other"),
        (b"\x3a\xff\xff\xff\xff\x07", "cut short"),
        (b"\xff" * 20, "cut short"),
        (b"\x0b", "wire type"),
        (b"\x3a\x02\x0a\x05", "cut short"),
    ],
)
def test_files_without_bounds_are_refused(stored, why):
    with pytest.raises(Malformed, match=why):
        nodes_of(stored)


def nested(depth):
    """Graphs in attributes of nodes of graphs."""
    stored = b""
    for _ in range(depth):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # attribute.g, node.attribute, graph.node
            stored = tag + varint(len(stored)) + stored
    return b"\x3a" + varint(len(stored)) + stored


def varint(number):
    stored = b""
    while number > 127:
        stored += bytes([number & 127 | 128])
        number >>= 7
    return stored + bytes([number])


def test_graphs_nest_so_deep_and_no_deeper():
    assert nodes_of(nested(20)) == 20
    for depth in (22, 5000):
        with pytest.raises(Malformed, match="messages in each other"):
            read(nested(depth))


def test_more_nodes_than_any_model_has_are_refused():
    graph = b"\x0a\x00" * (onnx_outline.NODES + 1)
    with pytest.raises(Malformed, match="nodes"):
        read(b"\x3a" + varint(len(graph)) + graph)


def test_data_lies_in_files_of_the_artifact(tmp_path):
    model, path = content.linear(), tmp_path / "model.onnx"
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="model.onnx.data")
    path.write_bytes(model.SerializeToString())
    onnx_outline.check(path, "it", {"model.onnx", "model.onnx.data"})
    with pytest.raises(InputError, match=r"it keeps data at 'model\.onnx\.data'"):
        onnx_outline.check(path, "it", {"model.onnx"})
