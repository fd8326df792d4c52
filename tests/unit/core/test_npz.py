"""Arrays of strangers: no objects, no bomb, and sizes are believed only where they are true."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from vitedge.core import npz
from vitedge.core.errors import InputError

HEADER = b"\x93NUMPY\x01\x00"


def array_of(shape, dtype, data=b""):
    """An .npy that says it has this shape, and holds `data`."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(HEADER) + 2 + len(text) + 1) % 64) + b"\n"
    return HEADER + len(text).to_bytes(2, "little") + text + data


def written(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def test_what_numpy_saves_is_read(tmp_path):
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    np.savez_compressed(tmp_path / "set.npz", images=images, labels=np.array([1, 2]))
    with npz.arrays(tmp_path / "set.npz") as arrays:
        assert set(arrays) == {"images", "labels"}
        np.testing.assert_array_equal(arrays["images"], images)


def test_black_photographs_are_no_bomb(tmp_path):
    np.savez_compressed(tmp_path / "set.npz", images=np.zeros((300, 224, 224, 3), np.uint8))
    with npz.arrays(tmp_path / "set.npz") as arrays:
        assert arrays["images"].shape == (300, 224, 224, 3)


BOMB = io.BytesIO()
np.save(BOMB, np.zeros(200 * 2**20, np.uint8))


@pytest.mark.parametrize(
    "content",
    [
        BOMB.getvalue(),
        array_of((2**40,), "<f4"),
        array_of((2**62, 2**62), "<f8"),
        array_of((4, 4), "<f4", b"12"),
        array_of((1,), "|O", b"cos\nsystem\n."),
        b"no array",
        b"",
    ],
    ids=["bomb", "1 TiB", "more than there is", "too short", "objects", "text", "nothing"],
)
def test_others_are_refused_for_nothing(tmp_path, content):
    path = written(tmp_path / "set.npz", images=content)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"set\.npz"), npz.arrays(path) as arrays:
        arrays["images"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"x" * 1000])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"no \.npz file"), npz.arrays(tmp_path / "set.npz"):
        pass
