"""One model after another through `vitedge.export` as a user has it: what became of each, as a row.

A row runs in a process of its own, forked from one in which all is imported.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import re
import resource
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.lineage import photographs

TARGETS = ("onnxruntime-cpu", "openvino-cpu")
IMAGES = 8
"""To calibrate on, and as many others to compare on."""
MIN_SQNR_DB = 20.0
MIN_MACS_SHARE = 0.8
CPU_S = 150
"""Of a row, at most; and so many times that on the clock, as other work may run beside."""
PATIENCE = 8
MEMORY_BYTES = 8 << 30
_TOLD = 1500
"""Characters of what a row printed that are kept."""


@dataclass(frozen=True)
class Row:
    """One model of a library."""

    name: str
    source: str
    """The MODEL that is exported; where it is a folder, `make` wrote it."""
    facts: dict[str, Any]
    """What is known of it before: shown in the table."""


def data(folder: Path) -> tuple[Path, Path]:
    """Crops of photographs to calibrate and to compare on, with labels and masks of zeros."""
    crops = photographs(2 * IMAGES)
    paths = folder / "calibration.npz", folder / "evaluation.npz"
    for path, images in zip(paths, (crops[:IMAGES], crops[IMAGES:]), strict=True):
        masks = np.zeros(images.shape[:3], np.uint8)
        np.savez(path, images=images, labels=np.zeros(len(images), np.int64), masks=masks)
    return paths


def measure(source: str, given: dict[str, int], folder: Path, targets: Iterable[str]) -> dict:
    """Export `source` in INT8; `given`: what its module gives. What came of it, as JSON."""
    import vitedge
    from vitedge.core.errors import VitedgeError

    calibration, evaluation = data(folder)
    start = time.perf_counter()
    row: dict[str, Any] = {"targets": {target: {"written": False} for target in targets}}
    try:
        exports = vitedge.export(
            source,
            targets=tuple(targets),
            precision="int8",
            calib_data=calibration,
            eval_data=evaluation,
            duration_s=0,
            keep_going=True,
            output=folder / "artifacts",
        )
    except VitedgeError as error:
        exports = error.exports or []
        if not exports:
            row["error"] = _told(error)
    for result in exports:
        row["targets"][result.bundle.manifest.target.name] |= _facts(result)
    for failure in getattr(exports, "failures", ()):
        row["targets"][failure.target]["error"] = _told(failure.error)
    if exports:
        manifest = exports[0].bundle.manifest
        row["task"] = manifest.model.task
        row["outputs"] = [output.name for output in manifest.outputs]
        row["notes"] = exports[0].notes()
        row["lost"] = _lost(given, row["outputs"], row["notes"])
    row["seconds"] = round(time.perf_counter() - start, 1)
    return row


def _told(error: Any) -> dict[str, str]:
    return {"kind": type(error).__name__, "what": error.what, "fix": error.fix}


def _facts(result: Any) -> dict[str, Any]:
    """What is known of one bundle: parity of FP32's, numbers and layers of INT8's."""
    manifest, report = result.bundle.manifest, result.report
    if manifest.precision == "fp32":
        return {"parity": manifest.parity.max_rel_error}
    numerics = report.numerics or (report.simulation.numerics if report.simulation else None)
    facts: dict[str, Any] = {"written": True}
    if numerics:
        outputs = numerics.outputs or {manifest.outputs[0].name: numerics}
        facts["sqnr_db"] = {name: level.sqnr_db for name, level in outputs.items()}
        facts["degenerate"] = numerics.degenerate
    layers = manifest.quantization.layers
    macs = [layer.figures.macs if layer.figures else 0 for layer in layers]
    int8 = sum(n for n, layer in zip(macs, layers, strict=True) if layer.quantized)
    facts["macs_share"] = int8 / sum(macs) if sum(macs) else None
    facts["float"] = dict(Counter(layer.why for layer in layers if not layer.quantized))
    return facts


def _lost(given: dict[str, int], kept: list[str], notes: Iterable[str]) -> list[str]:
    """What a module gives, and neither an artifact holds nor a note names.

    `given` counts the tensors in each. An artifact may call them otherwise, stage by stage.
    """
    told = "\n".join((*kept, *notes))
    renamed = len([name for name in kept if name.partition(".")[0] not in given])
    unnamed = {
        name: count
        for name, count in given.items()
        if not re.search(rf"(?<!\w){re.escape(name)}(?![a-z])", told)
    }
    return list(unnamed) if sum(unnamed.values()) > renamed else []


def shortfall(row: dict[str, Any], target: str) -> str:
    """Why a row does not count on `target`, in a line; empty where it does."""
    facts = row["targets"][target]
    if told := row.get("error") or facts.get("error"):
        return f"{told['what']}"
    if row.get("crashed"):
        return str(row["crashed"]).strip().splitlines()[-1]
    if not facts["written"]:
        return "not written"
    if facts.get("degenerate"):
        return facts["degenerate"]
    levels = [db for db in facts.get("sqnr_db", {}).values() if db is not None]
    if levels and min(levels) < MIN_SQNR_DB:
        return f"SQNR {min(levels):.1f} dB"
    if not facts["macs_share"]:
        return "nothing is in INT8"
    if facts["macs_share"] < MIN_MACS_SHARE and not all(facts["float"]):
        return f"{facts['macs_share']:.0%} of MACs in INT8, and layers without a reason"
    return ""


def without(row: dict[str, Any], work: str) -> dict[str, Any]:
    """A row that does not name the folder it was made in."""
    return json.loads(json.dumps(row).replace(f"{work}/", "").replace(work, ""))


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


class Warm:
    """A process that has imported what its jobs need; each of them runs in a fork of it."""

    def __init__(self, prepare: Callable[[], object]) -> None:
        self._here, there = Pipe()
        self._pid = os.fork()
        if not self._pid:
            self._here.close()
            self._serve(there, prepare)
        there.close()

    def run(self, job: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
        """What `job` returns; `crashed`, where it raised, hung or died; `terminal`: its prints."""
        self._here.send((job, arguments))
        return self._here.recv()

    def close(self) -> None:
        """End it."""
        self._here.close()
        os.waitpid(self._pid, 0)

    @staticmethod
    def _serve(jobs: Any, prepare: Callable[[], object]) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        kept = prepare()
        while True:
            try:
                job, arguments = jobs.recv()
            except (EOFError, OSError):
                os._exit(0)
            jobs.send(_forked(job, arguments))
        del kept


def _forked(job: Callable[..., dict[str, Any]], arguments: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        printed, answer = Path(folder, "printed"), Path(folder, "answer")
        pid = os.fork()
        if not pid:
            _child(job, arguments, printed, answer)
        deadline = time.monotonic() + CPU_S * PATIENCE
        while not (ended := os.wait4(pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return {"crashed": f"still not done after {CPU_S * PATIENCE} s"}
            time.sleep(0.02)
        row = json.loads(answer.read_text()) if answer.exists() else {}
        row["cpu_s"] = round(ended[2].ru_utime + ended[2].ru_stime, 1)
        if not answer.exists():
            slow = os.WIFSIGNALED(ended[1]) and os.WTERMSIG(ended[1]) == signal.SIGXCPU
            why = f"took more than {CPU_S} s" if slow else f"its process died: {ended[1]}"
            row["crashed"] = why
        if terminal := printed.read_text(errors="replace"):
            row["terminal"] = terminal[:_TOLD]
        return row


def _child(job: Callable[..., Any], arguments: Any, printed: Path, answer: Path) -> None:
    with printed.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.register(signal.SIGXCPU, chain=True)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 10))
    try:
        row = job(*arguments)
    except BaseException:
        row = {"crashed": traceback.format_exc()[-_TOLD:]}
    answer.write_text(json.dumps(row))
    os._exit(0)


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


def line(row: dict[str, Any]) -> str:
    """A row for the terminal."""
    cells = []
    for target in TARGETS:
        facts = row.get("targets", {}).get(target)
        why = shortfall(row, target) if facts else reason(row)
        cells.append(figures(facts) if facts and not why else why[:160] or "-")
    same = cells[0] == cells[1]
    extra = "".join(
        f"  [{key}: {str(row[key])[:100]!r}]" for key in ("lost", "terminal") if row.get(key)
    )
    shown = cells[0] if same else " | ".join(cells)
    return f"{row['row']:56} {row.get('cpu_s', 0):6}s {shown}{extra}"


def figures(facts: dict[str, Any]) -> str:
    """SQNR of the worst output and the share of MACs in INT8."""
    levels = [db for db in facts.get("sqnr_db", {}).values() if db is not None]
    level = f"{min(levels):.1f} dB" if levels else "exact"
    return f"{level}, {facts['macs_share']:.0%}"


def reason(row: dict[str, Any]) -> str:
    """Why a row that has no target's figures has none, in a line."""
    if told := row.get("error"):
        return str(told["what"])
    crashed = str(row.get("crashed") or row.get("not_made") or "").strip()
    return crashed.splitlines()[-1] if crashed else ""


def summary(rows: list[dict[str, Any]]) -> str:
    """The counts that are asked for."""
    taken = [row for row in rows if not row.get("excluded")]
    ran = [row for row in taken if row.get("targets")]
    good = {t: [row for row in ran if not shortfall(row, t)] for t in TARGETS}
    both = [row for row in good[TARGETS[0]] if row in good[TARGETS[1]]]
    parts = [
        f"{len(taken)} rows, {len(rows) - len(taken)} of more than an image",
        f"INT8 on both {len(both)}",
        *(f"{target} {len(good[target])}" for target in TARGETS),
        f"crashes {sum(bool(row.get('crashed')) for row in rows)}",
        f"terminal {sum(bool(row.get('terminal')) for row in rows)}",
        f"silent losses {sum(bool(row.get('lost')) for row in rows)}",
    ]
    return "; ".join(parts)
