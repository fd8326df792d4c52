"""How much of a ViT's INT8 TensorRT's compiler keeps, with no GPU: compiled, and its log read.

Random weights, real photographs' spectrum; the SQNR is of the graph on ONNX Runtime against FP32.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import peers
from vitedge.core.progress import SILENT
from vitedge.export import job
from vitedge.export.request import ExportRequest
from vitedge.export.result import ExportResult
from vitedge.models.sources import ModelRequest

MODELS = (
    "digits",
    *(f"vit_{size}_patch16_224" for size in ("tiny", "small", "base")),
    *("deit_tiny_patch16_224", "timm:swin_tiny_patch4_window7_224"),
)
SAMPLES = 8


def main() -> None:
    parser = peers.arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--targets", nargs="+", default=("rtx-30", "rtx-40"))
    options = parser.parse_args()
    library = peers.declare_torchvision_ops()  # timm asks for them
    rows, lost = [], []
    for model in options.models:
        for batch in (1, "dynamic"):
            for made in _export(model, batch, options.targets):
                rows.append(_row(made, batch))
                build = made.bundle.manifest.build
                assert build and build.compiled
                lost += [f"{made.bundle.manifest.name}: {node}: {why}"
                         for node, why in build.compiled.lost.items()]  # fmt: skip
                print(".", end="", flush=True)
    del library
    print()
    peers.table(
        ("model", "batch", "GPU", "products in INT8", "attention fused", "SQNR dB", "engine MiB"),
        rows,
    )
    for line in lost:
        print(line)
    peers.verdict("every planned product compiles to INT8, every attention to one kernel",
                  not lost and all(_whole(row[3]) and _whole(row[4]) for row in rows))  # fmt: skip


def _export(model: str, batch: int | str, targets: list[str]) -> list[ExportResult]:
    """The INT8 bundle for each target; its files are gone when this returns."""
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as folder:
        data = "digits"
        if model != "digits":
            data = str(peers.save_npz(Path(folder) / "calib.npz",
                                      peers.photographs(SAMPLES, 224, 224, seed=1)))  # fmt: skip
        request = ExportRequest(
            model=ModelRequest(model, random_weights=model != "digits"),
            targets=tuple(targets),
            precision="int8",
            calib_data=data,
            num_samples=None if model == "digits" else SAMPLES,
            duration_s=0,
            batch=batch,  # type: ignore[arg-type]
            output=Path(folder),
        )
        made = job.export(request, SILENT)
        return [each for each in made if each.bundle.manifest.precision == "int8"]


def _row(made: ExportResult, batch: int | str) -> tuple[str, ...]:
    manifest, report = made.bundle.manifest, made.report
    assert manifest.build and manifest.build.compiled
    found = manifest.build.compiled
    return (
        manifest.model.name,
        str(batch),
        found.compute_capability,
        f"{found.int8} of {found.planned}",
        f"{found.fused} of {found.attention}",
        f"{report.simulation.numerics.sqnr_db:.1f}",
        f"{report.size.bytes / 2**20:.1f}",
    )


def _whole(part: str) -> bool:
    """Whether `n of n`."""
    done, total = part.split(" of ")
    return done == total


if __name__ == "__main__":
    main()
