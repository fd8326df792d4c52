"""The API's part on sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vitedge.core.api import AnyPath
from vitedge.core.progress import Steps, steps
from vitedge.core.spec import Count, Positive

if TYPE_CHECKING:
    from vitedge.export.sweep.job import Request, SweepResult


def sweep(
    file: AnyPath,
    *,
    output: AnyPath = "sweep",
    workers: Count | None = None,
    address: str = "",
    limit: Positive | None = None,
    cache: AnyPath | None = None,
    progress: Steps | None = None,
) -> SweepResult:
    """Search models, precisions and recipes for what to ship on each target.

    Each trial is exported, validated and timed; a sweep that was killed goes on where it was.
    Without `workers` and `address` one trial runs after the other, and the results are the same.

    Args:
        file: What to search: a sweep.toml (docs/sweep.md).
        output: Folder of its artifacts, trials, table and page.
        workers: Trials at a time on this machine, by Ray; 0: one a core.
        address: Run on the Ray cluster there, HOST:PORT or 'auto'; `output` is on every host.
        limit: Run so many trials, from everywhere in the grid.
        cache: Folder of the steps that are kept, to share; default: in `output`.
        progress: Where to show it; None: bars on stderr where that is a terminal.

    Returns:
        Every trial as a row, with its report or its error, and which one to ship.

    Raises:
        InputError: the file is no sweep, or too large a one, or every trial failed.
        UnavailableError: Ray is asked for, and not there.
    """
    parameters = {name: value for name, value in locals().items() if name != "progress"}
    from vitedge.export.sweep import job

    with steps(progress) as shown:
        return job.run(to_sweep(**parameters), shown)


def to_sweep(
    file: AnyPath,
    *,
    output: AnyPath,
    workers: int | None,
    address: str,
    limit: int | None,
    cache: AnyPath | None,
) -> Request:
    """The parameters of `sweep` as one."""
    from vitedge.export.sweep.job import Request

    folder = Path(output)
    place = folder / "cache" if cache is None else Path(cache)
    return Request(Path(file), folder, place, workers, address, limit)
