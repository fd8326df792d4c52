"""A graph written twice keeps every constant that lies in its data file."""

import numpy as np
import onnx_ir as ir

from vitedge.graph.external import constant, load, write


def test_what_is_added_later_leaves_what_lies_there(tmp_path):
    x = ir.Value(name="x", shape=ir.Shape([1000]), type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 20}, name="sum")
    model, path, total = ir.Model(graph, ir_version=10), tmp_path / "model.onnx", x
    for number in range(3):
        term = constant(graph, f"c{number}", np.full(1000, number, np.float32))
        node = ir.node("Add", [total, term], name=f"add{number}")
        total = node.outputs[0]
        graph.append(node)
        graph.outputs[:] = [total]
        write(model, path)
    write(model, path)  # with nothing new
    stored = load(path).graph.initializers
    assert [stored[f"c{n}"].const_value.numpy().tolist() for n in range(3)] == [
        [float(n)] * 1000 for n in range(3)
    ]
