"""ONNX files over protobuf's 2 GiB, and bundles whose weights lie beside the graph.

The heavy ones need 8 GB of memory and 7 GB of disk: `pytest -m heavy tests/e2e/test_big_onnx.py`.
"""

import json

import pytest
from PIL import Image

from tests.support.big_onnx import DATA, peak_bytes, with_blocks, with_table
from tests.support.machine import ONNXRUNTIME, TARGETS
from vitedge.core.bundle import open_bundle
from vitedge.graph import external

SIZE = 2**31 + 2**27


def preprocess(folder):
    return ("--preprocess", folder / "p.toml", "--duration", 0, "--output", folder / "out")


def test_a_file_over_2_gib_is_read_in_a_fraction_of_its_size(tmp_path):
    path = with_table(tmp_path, SIZE)
    code = f"from vitedge.graph.io import read; from pathlib import Path; read(Path({str(path)!r}))"
    assert peak_bytes("-c", code) < SIZE / 4


def test_weights_beside_the_graph_are_part_of_the_bundle(tmp_path, vitedge, monkeypatch):
    monkeypatch.setattr(external, "SINGLE_FILE_BYTES", 2**16)
    path = with_blocks(tmp_path, 2**20, width=64)
    vitedge("export", path, "--target", ONNXRUNTIME, *preprocess(tmp_path))
    made = tmp_path / "out" / f"big-{ONNXRUNTIME}-fp32"
    assert {"model.onnx", "model.onnx.data"} <= set(open_bundle(made).manifest.files)
    assert open_bundle(made).size_bytes > 2**20
    moved = made.rename(tmp_path / "moved")  # nothing in it names where it was made
    Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    vitedge("predict", moved, tmp_path / "x.png")
    data = bytearray((moved / "model.onnx.data").read_bytes())
    data[len(data) // 2] ^= 1
    (moved / "model.onnx.data").write_bytes(data)
    assert "'model.onnx.data' is not the file" in vitedge("predict", moved, "x.png", code=2).stderr


def test_other_weights_are_another_model(tmp_path, vitedge):
    digests = []
    for byte in (0, 1):
        path = with_table(tmp_path, 2**16)
        with (tmp_path / DATA).open("r+b") as file:
            file.write(bytes([byte]))
        vitedge("export", path, "--target", ONNXRUNTIME, *preprocess(tmp_path), "--force")
        (manifest,) = tmp_path.glob("out/*/manifest.json")
        digests.append(json.loads(manifest.read_text())["model"]["weights_sha256"])
    assert digests[0] != digests[1]


@pytest.mark.heavy
@pytest.mark.parametrize("make", [with_table, with_blocks])
def test_a_file_over_2_gib_exports_in_four_times_its_size(tmp_path, make):
    path = make(tmp_path, SIZE)
    targets = [flag for name in TARGETS.values() for flag in ("--target", name)]
    assert peak_bytes("-m", "vitedge", "export", path, *targets, *preprocess(tmp_path)) < 4 * SIZE
    for target in TARGETS.values():
        bundle = open_bundle(tmp_path / "out" / f"big-{target}-fp32")
        assert bundle.manifest.golden.sqnr_db is None or bundle.manifest.golden.sqnr_db > 80
