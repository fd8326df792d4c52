"""ONNX files over protobuf's 2 GiB: weights in a data file, of real numbers or of a sparse file."""

import subprocess
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PREPROCESS = "height = 32\nwidth = 32\nmean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n"
DATA = "big.data"
_WIDTH, _PATCH = 64, 8


class _Graph:
    """A classifier of 32×32 pixels: patches, blocks that a caller adds, mean, head."""

    def __init__(self, folder, width=_WIDTH):
        self.folder, self.width = folder, width
        self.random = np.random.default_rng(0)
        self.nodes, self.constants = [], []
        kernel = self.random.normal(0, 0.07, (width, 3, _PATCH, _PATCH))
        self.add("Conv", ["pixels", self.constant("kernel", kernel)], "map", strides=[_PATCH] * 2)
        shape = self.constant("shape", np.array([0, width, -1]))
        self.add("Reshape", ["map", shape], "columns")
        self.add("Transpose", ["columns"], "tokens", perm=[0, 2, 1])

    def add(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def constant(self, name, values):
        values = values.astype(np.float32) if values.dtype.kind == "f" else values
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def external(self, name, dims, offset):
        """A float32 constant in the data file."""
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": DATA, "offset": offset}.items():
            tensor.external_data.add(key=key, value=str(value))
        self.constants.append(tensor)
        return name

    def save(self, tokens):
        """Write `big.onnx`, with a head on `tokens`."""
        self.add("ReduceMean", [tokens], "pooled", axes=[1], keepdims=0)
        head = self.random.normal(0, self.width**-0.5, (self.width, 10))
        self.add("MatMul", ["pooled", self.constant("head", head)], "logits")
        graph = helper.make_graph(
            self.nodes,
            "big",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 32, 32])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        (self.folder / "p.toml").write_text(PREPROCESS)
        onnx.save(model, self.folder / "big.onnx")
        return self.folder / "big.onnx"


def with_table(folder, size_bytes):
    """A small classifier that adds one row of a table of zeros: its file has no blocks."""
    graph = _Graph(folder)
    rows = size_bytes // (4 * _WIDTH)
    with (folder / DATA).open("wb") as file:
        file.truncate(rows * 4 * _WIDTH)
    table = graph.external("table", [rows, _WIDTH], 0)
    row = graph.add("Gather", [table, graph.constant("row", np.array([3]))], "row_3")
    return graph.save(graph.add("Add", ["tokens", row], "moved"))


def with_blocks(folder, size_bytes, width=1024):
    """Residual two-layer perceptrons of random weights, as many as `size_bytes` takes."""
    graph, tokens, offset = _Graph(folder, width), "tokens", 0
    gain = graph.constant("gain", np.ones(width, np.float32))
    with (folder / DATA).open("wb") as file:
        for block in range(size_bytes // (4 * 8 * width * width)):
            names = []
            for name, dims in {"up": [width, 4 * width], "down": [4 * width, width]}.items():
                names.append(graph.external(f"{block}.{name}.weight", dims, offset))
                weight = graph.random.standard_normal(dims, np.float32) * dims[0] ** -0.5
                file.write((0.5 * weight).astype(np.float32).data)
                offset += weight.nbytes
            hidden = graph.add("LayerNormalization", [tokens, gain], f"{block}.norm")
            hidden = graph.add("MatMul", [hidden, names[0]], f"{block}.up")
            hidden = graph.add("Relu", [hidden], f"{block}.relu")
            hidden = graph.add("MatMul", [hidden, names[1]], f"{block}.down")
            tokens = graph.add("Add", [tokens, hidden], f"{block}.sum")
    return graph.save(tokens)


def peak_bytes(*arguments):
    """Peak resident memory of `python ARGUMENTS`, which must succeed: file pages count where they
    are mapped."""
    report = "import atexit; atexit.register(lambda: print(open('/proc/self/status').read()))"
    code = f"import runpy, sys; {report}; "
    first, *others = map(str, arguments)
    if first == "-c":
        code += others[0]
    else:
        module, *rest = others
        code += f"sys.argv = {[module, *rest]!r}; runpy.run_module({module!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    (line,) = (x for x in done.stdout.decode().splitlines() if x.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])
