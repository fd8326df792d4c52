"""Fuzzing of every reader of files, guided by coverage: `python -m benchmarks.fuzz [--seconds 60]`.

Needs atheris. Ends with the input that did harm, if there is one: what a reader raises beside a
VitedgeError, or more than LIMIT_S seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

LIMIT_S = 10
LIMIT_MIB = 3000
SIZE_BYTES = 4096
"""Of an input, at most."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    try:
        import atheris
    except ImportError:
        print("no atheris here: nothing is fuzzed", file=sys.stderr)
        return
    with atheris.instrument_imports(include=["vitedge"]):  # nothing has imported it before
        readers = _readers()
    from vitedge.core.errors import VitedgeError

    folder = Path(tempfile.mkdtemp())
    corpus = folder / "corpus"
    corpus.mkdir()
    for index, seed in enumerate(_seeds()):
        (corpus / str(index)).write_bytes(bytes([index % len(readers)]) + seed)
    names = list(readers)

    def attempt(data: bytes) -> None:
        if not data:
            return
        name = names[data[0] % len(names)]
        path = folder / name
        path.write_bytes(data[1:])
        with contextlib.suppress(VitedgeError):
            readers[name](path)

    options = [
        f"-max_total_time={asked.seconds}",
        f"-seed={asked.seed}",
        f"-max_len={SIZE_BYTES}",
        f"-timeout={LIMIT_S}",
        f"-rss_limit_mb={LIMIT_MIB}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], attempt)
    atheris.Fuzz()


def _readers() -> dict[str, Callable[[Path], object]]:
    """What reads a file, by the file's name."""
    from vitedge.core import json_document, npz, onnx_outline, safetensors, torch_file
    from vitedge.core.bundle import read_labels, read_manifest
    from vitedge.core.report import read as read_report
    from vitedge.core.spec import Preprocess, Target
    from vitedge.core.toml import load_toml
    from vitedge.data.annotations import categories

    def arrays(path: Path) -> None:
        with npz.arrays(path) as stored:
            dict(stored)

    return {
        "manifest.json": lambda path: read_manifest(path.parent),
        "report.json": read_report,
        "settings.json": json_document.read_settings,
        "annotations.json": lambda path: categories(str(path)),
        "preprocess.toml": lambda path: load_toml(path, Preprocess),
        "target.toml": lambda path: load_toml(path, Target),
        "labels.txt": read_labels,
        "golden.npz": arrays,
        "w.safetensors": safetensors.check,
        "w.pt": torch_file.check,
        "model.onnx": lambda path: onnx_outline.check(path, str(path)),
    }


def _seeds() -> list[bytes]:
    """Whole files, one a reader, in their order."""
    import io

    import numpy as np

    from tests.support.hostile import content

    arrays = io.BytesIO()
    np.savez(arrays, images=np.zeros((1, 2, 2, 3), np.uint8))
    header = b'{"t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    return [
        b'{"schema": "vitedge.artifact/1", "name": "a", "files": {"model.onnx": "0"}}',
        b'{"schema": "vitedge.report/1", "artifact": "a"}',
        b'{"image_processor_type": "ViTImageProcessor", "size": {"height": 32}}',
        b'{"images": [], "annotations": [], "categories": []}',
        b"height = 32\nwidth = 32\nmean = [0.5, 0.5, 0.5]\n",
        b'name = "a"\nruntime = "onnxruntime"\n[options]\na = "b"\n',
        b"cat\ndog\n",
        arrays.getvalue(),
        len(header).to_bytes(8, "little") + header + b"\0" * 4,
        b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s.",
        content.linear().SerializeToString()[:2000],
    ]


if __name__ == "__main__":
    main()
