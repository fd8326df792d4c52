"""One small ViT as exporters write it: TorchScript's, dynamo's, tf2onnx's and Paddle's habits."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE, PATCH, WIDTH, HEADS, DEPTH, CLASSES = 32, 8, 64, 2, 2, 10
TOKENS = (SIZE // PATCH) ** 2
PREPROCESS = f"height = {SIZE}\nwidth = {SIZE}\nresize = 'exact'\nstd = [0.25, 0.25, 0.25]\n"
OPSETS = (9, 11, 13, 17, 21)


@dataclass(frozen=True)
class Row:
    """One file of the corpus."""

    exporter: str
    opset: int
    dims: str
    """`fixed` or `open`: batch, height and width."""

    def __str__(self) -> str:
        return f"{self.exporter}-{self.opset}-{self.dims}"

    def write(self, folder: Path) -> Path:
        path = folder / f"{self}.onnx"
        _EXPORTERS[self.exporter](path, self.opset, self.dims == "open")
        return path


def rows() -> Iterator[Row]:
    """Every file; dynamo writes no opset below 18, and TorchScript none above 20."""
    for dims in ("fixed", "open"):
        yield from (Row(style, n, dims) for style in ("tf2onnx", "paddle") for n in OPSETS)
        yield from (Row("torchscript", n, dims) for n in (9, 11, 13, 17))
        yield from (Row("dynamo", n, dims) for n in (18, 21, 23))


class Graph:
    """Nodes as an opset wants them: axes were attributes before they were inputs."""

    def __init__(self, opset: int, prefix: str) -> None:
        self.opset, self._prefix = opset, prefix
        self._nodes: list[onnx.NodeProto] = []
        self._stored: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        names = [f"{self._prefix}{kind}.{len(self._nodes)}.{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, names, names[0], **attributes))
        return names[0]

    def constant(self, value: object) -> str:
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int64)
        tensor = numpy_helper.from_array(array, f"{self._prefix}const.{len(self._nodes)}")
        return self.op("Constant", value=tensor)

    def weight(self, *dims: int, scale: float | None = None, shift: float = 0.0) -> str:
        deviation = 1 / math.sqrt(math.prod(dims[:-1])) if scale is None else scale
        values = shift + self._random.normal(0, deviation, dims)
        name = f"{self._prefix}weight.{len(self._stored)}"
        self._stored.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def axes(self, kind: str, x: str, axes: list[int], since: int, **attributes: object) -> str:
        if self.opset < since:
            return self.op(kind, x, axes=axes, **attributes)
        return self.op(kind, x, self.constant(axes), **attributes)

    def mean(self, x: str, axis: int, keepdims: int = 1) -> str:
        return self.axes("ReduceMean", x, [axis], 18, keepdims=keepdims)

    def slice(self, x: str, start: int, end: int, axis: int) -> str:
        if self.opset < 10:
            return self.op("Slice", x, starts=[start], ends=[end], axes=[axis])
        return self.op("Slice", x, *(self.constant([n]) for n in (start, end, axis)))

    def dim(self, x: str, axis: int) -> str:
        """The size of one axis, (1,)."""
        return self.slice(self.op("Shape", x), axis, axis + 1, 0)

    def reshape(self, x: str, *sizes: int | str) -> str:
        """To sizes of which some are computed."""
        parts = [size if isinstance(size, str) else self.constant([size]) for size in sizes]
        return self.op("Reshape", x, self.op("Concat", *parts, axis=0))

    def save(self, path: Path, dims: list[int | str], output: str, classes: int | str) -> None:
        self._nodes.append(helper.make_node("Identity", [output], ["logits"], "output"))
        graph = helper.make_graph(
            self._nodes,
            "vit",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, dims)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [dims[0], classes])],
            self._stored,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        ir_version = helper.find_min_ir_version_for(opsets)
        if ir_version < 4:  # stored tensors were inputs, too
            graph.input.extend(
                helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in self._stored
            )
        model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def _tf2onnx(path: Path, opset: int, is_open: bool) -> None:
    """NHWC; every Dense between two Reshapes; LayerNorm as tf.nn.batch_normalization."""
    g = Graph(opset, "StatefulPartitionedCall/vit/")

    def norm(x: str) -> str:
        mean = g.mean(x, 2)
        distance = g.op("Sub", x, mean)
        variance = g.mean(g.op("Mul", distance, distance), 2)
        root = g.op("Sqrt", g.op("Add", variance, g.constant(1e-6)))
        scale = g.op("Mul", g.op("Reciprocal", root), g.weight(WIDTH, scale=0.1, shift=1))
        shift = g.op("Sub", g.weight(WIDTH, scale=0.1), g.op("Mul", mean, scale))
        return g.op("Add", g.op("Mul", x, scale), shift)

    def dense(x: str, before: int, after: int) -> str:
        rows = g.op("Reshape", x, g.constant([-1, before]))
        product = g.op("MatMul", rows, g.weight(before, after))
        whole = g.reshape(product, g.dim(x, 0), g.dim(x, 1), after)
        return g.op("Add", whole, g.weight(after, scale=0.1))

    def headed(x: str) -> str:
        split = g.reshape(x, g.dim(x, 0), -1, HEADS, WIDTH // HEADS)
        return g.op("Transpose", split, perm=[0, 2, 1, 3])

    def attention(x: str) -> str:
        query, key, value = (headed(dense(x, WIDTH, WIDTH)) for _ in "qkv")
        root = g.op("Sqrt", g.op("Cast", g.dim(key, 3), to=TensorProto.FLOAT))
        scores = g.op("MatMul", query, g.op("Transpose", key, perm=[0, 1, 3, 2]))
        probabilities = g.op("Softmax", g.op("Div", scores, root), axis=3)
        context = g.op("Transpose", g.op("MatMul", probabilities, value), perm=[0, 2, 1, 3])
        return dense(g.reshape(context, g.dim(x, 0), -1, WIDTH), WIDTH, WIDTH)

    def gelu(x: str, block: int) -> str:
        if block % 2:  # approximate=True
            cube = g.op("Mul", g.constant(0.044715), g.op("Pow", x, g.constant(3.0)))
            inner = g.op("Mul", g.op("Add", x, cube), g.constant(math.sqrt(2 / math.pi)))
            bent = g.op("Tanh", inner)
        else:
            bent = g.op("Erf", g.op("Div", x, g.constant(math.sqrt(2))))
        half = g.op("Mul", g.constant(0.5), x)
        return g.op("Mul", half, g.op("Add", g.constant(1.0), bent))

    planes = g.op("Transpose", "pixels", perm=[0, 3, 1, 2])
    weight = g.weight(WIDTH, 3, PATCH, PATCH, scale=0.07)
    patches = g.op("Conv", planes, weight, strides=[PATCH] * 2, kernel_shape=[PATCH] * 2)
    patches = g.op("Transpose", patches, perm=[0, 2, 3, 1])
    patches = g.op("Add", patches, g.weight(WIDTH, scale=0.1))
    x = g.reshape(patches, g.dim(patches, 0), -1, WIDTH)
    repeats = g.op("Concat", g.dim(x, 0), g.constant([1, 1]), axis=0)
    token = g.op("Tile", g.weight(1, 1, WIDTH, scale=0.5), repeats)
    x = g.op("Concat", token, x, axis=1)
    x = g.op("Add", x, g.weight(1, TOKENS + 1, WIDTH, scale=0.5))
    for block in range(DEPTH):
        x = g.op("Add", attention(norm(x)), x)
        hidden = gelu(dense(norm(x), WIDTH, 4 * WIDTH), block)
        x = g.op("Add", dense(hidden, 4 * WIDTH, WIDTH), x)
    first = g.axes("Squeeze", g.slice(norm(x), 0, 1, 1), [1], 13)
    logits = g.op("Add", g.op("MatMul", first, g.weight(WIDTH, CLASSES)), g.weight(CLASSES))
    dims = ["unk__1", "unk__2", "unk__3", 3] if is_open else [1, SIZE, SIZE, 3]
    g.save(path, dims, logits, CLASSES)


def _paddle(path: Path, opset: int, is_open: bool) -> None:
    """Names of p2o; one Linear for Q, K and V, taken apart; no-ops of `scale`."""
    g = Graph(opset, "p2o.")

    def norm(x: str) -> str:
        distance = g.op("Sub", x, g.mean(x, -1))
        variance = g.mean(g.op("Pow", distance, g.constant(2.0)), -1)
        root = g.op("Sqrt", g.op("Add", variance, g.constant(1e-5)))
        scaled = g.op("Mul", g.op("Div", distance, root), g.weight(WIDTH, scale=0.1, shift=1))
        return g.op("Add", scaled, g.weight(WIDTH, scale=0.1))

    def linear(x: str, before: int, after: int) -> str:
        return g.op("Add", g.op("MatMul", x, g.weight(before, after)), g.weight(after, scale=0.1))

    def attention(x: str) -> str:
        qkv = g.reshape(linear(x, WIDTH, 3 * WIDTH), g.dim(x, 0), -1, 3, HEADS, WIDTH // HEADS)
        qkv = g.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
        parts = (g.axes("Squeeze", g.slice(qkv, i, i + 1, 0), [0], 13) for i in range(3))
        query, key, value = parts
        scaled = g.op("Add", g.op("Mul", query, g.constant((WIDTH // HEADS) ** -0.5)), zero)
        scores = g.op("MatMul", scaled, g.op("Transpose", key, perm=[0, 1, 3, 2]))
        largest = (
            g.op("ReduceMax", scores, axes=[-1], keepdims=1)
            if opset < 18
            else g.op("ReduceMax", scores, g.constant([-1]), keepdims=1)
        )
        powers = g.op("Exp", g.op("Sub", scores, largest))
        total = g.axes("ReduceSum", powers, [-1], 13, keepdims=1)
        probabilities = g.op("Div", powers, total)
        context = g.op("Transpose", g.op("MatMul", probabilities, value), perm=[0, 2, 1, 3])
        return linear(g.reshape(context, g.dim(x, 0), -1, WIDTH), WIDTH, WIDTH)

    def gelu(x: str) -> str:
        bent = g.op("Erf", g.op("Mul", x, g.constant(math.sqrt(0.5))))
        return g.op("Mul", g.op("Mul", x, g.op("Add", bent, g.constant(1.0))), g.constant(0.5))

    zero = g.constant(0.0)
    weight = g.weight(WIDTH, 3, PATCH, PATCH, scale=0.07)
    patches = g.op("Conv", "pixels", weight, strides=[PATCH] * 2, kernel_shape=[PATCH] * 2)
    bias = g.op("Reshape", g.weight(WIDTH, scale=0.1), g.constant([1, -1, 1, 1]))
    patches = g.op("Add", patches, bias)
    rows = g.reshape(patches, g.dim(patches, 0), WIDTH, -1)
    x = g.op("Transpose", rows, perm=[0, 2, 1])
    x = g.op("Add", x, g.weight(1, TOKENS, WIDTH, scale=0.5))
    for _ in range(DEPTH):
        x = g.op("Add", x, attention(norm(x)))
        x = g.op("Add", x, linear(gelu(linear(norm(x), WIDTH, 4 * WIDTH)), 4 * WIDTH, WIDTH))
    pooled = g.mean(norm(x), 1, keepdims=0)
    dims = ["batch", "channels", "height", "width"] if is_open else [1, 3, SIZE, SIZE]
    g.save(path, dims, linear(pooled, WIDTH, CLASSES), "classes" if is_open else CLASSES)


def _torch(path: Path, opset: int, is_open: bool, dynamo: bool) -> None:
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            batch, tokens, _ = x.shape
            qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, HEADS, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            if opset >= 14:
                mixed = functional.scaled_dot_product_attention(q, k, v)
            else:
                mixed = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1) @ v
            x = x + self.proj(mixed.transpose(1, 2).reshape(batch, tokens, WIDTH))
            return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))

    class ViT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, WIDTH, PATCH, PATCH)
            self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
            self.position = nn.Parameter(torch.randn(1, TOKENS + 1, WIDTH))
            self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
            self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            x = self.patch(pixels).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
            return self.head(self.norm(self.blocks(x))[:, 0])

    torch.manual_seed(0)
    model, example = ViT().eval(), torch.zeros(2 if is_open else 1, 3, SIZE, SIZE)
    names = {"input_names": ["pixel_values"], "output_names": ["logits"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            batch = {0: torch.export.Dim("batch_size")} if is_open else None
            shapes = (batch,) if is_open else None
            torch.onnx.export(
                model,
                (example,),
                path,
                opset_version=opset,
                dynamo=True,
                verbose=False,
                dynamic_shapes=shapes,
                external_data=False,
                **names,
            )
        else:
            axes = {0: "batch_size", 1: "num_channels", 2: "height", 3: "width"}
            dynamic = {"pixel_values": axes, "logits": {0: "batch_size", 1: "classes"}}
            torch.onnx.export(
                model,
                (example,),
                path,
                opset_version=opset,
                dynamo=False,
                dynamic_axes=dynamic if is_open else None,
                **names,
            )


_EXPORTERS = {
    "tf2onnx": _tf2onnx,
    "paddle": _paddle,
    "torchscript": lambda *a: _torch(*a, dynamo=False),
    "dynamo": lambda *a: _torch(*a, dynamo=True),
}
