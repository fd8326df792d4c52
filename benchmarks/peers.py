"""What the benchmarks share: images, exports, the peers we are compared with, times and tables."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import re
import subprocess
import time
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import msgspec
import numpy as np

from benchmarks.peer_worker import Reader
from vitedge.core import catalog, numerics
from vitedge.core.bundle import Bundle
from vitedge.core.machine import describe_machine, usable_cores
from vitedge.core.progress import SILENT
from vitedge.core.runtime import VerifiedFiles, runtime_of
from vitedge.data.open import open_images
from vitedge.export import job
from vitedge.export.request import ExportRequest
from vitedge.measure.accuracy.validation import predict_all
from vitedge.models.sources import ModelRequest
from vitedge.models.zoo import OWN_DATA, ZOO
from vitedge.quant import int8
from vitedge.runtimes import open_session

RUNTIMES = ("onnxruntime", "openvino")


def arguments(description, model=""):
    """A parser for one benchmark; with --model where it takes one."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    if model:
        parser.add_argument("--model", default=model, help="a name of 'vitedge models list'")
    return parser


def photographs(count, height, width, seed):
    """Images (count, height, width, 3) with the 1/f spectrum of natural photographs.

    White noise would exercise a ViT with inputs no camera makes.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    frequency = np.maximum(np.hypot(rows, columns), 1 / max(height, width))
    images = np.empty((count, height, width, 3), np.uint8)
    for image in images:
        noise = rng.standard_normal((3, height, width))
        field = np.fft.irfft2(np.fft.rfft2(noise) / frequency, s=(height, width))
        field /= field.std(axis=(1, 2), keepdims=True)
        mixed = np.array([[1, 0.3, 0.1], [1, 0.0, -0.1], [1, -0.3, 0.1]]) @ field.reshape(3, -1)
        pixels = 128 + rng.uniform(25, 60) * mixed.reshape(3, height, width)
        image[...] = np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return images


def save_npz(path, images):
    """Save `images` as a calibration set."""
    np.savez(path, images=images)
    return path


@cache
def digits():
    """The digits that the recipe `default` draws, one in a batch, and the 719 held out."""
    spec, labels = ZOO["digits"].preprocess, ZOO["digits"].labels
    recipe = catalog.find_calibration("default")
    calibration = open_images("digits", "calibration", spec, labels)
    held_out = open_images("digits", "evaluation", spec, labels)
    drawn = [batch.images for batch in calibration.sample(recipe.num_samples, recipe.seed)]
    return drawn, next(held_out.batches(len(held_out)))


def export(model, targets, folder, precision="int8", **options):
    """Our own bundles of `model`, untimed: random weights, but for the embedded ones.

    `options` are fields of ExportRequest.
    """
    if isinstance(model, str):
        model = ModelRequest(model, random_weights=model not in OWN_DATA)
    request = ExportRequest(
        model, tuple(targets), precision, duration_s=0, output=folder, force=True, **options
    )
    return job.export(request, SILENT)


def export_bundles(model, runtime, folder, calib_data, **options):
    """The FP32 and INT8 bundles of `model` for one runtime."""
    fp32, quantized = export(model, (runtime,), folder, calib_data=calib_data, only=True, **options)
    return fp32.bundle, quantized.bundle


def open_file(model, like):
    """Open a peer's artifact with exactly the options that ours is opened with."""
    threads = like.threads or usable_cores()
    beside = [path.name for path in model.parent.glob("model.*") if path != model]
    files = VerifiedFiles(model.parent, (model.name, *beside))
    return runtime_of(like).open(files, msgspec.structs.replace(like, threads=threads))


def model_file(bundle):
    """What its runtime reads first."""
    suffix = "xml" if bundle.manifest.target.runtime == "openvino" else "onnx"
    return bundle.path / f"model.{suffix}"


def logits(artifact, images, like=None):
    """Of one of our bundles, or of a peer's file opened as `like`."""
    session = open_session(artifact) if isinstance(artifact, Bundle) else open_file(artifact, like)
    with session as opened:
        return predict_all(opened, images)


def target_here(runtime):
    """The profile of `runtime` that fits this machine."""
    return catalog.find_target(runtime, describe_machine(threads=0))


def host():
    """The machine in a line: how many threads, which CPU, its instructions."""
    machine = describe_machine(threads=0)
    return f"{usable_cores()} threads, {machine.cpu} ({', '.join(machine.isa or ())})"


def nncf_openvino(fp32, images, out, **how):
    """NNCF's OpenVINO path: IR or ONNX -> `out`/model.xml. `how` goes to nncf.quantize."""
    import nncf
    import openvino as ov

    quantized = _nncf(ov.Core().read_model(fp32), nncf.Dataset(list(images)), how)
    out.mkdir(parents=True, exist_ok=True)
    ov.save_model(quantized, out / "model.xml", compress_to_fp16=False)
    return out / "model.xml"


def nncf_onnx(fp32, images, out, **how):
    """NNCF's ONNX path, likewise: ONNX -> `out`/model.onnx."""
    import nncf
    import onnx

    model = onnx.load(fp32)
    name = model.graph.input[0].name
    quantized = _nncf(model, nncf.Dataset(list(images), lambda batch: {name: batch}), how)
    out.mkdir(parents=True, exist_ok=True)
    onnx.save(quantized, out / "model.onnx")
    return out / "model.onnx"


