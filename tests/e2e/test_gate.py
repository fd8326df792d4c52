"""The gate and `compare` as a user types them, on real artifacts."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tests.support import sabotage
from vitedge.core import report
from vitedge.core.bundle import open_bundle
from vitedge.gate import api


def copied(bundles, folder):
    """An INT8 artifact in `folder`, with its FP32 beside it."""
    for precision in ("fp32", "int8"):
        bundle = bundles["onnxruntime", precision]
        shutil.copytree(bundle, folder / bundle.name)
    return folder / bundle.name


@pytest.mark.parametrize(
    ("limits", "code", "answer"),
    [
        (("--max-drop", 1), 0, "passed"),
        (("--max-drop", 1, "--min-sqnr-db", 90), 1, "failed"),
        (("--max-drop", 0.01), 4, "inconclusive"),
    ],
)
def test_the_exit_code_is_the_answer(bundles, vitedge, limits, code, answer):
    ran = vitedge("gate", bundles["onnxruntime", "int8"], *limits, code=code)
    assert f"gate: {answer}" in ran.stdout
    assert ran.stderr == ""
    if answer == "inconclusive":
        assert "too few images to tell, about 30,000 or more would" in ran.stdout


def test_validate_accept_and_compare_with_what_was_accepted(bundles, tmp_path, vitedge, held_out):
    np.savez(tmp_path / "few.npz", images=held_out.images[:150], labels=held_out.labels[:150])
    int8 = copied(bundles, tmp_path)
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
        [judged[key] for key in ("path", "against", "answer")] for judged in verdict["judged"]
    ]
    assert answers == [
        *(["broken-int8", against, "failed"] for against in ("fp32", "accepted.npz")),
        *([int8.name, against, "passed"] for against in ("fp32", "accepted.npz")),
    ]
    compared = vitedge("compare", int8, broken, "--json").document
    assert compared["accuracy"]["drop_ci_pp"][0] > 50


def test_an_open_bundle_is_measured_and_judged(bundles, tmp_path, held_out):
    int8 = copied(bundles, tmp_path)
    np.savez(tmp_path / "few.npz", images=held_out.images[:150], labels=held_out.labels[:150])
    (judged,) = api.gate(open_bundle(int8), data=str(tmp_path / "few.npz"), max_drop_pp=2.5).judged
    assert (judged.path, judged.answer) == (str(int8), "passed")
    assert report.read(int8 / "report.json").accuracy.n == 150


def test_two_artifacts_stand_side_by_side(bundles, vitedge):
    ran = vitedge("compare", bundles["onnxruntime", "int8"], bundles["openvino", "int8"])
    assert "digits-openvino-cpu-int8" in ran.stdout
    assert "accuracy: on the same 719 images" in ran.stdout
    assert "latency is not compared: not both were timed" in ran.stdout


@pytest.mark.heavy
@pytest.mark.parametrize("how", ["scale_of_one_layer", "no_normalisation"])
def test_a_broken_artifact_fails(bundles, tmp_path, vitedge, how):
    int8, broken = copied(bundles, tmp_path), tmp_path / "broken"
    sabotage.sabotage(int8, broken, getattr(sabotage, how))
    limits = ("--max-drop", 1, "--min-sqnr-db", 35, "--json")
    ran = vitedge("gate", broken, int8, "--data", "digits", *limits, code=1)
    assert [judged["answer"] for judged in ran.document["judged"]] == ["failed", "passed"]


@pytest.mark.heavy
def test_channels_swapped_in_a_model_of_colours_fail(tmp_path, vitedge):
    vitedge("export", "shapes", "--target", "onnxruntime", "--int8", "--duration", 0, cwd=tmp_path)
    int8 = next((tmp_path / "artifacts").glob("*-int8"))
    vitedge("gate", int8, "--max-drop", 0.5)
    broken = int8.with_name("broken")
    sabotage.sabotage(int8, broken, sabotage.red_for_blue)
    vitedge("gate", broken, "--max-drop", 0.5, "--data", "shapes", code=1)
