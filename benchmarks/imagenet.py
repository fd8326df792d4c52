"""ImageNet, in one command: every precision of eight models beside the published marks.

python -m benchmarks.imagenet --weights DIR --data DIR [--models NAME…] [--targets …] [--dry-run]

DIR of the weights has a folder for each model, as timm, transformers or torchvision leave it; that
of the data has train/ (to calibrate) and val/, as ImageNet is laid out. What was measured is kept
in OUTPUT/rows.json: the same command goes on where it stopped. Machines share the work by --models,
or by --shard 3/16 each and --merge at the end; docs/proofs.md says more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import vitedge as ve
from benchmarks import imagenet_standins, peers
from vitedge.core import catalog, files
from vitedge.core.machine import describe_machine
from vitedge.core.spec import QUANTIZED
from vitedge.export.selftest.subjects import exports


@dataclass(frozen=True)
class Model:
    """One model of the table."""

    name: str
    folder: str
    """Within the weights."""
    torchvision: str = ""
    """Its name there, whose weights file may lie in the folder in place of a config.json."""
    classes: bool = False
    """Whether it classifies by texts."""
    published: str = ""
    """Of INT8 against FP32, points, or as it says."""


MODELS = (
    Model(
        *("ViT-B/16", "vit_base_patch16_224", "vit_b_16"),
        published="−0.12 (NNCF); 84.51% at 4.92 ms (TensorRT 10.3, Orin Nano)",
    ),
    Model("DeiT-S", "deit_small_patch16_224", published="−0.07 (best W8A8 paper)"),
    Model("DeiT-B", "deit_base_patch16_224", published="−0.04 (best W8A8 paper)"),
    Model("DeiT3-S", "deit3_small_patch16_224", published="−0.08 (NNCF)"),
    Model("Swin-B", "swin_base_patch4_window7_224", "swin_b", published="−0.06 (NNCF)"),
    Model("Swin-v2-S", "swinv2_small_window8_256", "swin_v2_s", published="−0.07 (NNCF)"),
    Model("DINOv2-S", "dinov2-small-imagenet1k-1-layer"),
    Model("CLIP-B/16", "clip-vit-base-patch16", classes=True),
)
TARGETS = ("onnxruntime", "openvino")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact."""

    model: str
    target: str
    precision: str
    n: int
    top1: float
    """0-1."""
    fp32_top1: float | None
    drop_pp: float | None
    drop_ci_pp: tuple[float, float] | None
    """Paired, of 95%."""
    agreement: float | None
    sqnr_db: float | None
    p50_ms: float | None
    """None where it was not timed here."""
    speedup: float | None
    published: str


@dataclass(frozen=True)
class Settings:
    """What differs between the real thing and a dry run."""

    weights: Path
    data: Path
    classes: Path
    output: Path
    calibration: str = "default"
    duration_s: float = 2.0
    shard: str = ""
    """The share of images of this process, `3/16`; empty: all."""
    merge: bool = False
    """Whether rows are of shards that were measured before."""


def source(model: Model, folder: Path) -> dict[str, Any]:
    """How `vitedge.export` is to read the weights in `folder`, by what lies there."""
    if (config := folder / "config.json").is_file():
        ours = "architecture" in json.loads(config.read_text())
        return {"model": f"timm:local-dir:{folder}" if ours else f"hf:{folder}"}
    weights = sorted(path for path in folder.glob("*") if path.suffix in (".pth", ".safetensors"))
    if model.torchvision and len(weights) == 1:
        return {"model": f"torchvision:{model.torchvision}", "weights": weights[0]}
    instead = f", or one weights file of torchvision's {model.torchvision}"
    raise ve.InputError(
        f"{folder} holds no weights of {model.name}",
        fix=f"put a config.json with its weights there{instead if model.torchvision else ''}",
    )


def bound(model: Model, target: str, precision: str, settings: Settings) -> str:
    """Names what the rows of one export depend on."""
    weights = sorted((settings.weights / model.folder).rglob("*"))
    sizes = [(path.name, path.stat().st_size) for path in weights if path.is_file()]
    images = sorted(path.name for path in (settings.data / "val").iterdir())
    parts = (ve.__version__, model.name, target, precision, sizes, images, settings.calibration)
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    return f"{model.name} {target} {precision} {digest}"


def exported(model: Model, asked: str, precision: str, first: bool, s: Settings) -> Any:
    """The artifacts of one export; with shards they are validated later."""
    further = {"classes": s.classes} if model.classes else {}
    if precision != "fp32":
        further["calib_data"] = str(s.data / "train")
    return ve.export(
        **source(model, s.weights / model.folder),
        **further,
        targets=[asked],
        precision=precision,
        only=not first and precision in QUANTIZED,
        calibration=s.calibration,
        eval_data="" if s.shard or s.merge else str(s.data / "val"),
        duration_s=s.duration_s,
        output=s.output / "artifacts" / precision,
        force=True,
    )


def measured(model: Model, asked: str, precision: str, first: bool, s: Settings) -> list[Row]:
    """The rows of one export: its own precision, and the floats that come with the first."""
    results = exported(model, asked, precision, first, s)
    pairs = [(result.bundle.manifest, result.report) for result in results]
    return [row(model, *pair) for pair in pairs if first or pair[0].precision != "fp32"]


