"""How much of a ViT's INT8 or FP8 TensorRT's compiler keeps, with no GPU: its log says it.

Random weights, real photographs' spectrum; the SQNR is of the graph on ONNX Runtime against FP32.
"""

from __future__ import annotations

import tempfile
from itertools import product
from pathlib import Path

import msgspec

from benchmarks import peers
from vitedge.core import catalog
from vitedge.core.progress import SILENT
from vitedge.runtimes.tensorrt.compiler import compile_model
from vitedge.runtimes.tensorrt.coverage import examine

MODELS = (
    "digits",
    *(f"vit_{size}_patch16_224" for size in ("tiny", "small", "base")),
    *("deit_tiny_patch16_224", "timm:swin_tiny_patch4_window7_224"),
)
TARGETS = {"int8": ("rtx-30", "rtx-40"), "fp8": ("rtx-40", "rtx-50")}
SAMPLES = 8


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--precision", choices=TARGETS, default="int8")
    parser.add_argument("--targets", nargs="+")
    options = parser.parse_args()
    precision, targets = options.precision, options.targets or TARGETS[options.precision]
    library = peers.declare_torchvision_ops()  # timm asks for them
    rows, lost = [], []
    for model, batch in product(options.models, (1, "dynamic")):
        for name, level_db, compiled, engine_bytes in _compiled(model, batch, targets, precision):
            rows.append(_row(name, batch, level_db, compiled, engine_bytes))
            lost += [f"{name}: {node}: {why}" for node, why in compiled.lost.items()]
            print(*rows[-1], sep="  ", flush=True)
    del library
    print()
    peers.table(
        ("model", "batch", "GPU", f"in {precision}", "attention fused", "SQNR dB", "engine MiB"),
        rows,
    )
    print(*lost, sep="\n")
    peers.verdict(
        f"every planned product compiles to {precision}, every attention to one kernel",
        not lost and all(_whole(row[3]) and _whole(row[4]) for row in rows),
    )


def _compiled(model, batch, targets, precision):
    """What the compiler makes of one quantized graph for each target: all of them take the same."""
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
        folder = Path(name)
        data = {"calib_data": "digits"}
        if model != "digits":
            images = peers.photographs(SAMPLES, 224, 224, seed=1)
            calib = peers.save_npz(folder / "calib.npz", images)
            data = {"calib_data": str(calib), "num_samples": SAMPLES}
        _, made = peers.export(
            model, targets[:1], folder, precision, batch=batch, only=True, **data
        )
        manifest, level_db = made.bundle.manifest, made.report.simulation.numerics.sqnr_db
        for target in targets:
            gpus = catalog.targets()[target].compute_capabilities
            asked = msgspec.structs.replace(manifest.target, compute_capabilities=gpus)
            path = made.bundle.path / "model.onnx"
            compilation = compile_model(path, asked, SILENT)
            compiled = examine(path, asked, compilation)
            yield manifest.model.name, level_db, compiled, len(compilation.engine)


def _row(name, batch, level_db, compiled, engine_bytes):
    return [
        name,
        str(batch),
        compiled.compute_capability,
        f"{compiled.int8 + compiled.fp8} of {compiled.planned}",
        f"{compiled.fused} of {compiled.attention}",
        f"{level_db:.1f}",
        f"{engine_bytes / 2**20:.1f}",
    ]


def _whole(part):
    """Whether `n of n`."""
    done, total = part.split(" of ")
    return done == total


if __name__ == "__main__":
    main()
