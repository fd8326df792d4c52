"""Contents that readers have to refuse or to bear: bytes, JSON, arrays, ONNX."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
from typing import Any

import numpy as np
from onnx import AttributeProto, TensorProto, helper, numpy_helper

PLACES = (
    *("/etc/passwd", "../victim/secret", "x.bin", "*/_ORT_MEM_ADDR_/*", "", ".", "a/../../b"),
)
"""Where tensors do not keep their data."""
TEXTS = (
    *("", " ", "..", "/etc/passwd", "../../x", "a/b", "a\\b", "\x1b[31m\x1b]0;x\x07", "a\nb"),
    *("\u202egnp", "\x00", "\x7f\x9b", "x" * 70_000, "<script>", "%s%n", "model.onnx", "\ufeff"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2**31, 10**18, 10**40, 0.5, -1e308, 1e308),
    *(TEXTS),
    *([], {}, [[]] * 50, {"": {}}, ["x"] * 1000, [0] * 1000),
)


def bytes_of(chance: random.Random, content: bytes) -> bytes:
    """`content`, damaged: cut, flipped, spliced, repeated, or something else."""
    data = bytearray(content)
    place = chance.randrange(len(data) or 1)
    match chance.randrange(8):
        case 0:
            return bytes(data[:place])
        case 1:
            for _ in range(chance.randrange(1, 8)):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        case 2:
            data[place:place] = chance.randbytes(chance.randrange(1, 64))
        case 3:
            data += bytes(data[place:])
        case 4:
            return chance.randbytes(chance.randrange(2000))
        case 5:
            del data[place : place + chance.randrange(1, 200)]
        case 6:
            data[place : place + 4] = b"\xff\xff\xff\x7f"
        case _:
            return b"\0" * chance.randrange(1, 100_000)
    return bytes(data)


def document(chance: random.Random, content: Any) -> bytes:
    """JSON like `content`, with other values, keys and depths, or no JSON."""
    content = copy.deepcopy(content)
    for _ in range(chance.randrange(1, 4)):
        holder, key = chance.choice(list(_places(content)) or [({}, "")])
        match chance.randrange(5):
            case 0 if isinstance(holder, dict):
                holder.pop(key, None)
            case 1 if isinstance(holder, dict):
                holder[chance.choice(TEXTS)] = copy.deepcopy(chance.choice(VALUES))
            case 2:
                holder[key] = [copy.deepcopy(holder[key])] * 3
            case _:
                holder[key] = copy.deepcopy(chance.choice(VALUES))
    text = json.dumps(content)
    match chance.randrange(12):
        case 0:
            return text.encode()[: chance.randrange(len(text))]
        case 1:
            depth = chance.choice((100, 5000, 200_000))
            return text[:-1].encode() + b', "deep": ' + b"[" * depth + b"]" * depth + b"}"
        case 2:
            return text[:-1].encode() + b', "n": ' + b"9" * chance.choice((400, 60_000)) + b"}"
        case 3:
            return text.encode("utf-16")
        case 4:
            return text[:-1].encode() + b', "s": "\xff\xfe"}'
        case 5:
            return text[:-1].encode() + b', "n": NaN, "i": Infinity}'
        case 6:
            return text[:-1].encode() + b', "v": [' + b"0," * 3_000_000 + b"0]}"
    return text.encode()


def _places(content: Any) -> Any:
    """Every container in a document, and a key of it."""
    pending = [content]
    while pending:
        holder = pending.pop()
        entries = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for key, value in entries:
            yield holder, key
            if isinstance(value, (dict, list)):
                pending.append(value)


def npy(array: np.ndarray[Any, Any], **header: Any) -> bytes:
    """An array as .npy; what `header` says in place of the truth."""
    stated = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape} | header
    text = repr(stated).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) & 0xFFFF) + text + array.tobytes()


def npz(chance: random.Random, arrays: dict[str, np.ndarray[Any, Any]]) -> bytes:
    """An .npz of `arrays`, one of them not what it says."""
    name = chance.choice(list(arrays))
    array = arrays[name]
    members = {f"{key}.npy": npy(value) for key, value in arrays.items()}
    lie = f"{name}.npy"
    method = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    match chance.randrange(14):
        case 0:
            members[lie] = npy(array, shape=(2**40,))
        case 1:
            members[lie] = npy(array, shape=(2**62, 2**62))
        case 2:
            members[lie] = npy(array, shape=(-1, *array.shape[1:]))
        case 3:
            members[lie] = npy(array, descr="|O")
        case 4:
            members[lie] = npy(
                array, descr=chance.choice(("<f4", "<U9", "|V8", "<M8[s]", "?", "x"))
            )
        case 5:
            members[lie] = npy(np.zeros(2**27, np.uint8))
            method = zipfile.ZIP_DEFLATED
        case 6:
            members[lie] = members[lie][: chance.randrange(len(members[lie]))]
        case 7:
            members[lie] = bytes_of(chance, members[lie])
        case 8:
            del members[lie]
        case 9:
            members |= {f"{index}.npy": npy(np.zeros(1)) for index in range(5000)}
        case 10:
            members[chance.choice(("../x.npy", "/x.npy", "x" * 5000, "\x1b.npy"))] = members[lie]
        case 11:
            members[lie] = npy(array.reshape(-1)[: max(1, array.size // 2)])
        case 12:
            members[lie] = npy(array.astype(np.float64) * np.nan)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for key, value in members.items():
            archive.writestr(key, value)
    data = content.getvalue()
    return bytes_of(chance, data) if chance.randrange(4) == 0 else data


def linear(opset: int = 17) -> Any:
    """A whole model: logits of an image (1, 3, 32, 32)."""
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])
    logits = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    weight = numpy_helper.from_array(np.ones((3072, 3), np.float32), "w")
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], "flatten"),
        helper.make_node("MatMul", ["f", "w"], ["y"], "head"),
    ]
    body = helper.make_graph(nodes, "g", [image], [logits], [weight])
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(body, opset_imports=opsets, ir_version=9)


def graph(chance: random.Random, model: Any) -> bytes:
    """An ONNX file like `model` that keeps data elsewhere, never ends, or is far too large."""
    model = copy.deepcopy(model)
    nodes, first = model.graph.node, model.graph.input[0].name
    match chance.randrange(9):
        case 0:
            weight = chance.choice(model.graph.initializer)
            weight.ClearField("raw_data")
            weight.data_location = TensorProto.EXTERNAL
            weight.external_data.add(key="location", value=chance.choice(PLACES))
            offset = chance.choice(("0", "-1", "99999999999999"))
            weight.external_data.add(key="offset", value=offset)
        case 1:
            _functions(model, chance.randrange(16, 60), first)
        case 2:
            _nested(model, chance.choice((25, 31)))
        case 3:
            for index in range(chance.choice((60_000, 200_000))):
                nodes.add(op_type="Relu", input=[first], output=[f"r{index}"])
        case 4:
            size = numpy_helper.from_array(np.array([10**6, 10**6]), "huge")
            model.graph.initializer.append(size)
            nodes.append(helper.make_node("ConstantOfShape", ["huge"], ["bomb"]))
            nodes.append(helper.make_node("ReduceSum", ["bomb"], ["b"], keepdims=0))
            model.graph.output.add(name="b").type.tensor_type.elem_type = TensorProto.FLOAT
        case 5:
            weight = chance.choice(model.graph.initializer)
            weight.dims[:] = chance.choice(([2**40], [-1, 3], [2**62, 2**62], [0], [1] * 100))
        case 6:
            attribute = nodes[0].attribute.add(name="zz", type=AttributeProto.TENSORS)
            tensor = attribute.tensors.add(name="k", data_type=1, dims=[64])
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="../victim/secret")
        case 7:
            content = model.SerializeToString()
            length = b"\xff\xff\xff\xff\x07"
            return content + chance.choice((b"\x3a" + length, b"\x0b", b"\x3a\x80", b"\xff" * 12))
        case _:
            nodes[chance.randrange(len(nodes))].op_type = chance.choice(("Evil", "Loop", "If", ""))
    return bytes(model.SerializeToString())


def _functions(model: Any, count: int, name: str) -> None:
    """Functions that call each other twice, or in a circle."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("L", 1)]
    for index in range(count):
        calls = [("Relu", "")] if index == 0 else [(f"F{index - 1}", "L")] * 2
        links = ["a", *[f"t{place}" for place in range(len(calls) - 1)], "b"]
        body = [
            helper.make_node(op, [links[place]], [links[place + 1]], domain=domain)
            for place, (op, domain) in enumerate(calls)
        ]
        model.functions.append(helper.make_function("L", f"F{index}", ["a"], ["b"], body, opsets))
    model.opset_import.append(opsets[1])
    model.graph.node.append(helper.make_node(f"F{count - 1}", [name], ["bomb"], domain="L"))


def _nested(model: Any, depth: int) -> None:
    """An If in an If in an If."""
    output = helper.make_tensor_value_info("o", TensorProto.BOOL, [])
    inner = helper.make_graph([helper.make_node("Identity", ["c"], ["o"])], "g", [], [output])
    for _ in range(depth):
        branches = {"then_branch": inner, "else_branch": inner if depth < 3 else _leaf(output)}
        node = helper.make_node("If", ["c"], ["o"], **branches)
        inner = helper.make_graph([node], "g", [], [output])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    model.graph.node.append(
        helper.make_node("If", ["c"], ["n"], then_branch=inner, else_branch=_leaf(output))
    )


def _leaf(output: Any) -> Any:
    return helper.make_graph([helper.make_node("Identity", ["c"], ["o"])], "e", [], [output])
