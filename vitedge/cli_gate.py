"""`vitedge gate` and `vitedge compare`: parse, call one function, render."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitedge.cli_output import Json


def gate(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Artifacts or reports; default: those that vitedge.toml or pyproject.toml names.",
            show_default=False,
        ),
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Largest accuracy lost, percentage points.")
    ] = None,
    min_speedup: Annotated[
        float | None, typer.Option(help="Least speed-up over what it was timed with.")
    ] = None,
    max_p90_ms: Annotated[float | None, typer.Option(help="Longest p90, milliseconds.")] = None,
    max_size_mb: Annotated[float | None, typer.Option(help="Largest size, MB.")] = None,
    max_rss_mb: Annotated[float | None, typer.Option(help="Largest peak RSS, MB.")] = None,
    min_agreement: Annotated[
        float | None, typer.Option(help="Least share of images on which both agree, 0-1.")
    ] = None,
    min_sqnr_db: Annotated[float | None, typer.Option(help="Least SQNR, dB.")] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(help="Least accuracy (top-1, mIoU, …) of the artifact, 0-1.")
    ] = None,
    max_slowdown: Annotated[
        float | None,
        typer.Option(help="Longest latency over the baseline's, both relative to FP32's."),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="The last accepted artifacts: compare with them, too.")
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Where all passed, write them to --baseline.")
    ] = False,
    confidence: Annotated[
        float | None, typer.Option(help="One-sided, of each limit; default 0.95.")
    ] = None,
    data: Annotated[str, typer.Option(help="Validate artifacts on these images first.")] = "",
    duration: Annotated[
        float, typer.Option(help="Time artifacts for so many seconds first; 0: use the report.")
    ] = 0.0,
    config: Annotated[
        Path | None,
        typer.Option(help="Limits; default: vitedge.toml, else [tool.vitedge.gate]."),
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
    as_json: Json = False,
) -> None:
    """Pass or fail artifacts by limits, or say that the evidence is too thin (exit 4)."""
