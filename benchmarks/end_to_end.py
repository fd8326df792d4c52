"""Do decode, resize and run of a large photograph sum to the whole? Prints the ratio and parts.

    python -m benchmarks.end_to_end [ARTIFACT] [IMAGE] [SECONDS]

Without an image it is a JPEG of 12 megapixels with the detail of a phone's; 60 s by default.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import vitedge
from vitedge.core.measurements import EndToEnd

LIMIT = 0.03
PARTS = ("decode", "resize", "run", "sum", "whole", "run_alone")


def photograph(path: Path) -> Path:
    """Write 12 megapixels of soft shapes and grain."""
    rng = np.random.default_rng(0)
    scene = Image.fromarray(rng.integers(0, 256, (150, 200, 3), dtype=np.uint8))
    pixels = np.asarray(scene.resize((4000, 3000), Image.Resampling.BICUBIC))
    grain = rng.integers(0, 16, (3000, 4000, 1), dtype=np.uint8)
    Image.fromarray(pixels // 17 * 16 + grain).save(path, quality=90)
    return path


def main(artifact: str = "", image: str = "", seconds: str = "60") -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = artifact
        if not path:
            exports = vitedge.export(targets=["onnxruntime"], precision="int8", output=folder)
            path = exports[-1].bundle
        file = Path(image) if image else photograph(Path(folder) / "twelve.jpg")
        (report,) = vitedge.bench([path], end_to_end=file, duration_s=float(seconds))
    measured = report.end_to_end
    assert isinstance(measured, EndToEnd)
    for name in PARTS:
        part = getattr(measured, name)
        p90 = "too few runs" if part.p90_ms is None else f"{part.p90_ms:.2f} ms"
        print(f"{name:10} p50 {part.p50_ms:8.2f} ms   p90 {p90}   n {part.n}")
    print(f"sum / whole: {1 - measured.gap:.4f} (limit: within {LIMIT:.0%})")
    return abs(measured.gap) > LIMIT


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
