"""The structure of an ONNX file, read off its bytes before anything parses or walks it.

Needs no package: devices look at a bundle's models in the same way.
"""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vitedge.core.bounded import open_regular
from vitedge.core.errors import InputError

DEPTH = 64
"""Messages in each other: an If within an If takes three."""
NODES = 50_000
"""After every function is written out where it is called."""
FIELDS = 1_500_000
"""Of all messages; a tensor's bytes are one."""
CALLS_DEEP = 32
"""Functions that call each other."""
EXPANDED: Final = 8
"""How many times the file its functions may be once they are written out, beside 64 MiB."""
EXPANDED_FREE: Final = 64 * 2**20
FIX = "is it the right file?"

FIELDS_OF: Mapping[str, Mapping[int, str]] = {
    "Model": {
        **{7: "Graph", 8: "OperatorSetId", 14: "StringStringEntry", 20: "TrainingInfo"},
        **{25: "Function", 26: "DeviceConfiguration"},
    },
    "Graph": {
        **{1: "Node", 5: "Tensor", 11: "ValueInfo", 12: "ValueInfo", 13: "ValueInfo"},
        **{14: "TensorAnnotation", 15: "SparseTensor", 16: "StringStringEntry"},
    },
    "Node": {5: "Attribute", 9: "StringStringEntry", 10: "NodeDeviceConfiguration"},
    "Attribute": {
        **{5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 14: "Type", 15: "Type"},
        **{22: "SparseTensor", 23: "SparseTensor"},
    },
    "Function": {
        **{7: "Node", 9: "OperatorSetId", 11: "Attribute", 12: "ValueInfo"},
        14: "StringStringEntry",
    },
    "TrainingInfo": {1: "Graph", 2: "Graph", 3: "StringStringEntry", 4: "StringStringEntry"},
    "Tensor": {3: "Tensor.Segment", 13: "StringStringEntry", 16: "StringStringEntry"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "TensorAnnotation": {2: "StringStringEntry"},
    "ValueInfo": {2: "Type", 4: "StringStringEntry"},
    "Type": {
        **{1: "Type.Tensor", 4: "Type.Sequence", 5: "Type.Map", 7: "Type.Opaque"},
        **{8: "Type.SparseTensor", 9: "Type.Optional"},
    },
    "Type.Tensor": {2: "TensorShape"},
    "Type.SparseTensor": {2: "TensorShape"},
    "Type.Sequence": {1: "Type"},
    "Type.Optional": {1: "Type"},
    "Type.Map": {2: "Type"},
    "TensorShape": {1: "TensorShape.Dimension"},
    "NodeDeviceConfiguration": {2: "ShardingSpec"},
    "ShardingSpec": {3: "IntIntListEntry", 4: "ShardedDim"},
    "ShardedDim": {2: "SimpleShardedDim"},
}
"""The messages that a message holds, by the number of the field: `onnx.proto`."""
_NAMES: Final = {"Node": (7, 4, 8), "Function": (10, 1, 13)}
"""The fields that say which operator a node is, and which one a function is."""
_KEY, _VALUE = 1, 2
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
Operator = tuple[str, ...]
"""Domain, name and overload."""


class Malformed(Exception):
    """Bytes that are no ONNX, or more of it than is read."""


@dataclass
class Body:
    """The nodes of the graph or of a function, those of subgraphs too."""

    size_bytes: int = 0
    operators: Counter[Operator] = field(default_factory=Counter)


@dataclass
class Outline:
    """What an ONNX file holds."""

    fields: int = 0
    nodes: int = 0
    """As they are written, those of functions too."""
    graph: Body = field(default_factory=Body)
    functions: dict[Operator, Body] = field(default_factory=dict)
    locations: set[str] = field(default_factory=set)
    """Where tensors keep their data."""


def check(path: Path, where: str, files: Collection[str] | None = None) -> None:
    """Raises InputError where the ONNX file `path` has more structure than a model needs.

    With `files`, also where its tensors keep data in any other than these. `where` is what
    messages call it.
    """
    with open_regular(path) as file:
        if not os.fstat(file.fileno()).st_size:
            raise InputError(f"{where} is not an ONNX file: it is empty", fix="export it again")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            outline = check_content(content, where)
    outside = sorted(outline.locations - set(files)) if files is not None else []
    if outside:
        raise InputError(
            f"{where} keeps data at {outside[0]!r:.200}, which is none of its artifact's files",
            fix="do not run it; export it again",
        )


def check_content(content: bytes | mmap.mmap, where: str) -> Outline:
    """As `check`, of a file that is read or open; returns what it holds."""
    try:
        outline = read(content)
        expand(outline, len(content))
    except Malformed as error:
        raise InputError(f"{where} is not an ONNX file: {error}", fix=FIX) from error
    return outline


def read(content: bytes | mmap.mmap) -> Outline:
    """The outline of an ONNX file. Raises Malformed."""
    outline = Outline()
    at, size_bytes = 0, len(content)
    stack = [_Message("Model", size_bytes, outline.graph)]
    while stack:
        message = stack[-1]
        if at >= message.end:
            if at > message.end:
                raise Malformed("a message is longer than what holds it")
            _close(stack.pop(), outline)
            continue
        outline.fields += 1
        if outline.fields > FIELDS:
            raise Malformed(f"it has more than {FIELDS:,} fields")
        tag, at = _varint(content, at, message.end)
        number, kind = tag >> 3, tag & 7
        if kind == _BYTES:
            length, at = _varint(content, at, message.end)
            if length > message.end - at:
                raise Malformed("it is cut short")
            inner = message.holds.get(number)
            if inner is None:
                if number in message.named:
                    if length > 4096:
                        raise Malformed("it has a name of more than 4,096 bytes")
                    message.names[number] = content[at : at + length].decode("utf-8", "replace")
                at += length
                continue
            if len(stack) >= DEPTH:
                raise Malformed(f"it has more than {DEPTH} messages in each other")
            body = Body(length) if inner == "Function" else message.body
            stack.append(_Message(inner, at + length, body, message.kind))
        elif kind == _VARINT:
            _, at = _varint(content, at, message.end)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            at += 8 if kind == _EIGHT_BYTES else 4
        else:
            raise Malformed(f"it has a field of wire type {kind}")
    outline.graph.size_bytes = size_bytes - sum(b.size_bytes for b in outline.functions.values())
    return outline


class _Message:
    """One that is being read."""

    __slots__ = ("body", "end", "holds", "kind", "named", "names")

    def __init__(self, kind: str, end: int, body: Body, within: str = "") -> None:
        self.kind, self.end, self.body = kind, end, body
        self.holds = FIELDS_OF.get(kind, {})
        entry = kind == "StringStringEntry" and within == "Tensor"
        self.named = (_KEY, _VALUE) if entry else _NAMES.get(kind, ())
        self.names: dict[int, str] = {}


def _close(message: _Message, outline: Outline) -> None:
    """Take down what a message that has ended was."""
    names = message.names
    operator = tuple(names.get(number, "") for number in message.named)
    if message.kind == "Node":
        message.body.operators[operator] += 1
        outline.nodes += 1
        if outline.nodes > NODES:
            raise Malformed(f"it has more than {NODES:,} nodes")
    elif message.kind == "Function":
        known = outline.functions.setdefault(operator, message.body)
        if known is not message.body:
            raise Malformed(f"it has the function {operator[1]!r:.200} twice")
    elif names.get(_KEY) == "location":
        outline.locations.add(names.get(_VALUE, ""))


def _varint(content: bytes | mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """The number at `at`, and where it ends. Raises Malformed."""
    value = shift = 0
    while at < end and shift < 70:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise Malformed("it is cut short, or no ONNX at all")


def expand(outline: Outline, size_bytes: int) -> int:
    """How many nodes a file of `size_bytes` has once its functions are written out.

    Raises Malformed where these are too many, or functions call each other in a circle.
    """
    costs: dict[Operator, tuple[int, int, int]] = {}  # nodes, bytes, depth
    for start in outline.functions:
        pending = [start]
        while pending:
            operator = pending[-1]
            body = outline.functions[operator]
            calls = [name for name in body.operators if name in outline.functions]
            unknown = [name for name in calls if name not in costs]
            if not unknown:
                costs[operator] = _cost(body, costs)
                pending.pop()
            elif set(unknown) & set(pending):
                raise Malformed(f"its function {operator[1]!r:.200} calls itself")
            elif len(pending) > CALLS_DEEP:
                raise Malformed(f"more than {CALLS_DEEP} of its functions call each other")
            else:
                pending.append(unknown[0])
    nodes, expanded_bytes, depth = _cost(outline.graph, costs)
    if depth > CALLS_DEEP:
        raise Malformed(f"more than {CALLS_DEEP} of its functions call each other")
    if nodes > NODES:
        raise Malformed(f"it has {nodes:,} nodes with its functions written out, over {NODES:,}")
    if expanded_bytes > EXPANDED * size_bytes + EXPANDED_FREE:
        raise Malformed("its functions are far larger than the file once they are written out")
    return nodes


def _cost(body: Body, costs: Mapping[Operator, tuple[int, int, int]]) -> tuple[int, int, int]:
    """Nodes, bytes and depth of `body`, its calls written out."""
    nodes, size_bytes, depth = 0, body.size_bytes, 0
    for operator, count in body.operators.items():
        inner = costs.get(operator)
        nodes += count * (inner[0] if inner else 1)
        if inner:
            size_bytes += count * inner[1]
            depth = max(depth, inner[2] + 1)
    return nodes, size_bytes, depth
