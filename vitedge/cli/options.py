"""The options that `export` and `qat` share, and what their text means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitedge.core.errors import InputError, nearest

if TYPE_CHECKING:
    from vitedge.core.spec import Batch, Task

DEFAULT_OUTPUT = Path("artifacts")

Model = Annotated[
    str,
    typer.Argument(
        help="Empty: the embedded reference. Else a name of 'vitedge models list', timm:NAME, "
        "hf:ID-or-directory, torchvision:NAME, FILE.onnx, or FILE.safetensors / .pt / .npz "
        "with --arch.",
        show_default=False,
    ),
]
CalibData = Annotated[
    str, typer.Option(help="Calibration images: folder, .npz, 'digits', 'shapes' or 'random'.")
]
Recipe = Annotated[str, typer.Option(help="Calibration recipe, or a .toml.")]
NumSamples = Annotated[
    int | None, typer.Option(min=1, help="Calibration images; default: the recipe's.")
]
EvalData = Annotated[str, typer.Option(help="Labelled images: folder, .npz, 'digits' or 'shapes'.")]
Duration = Annotated[
    float,
    typer.Option(help="Seconds of timing for each precision; 0: none, and no recommendation."),
]
Weights = Annotated[Path | None, typer.Option(help="Weights of a named model.")]
Arch = Annotated[str, typer.Option(help="Architecture of a weights file.")]
TaskName = Annotated[
    str, typer.Option(help="classification, segmentation or features; default: the source's.")
]
PreprocessFile = Annotated[Path | None, typer.Option(help="Preprocessing, a .toml.")]
BatchSize = Annotated[str, typer.Option(help="Images a run, or 'dynamic'.")]
Opset = Annotated[int | None, typer.Option(help="ONNX opset; default: the target's.")]
Output = Annotated[Path, typer.Option(help="Folder that holds the artifacts.")]
Force = Annotated[bool, typer.Option("--force", help="Replace existing artifacts.")]
AllowOverlap = Annotated[
    bool, typer.Option("--allow-overlap", help="Evaluate on images that were used, too.")
]


def task(text: str) -> Task | None:
    """Raises InputError where there is no such task."""
    known = ("classification", "segmentation", "features")
    if text and text not in known:
        raise InputError(f"unknown --task '{text}'", fix=nearest(text, known))
    return text or None  # type: ignore[return-value]


def batch(text: str) -> Batch | None:
    """Raises InputError where it is no number of images."""
    if not text or text == "dynamic":
        return text or None  # type: ignore[return-value]
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise InputError(f"--batch '{text}' is no number of images", fix="pass 1, 2, … or dynamic")
    return int(text)
