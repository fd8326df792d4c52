"""`python -m tests.support.freeze` writes tests/frozen/VERSION: what today's vitedge writes, kept.

Run it once, when a version is released, and commit the folder: what is there is not written anew.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch import nn

import vitedge as ve
from tests.support.keys import pair
from vitedge.core.bundle import MANIFEST, REPORT
from vitedge.data import open as open_set

FROZEN = Path(__file__).parents[1] / "frozen"
RUNNABLE, FLOAT = "tiny-onnxruntime-cpu-int8", "tiny-onnxruntime-cpu-fp32"
"""Two whole bundles: they are opened and run."""
ELSEWHERE = {"tensorrt": "digits", "openvino-cpu": "shapes"}
"""Of these the manifest and the report alone are kept: a simulation, and masks."""
EVERYTHING = {"scenarios": ("single-stream", "offline"), "sweeps": ("threads",)}


class Tiny(nn.Module):
    """A classifier of the digits with two products, trained for a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, stride=8)
        self.head = nn.Linear(8 * 16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, 32, 32) -> (B, 10)."""
        return self.head(nn.functional.gelu(self.patches(images)).flatten(1))


def trained() -> Tiny:
    """Fitted to the digits that are not evaluated on."""
    images, labels, held_out = open_set._digits()
    pixels = torch.from_numpy(images[~held_out]).permute(0, 3, 1, 2).float() / 127.5 - 1
    classes = torch.from_numpy(labels[~held_out]).long()
    torch.manual_seed(0)
    model = Tiny()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(pixels), classes).backward()
        optimizer.step()
    return model.eval()


def write(folder: Path) -> None:
    """Export, measure, accept and sign into `folder`, which is not there yet."""
    preprocess = ve.Preprocess(height=32, width=32, resize="exact")
    labels = [str(digit) for digit in range(10)]
    model = ve.load(trained(), preprocess=preprocess, labels=labels, name="tiny")
    data = {"calib_data": "digits", "eval_data": "digits"}
    ve.export(model, targets=["onnxruntime-cpu"], precision="int8", output=folder, **data)
    bundle = folder / RUNNABLE
    with tempfile.TemporaryDirectory() as scratch:
        photograph = Path(scratch) / "photograph.png"
        Image.new("RGB", (64, 48), "teal").save(photograph)
        ve.bench([bundle], duration_s=10, end_to_end=photograph, **EVERYTHING)
        ve.gate([bundle], max_drop_pp=5, baseline=folder / "baseline.npz", accept=True)
        keys = pair(Path(scratch), "release")
        for signed in (bundle, folder / FLOAT):
            ve.sign(signed, key=keys.private, report=True)
        shutil.copy(keys.public, folder / "release.pub")
        for target, name in ELSEWHERE.items():
            *_, int8 = ve.export(name, targets=[target], precision="int8", output=scratch)
            kept = folder / "elsewhere" / int8.bundle.path.name
            kept.mkdir(parents=True)
            for file in (MANIFEST, REPORT):
                shutil.copy(int8.bundle.path / file, kept)


def main() -> None:
    folder = FROZEN / ve.__version__
    if folder.exists():
        sys.exit(f"{folder} is there: what a version has written is not written anew")
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch) / "set")
        shutil.copytree(Path(scratch) / "set", folder)
    print(f"{folder}: {sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()):,} bytes")


if __name__ == "__main__":
    main()
