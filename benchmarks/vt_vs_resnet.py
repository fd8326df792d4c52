"""A Visual Transformer against the ResNet whose last stage it replaces, at equal training budget.

Both have ResNet-18's depths at a quarter of its width, and learn real digits at 64×64 pixels from
the same batches; then the product's own pipeline takes both to INT8 on both runtimes.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks import peers
from examples.references import digits
from examples.references.training import write
from tests.support.small_vits import macs, params
from vitedge.core.errors import InputError
from vitedge.core.progress import SILENT
from vitedge.core.spec import Preprocess
from vitedge.measure.latency.bench import bench_bundles
from vitedge.measure.latency.request import BenchRequest
from vitedge.models.sources import ModelRequest
from vitedge.models.zoo import ZOO, ZooModel
from vitedge.models.zoo.build import build
from vitedge.models.zoo.configs import ResNetConfig, VTResNetConfig

INPUT = Preprocess(height=64, width=64, resize="exact")
WIDTH = 16
"""Channels of the stem; ResNet-18 has 64. Tokens shrink alike."""
TOKENS = 2
"""Of 16 pixels, for the paper's 16 of 196: a token takes MACs as a position of a map does."""


PAPER = {  # of ResNet-18 and VT-ResNet-18 on ImageNet
    "top-1 %, FP32": ("73.8", "76.8"),
    "params, M": ("11.7", "11.7"),
    "MACs, M": ("1814", "1569"),
    "times fewer in the last stage": ("–", "2.4"),
}


@dataclass(frozen=True)
class Contestant:
    """One of the two models, under the name of its bundles."""

    name: str
    config: ResNetConfig | VTResNetConfig

    @property
    def last_stage_macs(self):
        return macs(self.config, "vt" if isinstance(self.config, VTResNetConfig) else "layer4")


def contestants():
    """`resnet18` and `vt_resnet18` of the zoo for 10 classes, 64×64 pixels and a quarter width."""
    resnet, vt = ZOO["resnet18"].config, ZOO["vt_resnet18"].config
    narrow = replace(vt.vt, tokens=TOKENS, width=vt.vt.width * WIDTH // vt.trunk.width)
    size = (INPUT.height, INPUT.width)
    resnet = replace(
        resnet, image_size=size, num_classes=10, trunk=replace(resnet.trunk, width=WIDTH)
    )
    vt = replace(
        vt, image_size=size, num_classes=10, trunk=replace(vt.trunk, width=WIDTH), vt=narrow
    )
    return Contestant("resnet18-digits", resnet), Contestant("vt_resnet18-digits", vt)


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--duration", type=float, default=4.0, help="seconds for each session")
    options = parser.parse_args()
    start = time.perf_counter()
    rivals = contestants()
    print(peers.host())
    print(f"digits at 64×64, {options.epochs} epochs, {options.seeds} seeds, 719 held-out images")
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as folder:
        runs = [
            [_run(rival, seed, options.epochs, Path(folder)) for seed in range(options.seeds)]
            for rival in rivals
        ]
        bundles = [result.bundle for seeds in runs for result in seeds[0].values()]
        timed, _ = bench_bundles(bundles, SILENT, BenchRequest(options.duration))
    latencies = iter(timed)
    columns = [
        _accuracies(seeds)
        | _costs(rival, rivals[0])
        | _latencies({what: next(latencies) for what in seeds[0]})
        for rival, seeds in zip(rivals, runs, strict=True)
    ]
    peers.table(
        ("", "ResNet", "VT-ResNet", "paper: ResNet-18", "paper: VT-ResNet-18"),
        [
            (row, *(column.get(row, "–") for column in columns), *PAPER.get(row, ("–", "–")))
            for row in columns[1]  # it has INT8 wherever its rival has
        ],
    )
    print(f"{time.perf_counter() - start:.0f} s in all")


def _run(rival, seed, epochs, folder):
    """Train, save the weights, export: "FP32 openvino" and so on -> what the pipeline made."""
    torch.manual_seed(seed)
    model = build(rival.config)
    enlarged = nn.Sequential(nn.Upsample(scale_factor=2, mode="bicubic"), model)
    digits.train(enlarged, epochs, torch.Generator().manual_seed(seed))
    weights = folder / f"{rival.name}-{seed}.safetensors"
    write(model, weights)
    ZOO[rival.name] = ZooModel(rival.name, rival.config, INPUT, paper="")
    results = {}
    for runtime in peers.RUNTIMES:
        export = partial(
            peers.export,
            ModelRequest(rival.name, weights=weights),
            (runtime,),
            folder / f"seed{seed}",
            eval_data="digits",
        )
        try:
            bundles = export("int8", calib_data="digits")
        except InputError as error:
            print(f"no INT8 of {rival.name} on {runtime}: {error}")
            bundles = export("fp32")
        for result in bundles:
            results[f"{result.bundle.manifest.precision.upper()} {runtime}"] = result
    return results


def _accuracies(seeds):
    """Row -> the mean over seeds, and the result of each."""
    cells, drops = {}, {}
    for what in ("FP32 openvino", *(what for what in seeds[0] if what.startswith("INT8"))):
        accuracies = [results[what].report.accuracy for results in seeds]
        row = "FP32" if what.startswith("FP32") else what
        cells[f"top-1 %, {row}"] = _mean([100 * accuracy.artifact for accuracy in accuracies])
        if row == what:
            drops[f"drop pp, {row}"] = _mean([accuracy.drop_pp for accuracy in accuracies])
    return cells | drops


def _mean(values):
    return f"{np.mean(values):.2f} ({', '.join(f'{value:.2f}' for value in values)})"


def _costs(rival, resnet):
    fewer = resnet.last_stage_macs / rival.last_stage_macs
    return {
        "params, M": f"{params(build(rival.config)) / 1e6:.3f}",
        "MACs, M": f"{macs(rival.config) / 1e6:.2f}",
        "MACs of the last stage, M": f"{rival.last_stage_macs / 1e6:.2f}",
        "times fewer in the last stage": "–" if rival is resnet else f"{fewer:.2f}",
    }


def _latencies(reports):
    """Batch 1, all sessions in turn."""
    rows = {}
    for what, report in reports.items():
        rows[f"p50 ms, {what}"] = f"{report.latency.p50_ms:.3f}"
        if report.latency.speedup:
            low, high = report.latency.speedup_ci
            speedup = f"{report.latency.speedup:.2f} ({low:.2f} to {high:.2f})"
            rows[f"× faster than FP32, {what}"] = speedup
    return rows


if __name__ == "__main__":
    main()
