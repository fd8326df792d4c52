"""A .safetensors file is looked at before its library reads it."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from vitedge.core import safetensors
from vitedge.core.errors import InputError


def written(path, header, body=b"\0" * 64, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return path


def tensor(shape, start, end, dtype="F32"):
    return {"t": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}


def test_those_of_the_library_are_read(tmp_path):
    path = tmp_path / "w.safetensors"
    arrays = {name: np.ones((3, 4), name) for name in ("float32", "float16", "int8", "uint16")}
    save_file(arrays | {"none": np.ones((0, 5))}, path, {"format": "pt"})
    safetensors.check(path)


@pytest.mark.parametrize(
    ("header", "options"),
    [
        (tensor([16], 0, 60), {}),
        (tensor([2**40], 0, 64), {}),
        (tensor([2**62, 2**62], 0, 64), {}),
        (tensor([-16], 0, 64), {}),
        (tensor([16], 64, 128), {}),
        (tensor([16], 64, 0), {}),
        (tensor([1] * 1000, 0, 4), {}),
        (tensor([16], 0, 64), {"length": 2**63}),
        (tensor([16], 0, 64), {"length": 0}),
        ([], {}),
        (b"[" * 100_000, {}),
        ({f"t{index}": tensor([1], 0, 4)["t"] for index in range(70_000)}, {}),
    ],
)
def test_others_are_refused(tmp_path, header, options):
    with pytest.raises(InputError, match=r"w\.safetensors"):
        safetensors.check(written(tmp_path / "w.safetensors", header, **options))


def test_a_new_type_is_the_librarys_to_know(tmp_path):
    safetensors.check(written(tmp_path / "w.safetensors", tensor([3], 0, 64, "F5_NEW")))
