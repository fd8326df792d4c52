"""How much of a ViT's INT8 TensorRT's compiler keeps, with no GPU: compiled, and its log read.

Random weights, real photographs' spectrum; the SQNR is of the graph on ONNX Runtime against FP32.
"""

from __future__ import annotations

import tempfile
from itertools import product
from pathlib import Path

from benchmarks import peers

MODELS = (
    "digits",
    *(f"vit_{size}_patch16_224" for size in ("tiny", "small", "base")),
    *("deit_tiny_patch16_224", "timm:swin_tiny_patch4_window7_224"),
)
SAMPLES = 8


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--targets", nargs="+", default=("rtx-30", "rtx-40"))
    options = parser.parse_args()
    library = peers.declare_torchvision_ops()  # timm asks for them
    rows, lost = [], []
    for model, batch in product(options.models, (1, "dynamic")):
        for result in _export(model, batch, options.targets):
            manifest = result.bundle.manifest
            compiled = manifest.build.compiled
            rows.append(_row(manifest.model.name, batch, compiled, result.report))
            lost += [f"{manifest.name}: {node}: {why}" for node, why in compiled.lost.items()]
            print(".", end="", flush=True)
    del library
    print()
    peers.table(
        ("model", "batch", "GPU", "products in INT8", "attention fused", "SQNR dB", "engine MiB"),
        rows,
    )
    print(*lost, sep="\n")
    peers.verdict(
        "every planned product compiles to INT8, every attention to one kernel",
        not lost and all(_whole(row[3]) and _whole(row[4]) for row in rows),
    )


def _export(model, batch, targets):
    """The INT8 bundle for each target; its files are gone when this returns."""
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
        folder = Path(name)
        data = {"calib_data": "digits"}
        if model != "digits":
            images = peers.photographs(SAMPLES, 224, 224, seed=1)
            calib = peers.save_npz(folder / "calib.npz", images)
            data = {"calib_data": str(calib), "num_samples": SAMPLES}
        results = peers.export(model, targets, folder, batch=batch, **data)
        return [result for result in results if result.bundle.manifest.precision == "int8"]


def _row(model, batch, compiled, report):
    return [
        model,
        str(batch),
        compiled.compute_capability,
        f"{compiled.int8} of {compiled.planned}",
        f"{compiled.fused} of {compiled.attention}",
        f"{report.simulation.numerics.sqnr_db:.1f}",
        f"{report.size.bytes / 2**20:.1f}",
    ]


def _whole(part):
    """Whether `n of n`."""
    done, total = part.split(" of ")
    return done == total


if __name__ == "__main__":
    main()
