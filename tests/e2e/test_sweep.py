"""`vitedge sweep` as a user types it: its trials, what is kept, what is done again."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import msgspec
import pytest

from tests.support import sweep_files
from vitedge.core.report import Report
from vitedge.export.sweep.row import Row

TWO = {"plain": "minmax", "clipped": "mse"}


def rows(folder):
    """The trials' files by name."""
    files = sorted((folder / "trials").glob("*.json"))
    read = [msgspec.json.decode(file.read_bytes(), type=Row) for file in files]
    return {row.trial: row for row in read}


def figures(folder):
    """What each trial came to, without what is of the moment."""
    return {
        name: (row.state, row.error, msgspec.structs.replace(row.report, host=None))
        for name, row in rows(folder).items()
        if isinstance(row.report, Report)
    }


def made(folder):
    """How many steps of each kind the trials made."""
    return dict(sum((Counter(row.made) for row in rows(folder).values()), Counter()))


def test_a_sweep_ships_one_and_is_not_run_twice(tmp_path, vitedge, held_out):
    file = sweep_files.write(
        tmp_path,
        TWO,
        ["onnxruntime-cpu"],
        held_out,
        duration_s=0.1,
        more='precisions = ["int8", "bf16"]',
    )
    out = tmp_path / "out"
    plan = vitedge("sweep", file, "--output", out, "--dry-run", "--json").document
    assert [trial["state"] for trial in plan["trials"]].count("to do") == 2
    ran = vitedge("sweep", file, "--output", out)
    assert (
        "ship digits-onnxruntime-cpu-int8-" in ran.stdout and "1 of 3 trials failed" in ran.stdout
    )
    assert "does not run bf16" in ran.stderr
    with (out / "sweep.csv").open() as text:
        table = list(csv.DictReader(text))
    assert len(table) == 3 and sum(bool(row["p50_ms"]) for row in table) == 2
    page = (out / "sweep.html").read_text()
    assert "ship digits-onnxruntime-cpu-int8-" in page and "<svg" in page
    assert made(out) == {"onnx": 1, "statistics": 1, "qdq": 2, "bundle": 3, "validation": 3}
    before = {path: path.stat().st_mtime_ns for path in (out / "trials").glob("*int8*")}
    again = vitedge("sweep", file, "--output", out, "--json").document
    assert {path: path.stat().st_mtime_ns for path in before} == before
    kept = [row["artifact"] for row in again["rows"] if row["artifact"]]
    assert 1 <= len(kept) <= 2 and len(list((out / "artifacts").glob("*onnxruntime*"))) == len(kept)
    verdict = vitedge("gate", out, "--max-size-mb", 100, "--json").document
    assert len(verdict["judged"]) == len(kept)
    plan = vitedge("sweep", file, "--output", out, "--dry-run").stdout
    assert "2 done" in plan


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.toml"], "missing.toml"),
        (["unknown.toml"], "unknown target 'nowhere'"),
        (["unknown.toml", "--dry-run"], "unknown target 'nowhere'"),
        (["sweep.toml", "--workers", "1", "--address", "h:1"], "--address"),
    ],
)
def test_bad_input_is_said_before_any_work(tmp_path, vitedge, held_out, arguments, says):
    sweep_files.write(tmp_path, TWO, ["nowhere"], held_out).rename(tmp_path / "unknown.toml")
    sweep_files.write(tmp_path, TWO, ["onnxruntime-cpu"], held_out)
    ran = vitedge("sweep", *arguments, "--output", tmp_path / "out", cwd=tmp_path, code=2)
    assert says in ran.stderr


def test_help_imports_neither_ray_nor_torch():
    program = (
        "import sys; from vitedge.cli.main import app; import typer\n"
        "try: app(['sweep', '--help'])\n"
        "except SystemExit: pass\n"
        "print({'ray', 'torch', 'pyarrow', 'pandas'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()"


FOUR = ["onnxruntime-cpu", "openvino-cpu", "onnxruntime-arm", "onnxruntime-vnni"]
THREE = {**TWO, "cut": "percentile"}


@pytest.mark.heavy
def test_one_recipe_changed_in_a_sweep_of_twelve_repeats_its_own_steps(tmp_path, vitedge, held_out):
    file = sweep_files.write(tmp_path, THREE, FOUR, held_out, more='keep = "all"')
    out = tmp_path / "out"
    vitedge("sweep", file, "--output", out)
    first = made(out)
    assert first["qdq"] == 12 and first["bundle"] == 16 and first["validation"] == 16
    sweep_files.write(tmp_path, {**THREE, "cut": "entropy"}, FOUR, held_out, more='keep = "all"')
    known = set(rows(out))
    vitedge("sweep", file, "--output", out)
    new = [row for name, row in rows(out).items() if name not in known]
    assert len(new) == 4
    counts = sum((Counter(row.made) for row in new), Counter())
    assert counts == {"qdq": 4, "bundle": 4, "validation": 4}


@pytest.mark.heavy
def test_a_killed_sweep_goes_on_and_comes_to_the_same(tmp_path, vitedge, held_out):
    file = sweep_files.write(tmp_path, THREE, ["onnxruntime-cpu", "openvino-cpu"], held_out)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    vitedge("sweep", file, "--output", whole)
    for wait in (1, 3, 5):
        process = subprocess.Popen(
            [sys.executable, "-m", "vitedge", "sweep", file, "--output", killed],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        seen = len(rows(killed)) if killed.exists() else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if killed.exists() and len(list((killed / "trials").glob("digits*"))) > seen:
                break
            time.sleep(0.05)
        time.sleep(wait / 10)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    vitedge("sweep", file, "--output", killed)
    assert figures(killed) == figures(whole)
    assert made(killed)["qdq"] == made(whole)["qdq"]


@pytest.mark.heavy
def test_ray_comes_to_the_same(tmp_path, vitedge, vitedge_process, held_out):
    pytest.importorskip("ray")
    file = sweep_files.write(tmp_path, TWO, ["onnxruntime-cpu", "openvino-cpu"], held_out)
    vitedge("sweep", file, "--output", tmp_path / "one")
    vitedge_process("sweep", file, "--output", tmp_path / "two", "--workers", 2)
    assert figures(tmp_path / "one") == figures(tmp_path / "two")
    assert made(tmp_path / "one")["qdq"] == made(tmp_path / "two")["qdq"]