def sharded(
    model: Model, asked: str, precision: str, first: bool, s: Settings, key: str
) -> list[Row]:
    """The same of artifacts in OUTPUT that every process shares: a shard's evidence, and no row, or
    the rows of all shards. Whoever comes first makes the artifacts."""
    listed = s.output / f"{hashlib.sha256(key.encode()).hexdigest()[:12]}.made.json"
    if not listed.exists():
        results = exported(model, asked, precision, first, s)
        paths = [
            str(r.bundle.path) for r in results if first or r.bundle.manifest.precision != "fp32"
        ]
        files.write(listed, json.dumps(paths))
    rows = []
    for path in map(Path, json.loads(listed.read_text())):
        place = s.output / "shards" / precision / path.name
        if s.merge:
            report = ve.validate(path, merge=[str(place)])
            rows.append(row(model, ve.open(path).manifest, report))
        else:
            ve.validate(path, str(s.data / "val"), shard=s.shard, output=place)
    return rows


def row(model: Model, manifest: Any, report: Any) -> Row:
    """What was measured of one artifact."""
    simulated, latency = report.simulation, report.latency
    accuracy = report.accuracy or (simulated.accuracy if simulated else None)
    numerics = report.numerics or (simulated.numerics if simulated else None)
    return Row(
        model=model.name,
        target=manifest.target.name,
        precision=manifest.precision,
        n=accuracy.n,
        top1=accuracy.artifact,
        fp32_top1=accuracy.fp32,
        drop_pp=accuracy.drop_pp,
        drop_ci_pp=accuracy.drop_ci_pp,
        agreement=accuracy.agreement,
        sqnr_db=numerics.sqnr_db if numerics else None,
        p50_ms=latency.p50_ms if latency else None,
        speedup=latency.speedup if latency else None,
        published=model.published if manifest.precision == "int8" else "",
    )


def run(models: list[Model], targets: list[str], settings: Settings) -> tuple[list[Row], int]:
    """Every row, those of before too, and how many exports failed."""
    settings.output.mkdir(parents=True, exist_ok=True)
    kept = settings.output / "rows.json"
    done: dict[str, list[Row]] = {}
    if kept.exists():
        done = msgspec.json.decode(kept.read_bytes(), type=dict[str, list[Row]])
    host, failures, rows = describe_machine(threads=0), 0, []
    for model in models:
        for asked in targets:
            target = catalog.find_target(asked, host)
            for index, (precision, _) in enumerate(exports(target)):
                try:
                    key = bound(model, target.name, precision, settings)
                    if key not in done:
                        start = time.perf_counter()
                        work = (model, asked, precision, index == 0, settings)
                        if settings.shard or settings.merge:
                            measured_rows = sharded(*work, key)
                        else:
                            measured_rows = measured(*work)
                        if settings.shard:
                            continue
                        done[key] = measured_rows
                        text = msgspec.json.format(msgspec.json.encode(done), indent=2)
                        files.replace(kept, text, fix="free some space")
                        print(f"{key}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
                    rows += done[key]
                except (ve.VitedgeError, OSError) as error:
                    failures += 1
                    fix = getattr(error, "fix", "")
                    print(f"failed: {model.name} {asked} {precision}: {error} {fix}".rstrip())
    return rows, failures


HEADER = """\
| model | target | precision | top-1 % | drop, points (95%, paired) | agree % | SQNR dB | p50 ms \
| speed-up | images | published, INT8 − FP32, points |
|---|---|---|---|---|---|---|---|---|---|---|"""


def cells(row: Row) -> list[str]:
    """A row of the table."""

    def text(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    low_high = f" ({row.drop_ci_pp[0]:+.2f} to {row.drop_ci_pp[1]:+.2f})" if row.drop_ci_pp else ""
    agreement = None if row.agreement is None else 100 * row.agreement
    return [
        *(row.model, row.target, row.precision, f"{100 * row.top1:.2f}"),
        *(text(row.drop_pp, "+.2f") + low_high, text(agreement, ".2f"), text(row.sqnr_db, ".1f")),
        *(text(row.p50_ms, ".2f"), text(row.speedup, ".2f"), str(row.n), row.published or "–"),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Print the table; the exit code is 1 where an export failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imagenet")
    names = [model.name for model in MODELS]
    parser.add_argument("--weights", type=Path, help="a folder for each model")
    parser.add_argument("--data", type=Path, help="train/ and val/")
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--classes", type=Path, help="one class a line; default: DATA/classes.txt")
    parser.add_argument("--output", type=Path, default=Path("imagenet"))
    parser.add_argument("--shard", default="", help="measure this share of images, as 3/16")
    parser.add_argument("--merge", action="store_true", help="rows of the shards in OUTPUT")
    parser.add_argument("--dry-run", action="store_true", help="on stand-ins that are made here")
    typed = parser.parse_args(arguments)
    models = [model for model in MODELS if model.name in typed.models]
    library = peers.declare_torchvision_ops()
    if typed.dry_run:
        place = typed.output / "standins"
        weights, data = imagenet_standins.write(place, [model.folder for model in models])
        more: dict[str, Any] = {"calibration": "fast", "duration_s": 0.1}
    elif typed.weights is None or typed.data is None:
        parser.error("give --weights and --data, or --dry-run")
    else:
        weights, data, more = typed.weights, typed.data, {}
    classes = typed.classes or data / "classes.txt"
    if typed.shard and typed.merge:
        parser.error("--shard measures, --merge puts together: give one")
    more |= {"shard": typed.shard, "merge": typed.merge}
    rows, failures = run(
        models, typed.targets, Settings(weights, data, classes, typed.output, **more)
    )
    if not typed.shard:
        print(HEADER)
        for measured_row in rows:
            peers.markdown(cells(measured_row))
    del library
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
