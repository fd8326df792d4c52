"""The gate and `compare` as a user types them, on real artifacts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Vitedge
from tests.support import sabotage
from vitedge.data.imageset import Batch

Bundles = dict[tuple[str, str], Path]


@pytest.mark.parametrize(
    ("limits", "code", "answer"),
    [
        (("--max-drop", 1), 0, "passed"),
        (("--max-drop", 1, "--min-sqnr-db", 90), 1, "failed"),
        (("--max-drop", 0.01), 4, "inconclusive"),
    ],
)
def test_the_exit_code_is_the_answer(
    bundles: Bundles, vitedge: Vitedge, limits: tuple[object, ...], code: int, answer: str
) -> None:
    ran = vitedge("gate", bundles["onnxruntime", "int8"], *limits, code=code)
    assert f"gate: {answer}" in ran.stdout
    assert ran.stderr == ""
    if answer == "inconclusive":
        assert "too few images to tell, about 30,000 or more would" in ran.stdout


def test_a_finished_report_is_judged_without_any_runtime(bundles: Bundles, tmp_path: Path) -> None:
    shutil.copy(bundles["openvino", "int8"] / "report.json", tmp_path)
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "-m",
            "vitedge",
            "gate",
            "report.json",
            "--max-drop=1",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "numpy" in imported
    assert imported.isdisjoint({"torch", "onnx", "onnxruntime", "openvino", "tensorrt"})


def test_validate_accept_and_compare_with_what_was_accepted(
    bundles: Bundles, tmp_path: Path, vitedge: Vitedge, held_out: Batch
) -> None:
    np.savez(tmp_path / "few.npz", images=held_out.images[:150], labels=held_out.labels[:150])
    for precision in ("fp32", "int8"):
        bundle = bundles["onnxruntime", precision]
        shutil.copytree(bundle, tmp_path / bundle.name)
    int8 = tmp_path / bundles["onnxruntime", "int8"].name
    for measured in ("report.json", "evidence.npz"):
        (int8 / measured).unlink()
    (tmp_path / "vitedge.toml").write_text(
        '[gate]\nmax_drop_pp = 2.5\nbaseline = "accepted.npz"\n'
        'artifacts = [{ path = "*-int8", data = "few.npz", min_sqnr_db = 35.0 }]\n'
    )
    verdict = vitedge("gate", "--accept", "--json", cwd=tmp_path).document
    assert [judged["against"] for judged in verdict["judged"]] == ["fp32"]
    assert (tmp_path / "accepted.npz").stat().st_size < 20_000

    broken = tmp_path / "broken-int8"
    sabotage.sabotage(int8, broken, sabotage.logit_of_one_class)
    verdict = vitedge("gate", "--json", cwd=tmp_path, code=1).document
    answers = [
        (judged["path"], judged["against"], judged["answer"]) for judged in verdict["judged"]
    ]
    assert answers == [
        ("broken-int8", "fp32", "failed"),
        ("broken-int8", "accepted.npz", "failed"),
        (int8.name, "fp32", "passed"),
        (int8.name, "accepted.npz", "passed"),
    ]
    compared = vitedge("compare", int8, broken, "--json").document
    assert compared["accuracy"]["drop_ci_pp"][0] > 50


def test_a_junit_path_that_cannot_be_written_stops_it_before_anything_runs(
    bundles: Bundles, tmp_path: Path, vitedge: Vitedge
) -> None:
    report = bundles["onnxruntime", "int8"] / "report.json"
    before = report.stat().st_mtime_ns
    ran = vitedge(
        *("gate", report.parent, "--max-drop", 1, "--data", "digits"),
        *("--junit", tmp_path / "nowhere" / "gate.xml"),
        code=2,
    )
    assert "--junit" in ran.stderr and ran.stdout == ""
    assert report.stat().st_mtime_ns == before


def test_two_artifacts_stand_side_by_side(bundles: Bundles, vitedge: Vitedge) -> None:
    ran = vitedge("compare", bundles["onnxruntime", "int8"], bundles["openvino", "int8"])
    assert "digits-openvino-cpu-int8" in ran.stdout
    assert "accuracy: on the same 719 images" in ran.stdout
    assert "latency is not compared: not both were timed" in ran.stdout


@pytest.mark.heavy
@pytest.mark.parametrize(
    "how", [sabotage.scale_of_one_layer, sabotage.no_normalisation], ids=lambda how: how.__name__
)
def test_a_broken_artifact_fails(bundles: Bundles, tmp_path: Path, vitedge: Vitedge, how) -> None:
    for precision in ("fp32", "int8"):
        bundle = bundles["onnxruntime", precision]
        shutil.copytree(bundle, tmp_path / bundle.name)
    broken = tmp_path / "broken"
    sabotage.sabotage(tmp_path / bundle.name, broken, how)
    limits = ("--max-drop", 1, "--min-sqnr-db", 35, "--json")
    ran = vitedge("gate", broken, tmp_path / bundle.name, "--data", "digits", *limits, code=1)
    assert [judged["answer"] for judged in ran.document["judged"]] == ["failed", "passed"]


@pytest.mark.heavy
def test_channels_swapped_in_a_model_of_colours_fail(tmp_path: Path, vitedge: Vitedge) -> None:
    vitedge("export", "shapes", "--target", "onnxruntime", "--int8", "--duration", 0, cwd=tmp_path)
    int8 = next((tmp_path / "artifacts").glob("*-int8"))
    vitedge("gate", int8, "--max-drop", 0.5)
    broken = int8.with_name("broken")
    sabotage.sabotage(int8, broken, sabotage.red_for_blue)
    vitedge("gate", broken, "--max-drop", 0.5, "--data", "shapes", code=1)
