"""What a QAT step costs: ours beside FP32 training of the same model, and other quantizers.

Every step is a forward pass, a backward pass and AdamW's update, on the same random images, timed
in turn; memory is the peak of two steps in a process of its own (Linux). `torch` is our network
with torch's learnable fake-quantize; NNCF's compiles a C++ extension at first use, hence --nncf.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks import peers
from vitedge.core import catalog
from vitedge.core.machine import describe_machine
from vitedge.export.onnx import export
from vitedge.models.sources import ModelRequest, resolve
from vitedge.models.zoo import OWN_DATA
from vitedge.quant.calibrate import calibrate
from vitedge.quant.placement import Placement
from vitedge.quant.qat.network import Network
from vitedge.quant.qdq import quantizers

WAYS = ("fp32", "ours", "ours, distilled", "ours, checkpointing", "torch")


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=["digits", "vit_tiny_patch16_224"])
    parser.add_argument("--target", default="openvino", help="whose quantizers are placed")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--nncf", action="store_true", help="NNCF's torch quantizers, too")
    parser.add_argument("--memory-of", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    ways = (*WAYS, "NNCF") if options.nncf else WAYS
    if options.memory_of:
        (model,) = options.models
        step = _steps(model, options.target, options.batch, (options.memory_of,))[0]
        peers.forget_peak()  # of exporting
        for _ in range(2):
            step()
        print(peers.memory_mib("VmHWM"))
        return
    for model in options.models:
        _compare(model, ways, options)


def _compare(model, ways, options):
    steps = _steps(model, options.target, options.batch, ways)
    times = peers.in_turn(dict(zip(ways, steps, strict=True)), options.steps)
    memory = [_peak_mib(model, way, options) for way in ways]
    fp32 = times["fp32"]
    ratios = [
        statistics.median(a / b for a, b in zip(times[way], fp32, strict=True)) for way in ways
    ]
    print(f"\n{model}, batch {options.batch}, quantizers of {options.target}")
    rows = [
        (
            way,
            f"{statistics.median(times[way]) * 1e3:.0f}",
            f"{ratio:.2f}",
            f"{mib:.0f}",
            f"{mib / memory[0]:.2f}",
        )
        for way, ratio, mib in zip(ways, ratios, memory, strict=True)
    ]
    peers.table(("", "step ms", "× fp32", "peak MiB", "× fp32"), rows)
    peers.verdict(f"{ratios[1]:.2f}× an FP32 step (≤ 2.5×)", ratios[1] <= 2.5)
    peers.verdict(
        f"{memory[1] / memory[0]:.2f}× its peak memory (≤ 2×)", memory[1] <= 2 * memory[0]
    )


def _peak_mib(model, way, options):
    command = [sys.executable, "-m", "benchmarks.qat_step", "--models", model]
    command += ["--target", options.target, "--batch", str(options.batch), "--memory-of", way]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(ran.stdout.split()[-1])


def _steps(name, target, batch, ways):
    """One step of training, for each way."""
    model = resolve(ModelRequest(name, random_weights=name not in OWN_DATA))
    found = catalog.find_target(target, describe_machine(threads=0))
    height, width = model.identity.preprocess.height, model.identity.preprocess.width
    images = peers.photographs(max(batch, 8), height, width, seed=0)
    folder = Path(tempfile.mkdtemp(prefix="vitedge-bench-"))
    exported = export(model, folder, found.batch, found.opset)
    calibrated, _ = calibrate(
        exported.path,
        iter(images[i : i + 1] for i in range(8)),
        catalog.find_calibration("default"),
        found.quantization,
        lambda *step: None,
    )
    placed, scales = quantizers(calibrated)
    tensors = {name: torch.from_numpy(scale) for name, scale in scales.items()}
    some = torch.from_numpy(images[:batch])

    def network(checkpointing=False):
        return Network(
            calibrated.path, placed, tensors, "fp32", learned=True, checkpointing=checkpointing
        )

    def make(way):
        if way in ("fp32", "NNCF"):
            module = model.content
            module.requires_grad_(True)
            pixels = torch.randn(batch, 3, height, width)
            if way == "NNCF":
                module = _nncf(module, pixels)
            return _step(module, lambda: module(pixels))
        student = network(checkpointing="checkpointing" in way)
        if way == "torch":
            _use_torchs(student)
        if "distilled" in way:
            teacher = Network(calibrated.path, Placement(), {}, "fp32", learned=False)

            def difference():
                with torch.no_grad():
                    wanted = teacher(some).logits
                return student(some).logits - wanted

            return _step(student, difference)
        return _step(student, lambda: student(some).logits)

    return [make(way) for way in ways]


def _step(module, outputs):
    optimizer = torch.optim.AdamW(module.parameters(), 1e-6)

    def step():
        optimizer.zero_grad(set_to_none=True)
        outputs().square().mean().backward()
        optimizer.step()

    return step


class _Torchs(nn.Module):
    """torch's learnable fake-quantize, which has no rule for vmap: batches are folded into it."""

    def __init__(self, ours):
        super().__init__()
        self.scale = nn.Parameter(ours.scale().detach().reshape(1))
        self.zero = nn.Parameter(torch.zeros(1))
        self.levels = ours.levels

    def forward(self, x):
        return _TorchsFunction.apply(x, self.scale, self.zero, *self.levels)


class _TorchsFunction(torch.autograd.Function):
    generate_vmap_rule = False

    @staticmethod
    def forward(x, scale, zero, low, high):
        return torch._fake_quantize_learnable_per_tensor_affine(x, scale, zero, low, high, 1.0)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, scale, zero, ctx.low, ctx.high = inputs
        ctx.save_for_backward(x, scale, zero)

    @staticmethod
    def backward(ctx, gradient):
        x, scale, zero = (each.detach().requires_grad_() for each in ctx.saved_tensors)
        with torch.enable_grad():
            y = torch._fake_quantize_learnable_per_tensor_affine(
                x, scale, zero, ctx.low, ctx.high, 1.0
            )
        return (*torch.autograd.grad(y, (x, scale, zero), gradient), None, None)

    @staticmethod
    def vmap(info, axes, x, *others):
        return _TorchsFunction.apply(x, *others), axes[0]


def _use_torchs(student):
    """In place of ours, for activations; their parameters are known to `student` then."""
    quantizers = student._activation_quantizers
    for index, (name, ours) in enumerate(list(quantizers.items())):
        quantizers[name] = _Torchs(ours)
        student.activation_quantizers[index] = quantizers[name]


def _nncf(module, pixels):
    import nncf

    return nncf.quantize(
        module, nncf.Dataset([pixels[:1]]), model_type=nncf.ModelType.TRANSFORMER, subset_size=1
    )


if __name__ == "__main__":
    np.random.seed(0)
    main()
