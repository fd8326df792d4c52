"""Files of others that a user hands over: weights, settings, images, ONNX."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.hostile import content
from tests.support.hostile.bundles import contents, said
from vitedge.core.errors import VitedgeError
from vitedge.core.spec import Preprocess, Target

Read = Callable[[], object]


def attempt(
    make: Callable[[random.Random, Path], Read], chance: random.Random, folder: Path
) -> str:
    """Make a file in `folder`, and read it. Raises AssertionError where that does harm."""
    victim, work = folder / "victim", folder / "work"
    victim.mkdir()
    work.mkdir()
    (victim / "secret").write_bytes(b"canary" * 100)
    read = make(chance, work)
    before = contents(folder)
    outcome = "harmless"
    try:
        read()
    except VitedgeError as error:
        said(error)
        outcome = "refused"
    assert contents(folder) == before, "it wrote something"
    return outcome


def _toml(chance: random.Random, folder: Path) -> Read:
    from vitedge.core.toml import load_toml

    path, kind = folder / "t.toml", chance.choice((Preprocess, Target))
    keys = ("height", "width", "mean", "name", "runtime", "options", "evil", "threads")
    lines = [
        f"{chance.choice(keys)} = {json.dumps(chance.choice(content.VALUES))}" for _ in range(4)
    ]
    match chance.randrange(8):
        case 0:
            lines.append(".".join(["a"] * chance.choice((70, 5000, 50_000))) + " = 1")
        case 1:
            lines.append("[" + ".".join(["a"] * 20_000) + "]")
        case 2:
            lines.append("a = " + "[" * 50_000 + "]" * 50_000)
        case 3:
            lines.append("a = " + "9" * 10_000)
        case 4:
            lines += ["[[a]]"] * 100_000
        case 5:
            lines.append('a = "' + "x" * 2_000_000 + '"')
        case 6:
            lines.append("a = " + "{a = " * 2000 + "1" + "}" * 2000)
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    path.write_bytes(text if chance.randrange(4) else content.bytes_of(chance, text))
    return lambda: load_toml(path, kind)


def _settings(chance: random.Random, folder: Path) -> Read:
    from vitedge.models.sources.settings import read_preprocess

    path = folder / "preprocessor_config.json"
    stated = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_resize": True,
        "resample": 2,
    }
    path.write_bytes(content.document(chance, stated))
    return lambda: read_preprocess(path, (32, 32), [])


def _safetensors(chance: random.Random, folder: Path) -> Read:
    from vitedge.models.sources.checkpoints import read_tensors

    path = folder / "w.safetensors"
    tensors: dict[str, Any] = {
        f"t{index}": {"dtype": "F32", "shape": [4], "data_offsets": [16 * index, 16 * index + 16]}
        for index in range(4)
    }
    body = np.ones(16, "<f4").tobytes()
    header = json.dumps(tensors).encode()
    match chance.randrange(6):
        case 0:
            tensors["t0"]["shape"] = chance.choice(([2**40], [2**62, 2**62], [-4], [0], [4] * 100))
            header = json.dumps(tensors).encode()
        case 1:
            tensors["t1"]["data_offsets"] = chance.choice(([0, 16], [0, 2**62], [16, 0], [-16, 0]))
            header = json.dumps(tensors).encode()
        case 2:
            many = {f"t{index}": tensors["t0"] for index in range(70_000)}
            header = json.dumps(many).encode()
        case 3:
            header = content.document(chance, tensors)
        case 4:
            body = body[: chance.randrange(len(body))]
    length = len(header) if chance.randrange(4) else chance.choice((0, 1, 2**62, 2**64 - 1, 10**9))
    data = struct.pack("<Q", length) + header + body
    path.write_bytes(data if chance.randrange(4) else content.bytes_of(chance, data))
    return lambda: read_tensors(path)


class _Call:
    """Pickled, it calls; read, it must not."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _checkpoint(chance: random.Random, folder: Path) -> Read:
    import torch

    from vitedge.models.sources.checkpoints import read_tensors

    path, state = folder / "w.pt", {"a": torch.ones(4, 4), "b": torch.zeros(4)}
    match chance.randrange(9):
        case 0:
            state["a"] = torch.ones(1).expand(2**20, 2**20)
        case 1:
            state["a"] = torch.full((4, 4), torch.nan)
    held = io.BytesIO()
    torch.save(state, held, _use_new_zipfile_serialization=chance.randrange(4) > 0)
    data = held.getvalue()
    match chance.randrange(9):
        case 0:
            target = str(folder.parent / "victim" / "executed")
            data = pickle.dumps({"a": _Call(open, target, "w")})
        case 1:
            doubled: Any = ("x", "x")
            for _ in range(60):
                doubled = (doubled, doubled)
            data = pickle.dumps({"a": doubled}, protocol=2)
        case 2:
            data = pickle.dumps({"a": _Call(bytearray, 2**44)}, protocol=2)
        case 3 if data[:2] == b"PK":
            data = _with_member(data, "x/data/bomb", b"\0" * 2**27)
        case 4:
            data = b"\x80\x02" + b"]" * 9_000_000 + b"."
        case 5 | 6:
            data = content.bytes_of(chance, data)
    path.write_bytes(data)
    return lambda: read_tensors(path)


def _with_member(data: bytes, name: str, member: bytes) -> bytes:
    held = io.BytesIO(data)
    with zipfile.ZipFile(held, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, member)
    return held.getvalue()


def _arrays(chance: random.Random, folder: Path) -> Read:
    from vitedge.data.decode import read_images

    path = folder / "set.npz"
    arrays = {"images": np.zeros((4, 8, 8, 3), np.uint8), "labels": np.arange(4)}
    path.write_bytes(content.npz(chance, arrays))
    return lambda: read_images(str(path), "labels")


def _onnx(chance: random.Random, folder: Path) -> Read:
    from vitedge.graph.io import read_inlined

    path = folder / "m.onnx"
    model = content.linear(chance.choice((17, 17, 17, 21, 1, 999, -5)))
    data = content.graph(chance, model)
    path.write_bytes(data if chance.randrange(4) else content.bytes_of(chance, data))
    return lambda: read_inlined(path)


def _annotations(chance: random.Random, folder: Path) -> Read:
    from vitedge.data.annotations import categories

    path = folder / "annotations.json"
    stated = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path.write_bytes(content.document(chance, stated))
    return lambda: categories(str(path))


KINDS = {
    "TOML": _toml,
    "settings in JSON": _settings,
    "safetensors": _safetensors,
    "torch's checkpoints": _checkpoint,
    "data sets in .npz": _arrays,
    "ONNX files": _onnx,
    "annotations": _annotations,
}
