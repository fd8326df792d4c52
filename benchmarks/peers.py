"""What the benchmarks share: images, the peers we are compared with, and tables."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge.core import catalog
from vitedge.core.bundle import Bundle
from vitedge.core.machine import describe_machine, usable_cores
from vitedge.core.progress import Steps
from vitedge.core.runtime import Session, VerifiedFiles, runtime_of
from vitedge.core.spec import Target
from vitedge.export.job import export
from vitedge.export.request import ExportRequest
from vitedge.models.sources import ModelRequest
from vitedge.quant import int8
from vitedge.runtimes import open_session

if TYPE_CHECKING:
    import torch

SILENT = Steps(None)


def arguments(description: str | None, model: str = "") -> argparse.ArgumentParser:
    """A parser for one benchmark; with --model where it takes one."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    if model:
        parser.add_argument("--model", default=model, help="a name of 'vitedge models list'")
    return parser


def photographs(count: int, height: int, width: int, seed: int) -> NDArray[np.uint8]:
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


def save_npz(path: Path, images: NDArray[np.uint8]) -> Path:
    """Save `images` as a calibration set."""
    np.savez(path, images=images)
    return path


def export_bundles(
    model: str,
    runtime: str,
    folder: Path,
    calib_data: str,
    samples: int | None,
    recipe: str = "default",
    batch: int | None = None,
) -> tuple[Bundle, Bundle]:
    """Our own FP32 and INT8 bundles of `model`, with random weights unless it is `digits`."""
    made = export(
        ExportRequest(
            model=ModelRequest(model, random_weights=model != "digits"),
            targets=(runtime,),
            precision="int8",
            calib_data=calib_data,
            calibration=recipe,
            num_samples=samples,
            duration_s=0,
            batch=batch,
            output=folder,
            force=True,
        ),
        SILENT,
    )
    return made[0].bundle, made[1].bundle


def open_file(model: Path, like: Target) -> AbstractContextManager[Session]:
    """Open a peer's artifact with exactly the options that ours is opened with."""
    threads = like.threads or usable_cores()
    files = VerifiedFiles(model.parent, tuple(path.name for path in model.parent.glob("model.*")))
    return runtime_of(like).open(files, msgspec.structs.replace(like, threads=threads))


def model_file(bundle: Bundle) -> Path:
    """What its runtime reads first."""
    suffix = "xml" if bundle.manifest.target.runtime == "openvino" else "onnx"
    return bundle.path / f"model.{suffix}"


def open_ours(bundle: Bundle) -> AbstractContextManager[Session]:
    """Open one of our bundles."""
    return open_session(bundle)


def target_here(runtime: str) -> Target:
    """The profile of `runtime` that fits this machine."""
    return catalog.find_target(runtime, describe_machine(threads=0))


Images = Sequence[NDArray[np.uint8]]
"""Calibration images, batches (B, H, W, 3) for the graph's one input."""


def nncf_openvino(fp32: Path, images: Images, out: Path, **how: Any) -> Path:
    """NNCF's OpenVINO path: IR or ONNX -> `out`/model.xml. `how` goes to nncf.quantize."""
    import nncf
    import openvino as ov

    model = ov.Core().read_model(fp32)
    with _quiet_nncf():
        quantized = nncf.quantize(model, nncf.Dataset(list(images)), **_nncf(how))
    out.mkdir(parents=True, exist_ok=True)
    ov.save_model(quantized, out / "model.xml", compress_to_fp16=False)
    return out / "model.xml"


def nncf_onnx(fp32: Path, images: Images, out: Path, **how: Any) -> Path:
    """NNCF's ONNX path, likewise: ONNX -> `out`/model.onnx."""
    import nncf
    import onnx

    model = onnx.load(fp32)
    name = model.graph.input[0].name
    with _quiet_nncf():
        data = nncf.Dataset(list(images), lambda batch: {name: batch})
        quantized = nncf.quantize(model, data, **_nncf(how))
    out.mkdir(parents=True, exist_ok=True)
    onnx.save(quantized, out / "model.onnx")
    return out / "model.onnx"


def _nncf(how: dict[str, Any]) -> dict[str, Any]:
    """Its enumerations by name: model_type="transformer", preset="performance" or "mixed"."""
    import nncf

    kinds = {"model_type": nncf.ModelType, "preset": nncf.QuantizationPreset}
    return {key: kinds[key](value) if key in kinds else value for key, value in how.items()}


