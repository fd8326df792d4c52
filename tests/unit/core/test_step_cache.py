"""The cache of steps: verified as it is read, whole or not there, and no larger than it may be."""

import os
import subprocess
import sys
import threading
import time

import pytest

from vitedge.core.step_cache import StepCache, digest, files_digest


@pytest.fixture
def notes():
    return []


@pytest.fixture
def cache(tmp_path, notes):
    return StepCache(tmp_path / "cache", note=notes.append)


def step(cache, tmp_path, key="k", content=b"weights", value=7):
    """Make or read a step; returns its value, and the folder of its files."""
    folder = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"

    def make():
        (folder / "inner").mkdir(parents=True)
        (folder / "inner" / "model.onnx").write_bytes(content)
        return value

    return cache.step("onnx", key, folder, int, make), folder


def test_a_step_is_made_once_and_read_after(cache, tmp_path):
    step(cache, tmp_path)
    value, folder = step(cache, tmp_path, content=b"never made", value=0)
    assert value == 7 and (folder / "inner/model.onnx").read_bytes() == b"weights"
    assert cache.made == {"onnx": 1}


@pytest.mark.parametrize("name", ["entry.json", "inner/model.onnx"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_entry_is_made_again(cache, tmp_path, notes, name, damage):
    step(cache, tmp_path)
    (path,) = (tmp_path / "cache").glob(f"onnx/k/{name}")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[:-3])
    value, folder = step(cache, tmp_path, content=b"again", value=8)
    assert value == 8 and (folder / "inner/model.onnx").read_bytes() == b"again"
    assert step(cache, tmp_path)[0] == 8
    if name != "entry.json" or damage != "remove":
        assert any("damaged" in note for note in notes)


def test_the_least_recently_used_entries_go(cache, tmp_path, notes):
    small = StepCache(cache.root, limit_bytes=3900, note=notes.append)
    for number, key in enumerate("abc"):
        step(small, tmp_path, key, bytes(1000))
        entry = cache.root / "onnx" / key / "entry.json"
        os.utime(entry, (number + 1, number + 1))
    step(small, tmp_path, "a")  # used again: b is the oldest now
    step(small, tmp_path, "d", bytes(1000))
    assert sorted(path.name for path in (cache.root / "onnx").iterdir()) == ["a", "c", "d"]
    assert small.size_bytes <= 3900


def test_a_full_disk_is_said_once_and_costs_nothing_but_the_entry(tmp_path, notes):
    """RLIMIT_FSIZE stops a file as a full disk does."""
    program = """
import resource, signal, sys
from pathlib import Path
from vitedge.core.step_cache import StepCache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
cache = StepCache(folder / "cache")
for key in "ab":
    out = folder / key
    def make():
        out.mkdir(); (out / "model.onnx").write_bytes(bytes(5000))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, -1)); return 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (10000, -1))
    assert cache.step("onnx", key, out, int, make) == 1
print(len(list((folder / "cache").glob("onnx/*"))), len(list((folder / "cache").glob(".*-*"))))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True
    )
    note, counts = done.stdout.splitlines()
    assert "cannot be written to (File too large)" in note and "free some space" in note
    assert counts == "0 0"


def test_two_that_ask_at_once_make_it_once(cache, tmp_path):
    made, values = [], []

    def ask(number):
        mine = StepCache(cache.root)
        folder = tmp_path / f"mine-{number}"

        def make():
            made.append(number)
            time.sleep(0.2)
            folder.mkdir()
            return 5

        values.append(mine.step("qdq", "k", folder, int, make))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and values == [5] * 4


def test_digests_change_with_what_they_are_of(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    first = files_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert files_digest(tmp_path) != first
    assert digest("x", {"a": 1, "b": 2}) == digest("x", {"b": 2, "a": 1}) != digest("x")
