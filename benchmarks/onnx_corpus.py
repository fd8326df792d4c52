"""One small ViT as four exporters write it, at five opsets: what becomes of each file.

`python -m benchmarks.onnx_corpus [WORD…]`: only files whose names hold one of the words.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.support.onnx_corpus import PREPROCESS, Row, rows
from vitedge.core import catalog
from vitedge.core.errors import VitedgeError
from vitedge.core.progress import SILENT
from vitedge.data.calibration import CalibrationImages
from vitedge.export.onnx import export
from vitedge.export.request import images_of
from vitedge.models.sources import ModelRequest, resolve
from vitedge.quant.int8 import Quantizer
from vitedge.runtimes.tensorrt.coverage import compile_check

TARGET = catalog.targets()["rtx-40"]
RECIPE = catalog.calibrations()["fast"]


def measure(row: Row, folder: Path) -> tuple[float, int, int, int, int, int]:
    """Parity; products planned, compiled to INT8; attentions, fused; layers in INT8."""
    preprocess = folder / "p.toml"
    preprocess.write_text(PREPROCESS)
    model = resolve(ModelRequest(str(row.write(folder)), preprocess=preprocess))
    exported = export(model, folder, 1, TARGET.opset)
    images = images_of(model.identity, "random", "calibration")
    quantizer = Quantizer(exported, TARGET, CalibrationImages(images, RECIPE, SILENT), SILENT)
    int8 = quantizer.write(folder / "int8", {})
    compiled = compile_check(int8.deployed, TARGET, SILENT)
    assert compiled is not None
    placed = sum(layer.quantized for layer in int8.record.layers)
    return (
        exported.max_rel_error,
        *(compiled.planned, compiled.int8, compiled.attention, compiled.fused, placed),
    )


def main() -> None:
    print("file                  parity   placed planned  int8  attention fused   s")
    bad = 0
    for row in rows():
        if len(sys.argv) > 1 and not any(word in str(row) for word in sys.argv[1:]):
            continue
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                error, planned, int8, attention, fused, placed = measure(row, Path(folder))
            except VitedgeError as refused:
                bad += 1
                print(f"{row!s:22}{refused.what}", flush=True)
                continue
        bad += not (error <= 1e-4 and placed == planned == int8 and attention == fused > 0)
        taken_s = time.perf_counter() - start
        print(
            f"{row!s:22}{error:.1e}{placed:8}{planned:8}{int8:6}{attention:10}{fused:6}"
            f"{taken_s:5.1f}",
            flush=True,
        )
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
