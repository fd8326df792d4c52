"""What the benchmarks share: images, the peers we are compared with, and tables."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge import catalog, host
from vitedge.artifact import Bundle
from vitedge.backends import BACKENDS, open_session
from vitedge.backends.base import Session
from vitedge.models.sources import Request
from vitedge.pipeline import export
from vitedge.plan import ExportRequest
from vitedge.progress import Steps
from vitedge.spec import Target

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
) -> tuple[Bundle, Bundle]:
    """Our own FP32 and INT8 bundles of `model`, with random weights unless it is `digits`."""
    made = export(
        ExportRequest(
            model=Request(model, random_weights=model != "digits"),
            targets=(runtime,),
            precision="int8",
            calib_data=calib_data,
            calibration=recipe,
            num_samples=samples,
            duration_s=0,
            output=folder,
            force=True,
        ),
        SILENT,
    )
    return made[0].bundle, made[1].bundle


def open_file(model: Path, like: Target) -> AbstractContextManager[Session]:
    """Open a peer's artifact with exactly the options that ours is opened with."""
    threads = like.threads or host.usable_cores()
    return BACKENDS[like.runtime].open(model.parent, msgspec.structs.replace(like, threads=threads))


def open_ours(bundle: Bundle) -> AbstractContextManager[Session]:
    """Open one of our bundles."""
    return open_session(bundle)


def target_here(runtime: str) -> Target:
    """The profile of `runtime` that fits this machine."""
    return catalog.find_target(runtime, host.describe(threads=0))


def nncf_openvino(fp32: Path, images: Iterable[NDArray[np.uint8]], out: Path, **how: Any) -> Path:
    """NNCF's OpenVINO path with its own settings for a transformer: IR or ONNX -> `out`/model.xml.

    `images` are batches (B, H, W, 3) for the graph's one input.
    """
    import nncf
    import openvino as ov

    model = ov.Core().read_model(fp32)
    with _quiet_nncf():
        quantized = nncf.quantize(
            model,
            nncf.Dataset(list(images)),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            model_type=nncf.ModelType.TRANSFORMER,
            **how,
        )
    out.mkdir(parents=True, exist_ok=True)
    ov.save_model(quantized, out / "model.xml", compress_to_fp16=False)
    return out / "model.xml"


def nncf_onnx(fp32: Path, images: Iterable[NDArray[np.uint8]], out: Path, **how: Any) -> Path:
    """NNCF's ONNX path, likewise: ONNX -> `out`/model.onnx."""
    import nncf
    import onnx

    model = onnx.load(fp32)
    name = model.graph.input[0].name
    with _quiet_nncf():
        quantized = nncf.quantize(
            model,
            nncf.Dataset(list(images), lambda batch: {name: batch}),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            model_type=nncf.ModelType.TRANSFORMER,
            **how,
        )
    out.mkdir(parents=True, exist_ok=True)
    onnx.save(quantized, out / "model.onnx")
    return out / "model.onnx"


def ort_static(fp32: Path, images: Iterable[NDArray[np.uint8]], out: Path) -> Path:
    """ONNX Runtime's quantize_static with its defaults, after its own pre-processing."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
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

    quantize_static(str(prepared), str(out / "model.onnx"), Reader())
    prepared.unlink()
    return out / "model.onnx"


@contextlib.contextmanager
def _quiet_nncf() -> Iterator[None]:
    """Keep its logs and progress bars out of the tables."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        yield


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