def _nncf(model, data, how):
    """Its enumerations by name; its logs and progress bars kept out of the tables."""
    import nncf

    kinds = {"model_type": nncf.ModelType, "preset": nncf.QuantizationPreset}
    options = {key: kinds[key](value) if key in kinds else value for key, value in how.items()}
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        return nncf.quantize(model, data, **options)


def ort_static(fp32, images, out, method="MinMax"):
    """ONNX Runtime's quantize_static with its defaults, after its own pre-processing.

    `method` names a CalibrationMethod.
    """
    from onnxruntime.quantization import CalibrationMethod, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    out.mkdir(parents=True, exist_ok=True)
    prepared, quantized = out / "prepared.onnx", out / "model.onnx"
    quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)  # ours have shapes
    reader = Reader("image", images)
    with contextlib.redirect_stdout(io.StringIO()):
        quantize_static(
            str(prepared), str(quantized), reader, calibrate_method=CalibrationMethod[method]
        )
    prepared.unlink()
    return quantized


def in_other_python(python, peer, fp32, images, out):
    """A peer of `peer_worker.py`, run by the interpreter `python`: ONNX -> `out`/model.onnx."""
    out.mkdir(parents=True, exist_ok=True)
    calib = save_npz(out / "calibration.npz", np.stack(list(images)))
    worker = Path(__file__).with_name("peer_worker.py")
    command = [python, worker, peer, fp32, calib, out]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True
    )
    calib.unlink()
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"exit status {done.returncode}")
    return out / "model.onnx"


def quantizers(runtime, python):
    """Every peer that makes INT8 artifacts for `runtime`, by name, as a function.

    It takes an FP32 graph, calibration images, batches (B, H, W, 3) for the graph's one input, and
    a folder to write into; it returns the artifact. Those of `peers.txt` only where `python`,
    their interpreter, is given.
    """
    nncf = nncf_openvino if runtime == "openvino" else nncf_onnx
    known = {
        "NNCF": nncf,
        "NNCF transformer": partial(nncf, model_type="transformer"),
        "NNCF transformer, performance": partial(
            nncf, model_type="transformer", preset="performance"
        ),
    }
    if runtime == "onnxruntime":
        for method in ("MinMax", "Percentile", "Entropy"):
            known[f"ORT {method}"] = partial(ort_static, method=method)
        for peer in OTHER_PYTHON if python else ():
            known[peer] = partial(in_other_python, python, peer)
    return known


def add_peers(parser):
    """The options that `chosen` reads."""
    parser.add_argument("--peers", nargs="+", default=[""], help="words of the peers' names to run")
    parser.add_argument("--peers-python", type=Path, help="an interpreter with peers.txt installed")


def chosen(runtime, options):
    """The quantizers for `runtime` that the command line asks for."""
    known = quantizers(runtime, options.peers_python)
    return {n: quantize for n, quantize in known.items() if any(w in n for w in options.peers)}


def one_line(error):
    """What went wrong, short enough for a table."""
    return " ".join(str(error).replace("|", "/").split())[:120] or type(error).__name__


def print_absent(options):
    """Name the peers that this run leaves out, and why."""
    if not options.peers_python:
        print(f"absent, no --peers-python: {', '.join(OTHER_PYTHON)}")
    print("absent: neural-compressor 3, which quantizes no ONNX; onnx-neural-compressor does\n")


OTHER_PYTHON = ("optimum", "neural_compressor", "modelopt")
"""Peers that `peer_worker.py` knows."""


def declare_torchvision_ops():
    """Let timm, transformers and torchvision import beside CPU torch, while the result lives.

    As the fixture `peers` of the tests does.
    """
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


@contextlib.contextmanager
def within_ptq(span):
    """Run our PTQ, calibration included and nothing else of an export, within `span()`."""
    original = int8.Quantizer.write

    def write(*args):
        with span():
            return original(*args)

    with patch.object(int8.Quantizer, "write", write):
        yield


def sqnr_db(reference, logits):
    """10·log10 of the signal over the noise, over all logits; infinite where there is none."""
    want, got = reference.astype(np.float64), logits.astype(np.float64)
    ratio = numerics.sqnr_db(np.square(want).sum(), np.square(want - got).sum())
    return float("inf") if ratio is None else ratio


def in_turn(jobs, rounds):
    """Seconds of every job, one after the other in each round; a first round is not counted."""
    seconds = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        for name, run in jobs.items():
            with timed(seconds[name] if turn else []):
                run()
    return seconds


@contextlib.contextmanager
def timed(seconds):
    """Append how long the body took."""
    start = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - start)


def memory_mib(field):
    """`field` of this process's /proc status: VmHWM is the peak since `forget_peak`.

    Not ru_maxrss: Linux carries it over exec, so it would hold the parent's memory too.
    """
    status = Path("/proc/self/status").read_text()
    match = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return int(match[1]) / 1024


def forget_peak():
    """Have VmHWM start again from what is in use."""
    Path("/proc/self/clear_refs").write_text("5")


def table(header, rows):
    """Print an aligned table: the first column to the left, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    for row in (header, ["-" * width for width in widths], *cells):
        first, *rest = [
            str(cell).ljust(width) if i == 0 else str(cell).rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join([first, *rest]).rstrip())


def markdown(cells):
    """Print a row of a Markdown table, at once."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def verdict(what, met):
    """Print an acceptance line; None where this machine cannot decide it."""
    print(f"{'n/a ' if met is None else 'met ' if met else 'MISS'}  {what}")
