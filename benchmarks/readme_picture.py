"""The picture of README: the gate's page on three real artifacts. Needs Chromium.

`python -m benchmarks.readme_picture` writes docs/images/gate.png.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks.screenshots import picture

OUT = Path(__file__).parents[1] / "docs" / "images" / "gate.png"
WIDTH, HEIGHT = 1280, 780
FRAGILE = """
name = "w4"
description = "4-bit weights, the plainest way"
num_samples = 64
activations = "minmax"
weights = "minmax"
weight_bits = 4
equalize = "off"
"""
ASKED = (("digits", "default"), ("shapes", "default"), ("digits", "w4.toml"))
LIMITS = ("--max-drop", "0.5", "--min-sqnr-db", "30", "--html", "gate.html")


def vitedge(folder, *arguments):
    command = [sys.executable, "-m", "vitedge", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).returncode


def main():
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
        folder = Path(name)
        (folder / "w4.toml").write_text(FRAGILE)
        for model, recipe in ASKED:
            output = folder / f"{Path(recipe).stem}-{model}"
            options = ("--int8", "--only", "--calibration", recipe, "--output", output)
            assert vitedge(folder, "export", model, "--target", "onnxruntime", *options) == 0
        bundles = sorted(path.relative_to(folder) for path in folder.glob("*/*-int8"))
        assert vitedge(folder, "gate", *bundles, *LIMITS) == 1
        whole = folder / "whole.png"
        picture(folder / "gate.html", whole, (WIDTH, 4000), "light")
        OUT.parent.mkdir(parents=True, exist_ok=True)
        part = Image.open(whole).convert("RGB").crop((0, 0, WIDTH, HEIGHT))
        part.quantize(64).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