def ort_static(fp32: Path, images: Images, out: Path, method: str = "MinMax") -> Path:
    """ONNX Runtime's quantize_static with its defaults, after its own pre-processing.

    `method` names a CalibrationMethod.
    """
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    out.mkdir(parents=True, exist_ok=True)
    prepared = out / "prepared.onnx"
    quant_pre_process(str(fp32), str(prepared))
    name = "image"

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds = iter([{name: batch} for batch in images])

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            return next(self._feeds, None)

    with contextlib.redirect_stdout(io.StringIO()):
        quantize_static(
            str(prepared),
            str(out / "model.onnx"),
            Reader(),
            calibrate_method=CalibrationMethod[method],
        )
    prepared.unlink()
    return out / "model.onnx"


def in_other_python(python: Path, peer: str, fp32: Path, images: Images, out: Path) -> Path:
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


Quantizer = Callable[[Path, Images, Path], Path]
"""FP32 graph, calibration images, folder to write into -> artifact."""


def quantizers(runtime: str, python: Path | None) -> dict[str, Quantizer]:
    """Every peer that makes INT8 artifacts for `runtime`, by name.

    Those of `peers.txt` only where `python`, their interpreter, is given.
    """
    nncf = nncf_openvino if runtime == "openvino" else nncf_onnx
    found: dict[str, Quantizer] = {
        "NNCF": nncf,
        "NNCF transformer": partial(nncf, model_type="transformer"),
        "NNCF transformer, performance": partial(
            nncf, model_type="transformer", preset="performance"
        ),
    }
    if runtime == "onnxruntime":
        for method in ("MinMax", "Percentile", "Entropy"):
            found[f"ORT {method}"] = partial(ort_static, method=method)
        for peer in OTHER_PYTHON if python else ():
            found[peer] = partial(in_other_python, python, peer)
    return found


def add_peers(parser: argparse.ArgumentParser) -> None:
    """The options that `chosen` reads."""
    parser.add_argument("--peers", nargs="+", default=[""], help="words of the peers' names to run")
    parser.add_argument("--peers-python", type=Path, help="an interpreter with peers.txt installed")


def chosen(runtime: str, options: argparse.Namespace) -> dict[str, Quantizer]:
    """The quantizers for `runtime` that the command line asks for."""
    known = quantizers(runtime, options.peers_python)
    return {n: quantize for n, quantize in known.items() if any(w in n for w in options.peers)}


def one_line(error: Exception) -> str:
    """What went wrong, short enough for a table."""
    return " ".join(str(error).replace("|", "/").split())[:120] or type(error).__name__


def print_absent(options: argparse.Namespace) -> None:
    """Name the peers that this run leaves out, and why."""
    if not options.peers_python:
        print(f"absent, no --peers-python: {', '.join(OTHER_PYTHON)}")
    print("absent: neural-compressor 3, which quantizes no ONNX; onnx-neural-compressor does\n")


OTHER_PYTHON = ("optimum", "neural_compressor", "modelopt")
"""Peers that `peer_worker.py` knows."""


@contextlib.contextmanager
def _quiet_nncf() -> Iterator[None]:
    """Keep its logs and progress bars out of the tables."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def declare_torchvision_ops() -> torch.library.Library:
    """Let timm, transformers and torchvision import beside CPU torch, while the result lives.

    As the fixture `peers` of the tests does.
    """
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


@contextlib.contextmanager
def within_ptq(span: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Run our PTQ, calibration included and nothing else of an export, within `span()`."""
    original = int8.Quantizer.write

    def write(*args: Any) -> int8.Int8:
        with span():
            return original(*args)

    int8.Quantizer.write = write  # type: ignore[method-assign]
    try:
        yield
    finally:
        int8.Quantizer.write = original  # type: ignore[method-assign]


def sqnr_db(reference: NDArray[np.float32], logits: NDArray[np.float32]) -> float:
    """10·log10 of the signal over the noise, over all logits."""
    want, got = reference.astype(np.float64), logits.astype(np.float64)
    noise = float(np.square(want - got).sum())
    return float("inf") if noise == 0 else 10 * float(np.log10(np.square(want).sum() / noise))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print an aligned table: the first column to the left, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    for row in (header, ["-" * width for width in widths], *cells):
        first, *rest = [
            str(cell).ljust(width) if i == 0 else str(cell).rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join([first, *rest]).rstrip())


def verdict(what: str, met: bool | None) -> None:
    """Print an acceptance line; None where this machine cannot decide it."""
    print(f"{'n/a ' if met is None else 'met ' if met else 'MISS'}  {what}")
