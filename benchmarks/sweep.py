"""What the sweeps share: their command line, their file of rows, their warm processes."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support.sweep import line


def sweep(
    rows: list[Any],
    run: Callable[[Any, Any], dict[str, Any]],
    workers: list[Any],
    file: Path,
) -> list[dict[str, Any]]:
    """All `rows`, those in `file` as they are there, the others `run` and appended to it."""
    done = read(file)
    todo = [row for row in rows if row.name not in done]
    free = list(workers)

    def work(row: Any) -> None:
        worker = free.pop()
        result = {"row": row.name, **row.facts, **run(worker, row)}
        free.append(worker)
        done[row.name] = result
        with file.open("a") as out:
            out.write(json.dumps(result) + "\n")
        print(line(result), flush=True)

    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(work, todo))
    return [done[row.name] for row in rows]


def read(file: Path) -> dict[str, dict[str, Any]]:
    """The rows of a file by name, the latest of each."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {row["row"]: row for row in map(json.loads, lines)}


def options(description: str | None, file: str) -> argparse.ArgumentParser:
    """The command line of a sweep."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("file", nargs="?", type=Path, default=Path(file), help="where rows go")
    parser.add_argument("--only", nargs="+", default=[""], help="words of the rows to run")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    return parser


def named(name: str, words: Iterable[str]) -> bool:
    """Whether one of `words` is in `name`; a whole name with `=` before it."""
    return any(name == word[1:] if word.startswith("=") else word in name for word in words)


def one_thread() -> None:
    """Of each library: rows run side by side."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"


def warm_product() -> None:
    """Import what an export imports."""
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401
    import openvino  # noqa: F401
    import torch
    import torch.onnx
    from torch.onnx._internal.exporter import _core  # noqa: F401

    import vitedge.export.job
    import vitedge.export.onnx
    import vitedge.quant.int8  # noqa: F401

    torch.set_num_threads(1)


def without(row: dict[str, Any], work: str) -> dict[str, Any]:
    """A row that does not name the folder it was made in."""
    return json.loads(json.dumps(row).replace(f"{work}/", "").replace(work, ""))
