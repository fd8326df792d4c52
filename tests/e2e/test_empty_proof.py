"""A proof cannot be empty: of a broken FP32 baseline, or of outputs that hardly vary."""

from __future__ import annotations

import shutil

import msgspec
import numpy as np
import pytest

import vitedge as ve
from tests.support import sabotage
from vitedge.core.bundle import Golden, amend, open_bundle, seal
from vitedge.core.errors import LimitError

SHORT = ("--duration", 0.05)


def unchanged(graph, rng):
    """The graph as it was."""


@pytest.fixture(scope="module")
def broken(bundles, tmp_path_factory):
    """INT8 that is sound, beside an FP32 whose classes are swapped: it would win by 20 points."""
    int8 = sabotage.reference(bundles, tmp_path_factory.mktemp("broken"), sabotage.classes_swapped)
    shutil.copy2(bundles["onnxruntime", "int8"] / "report.json", int8)  # of when FP32 was sound
    return int8


@pytest.mark.parametrize(
    "command",
    [
        ("validate", "INT8"),
        ("validate", "FP32"),
        ("bench", "INT8", *SHORT),
        ("bench", "INT8", "--against", "INT8", *SHORT),
        ("bench", "INT8", "--scenario", "offline", *SHORT),
        ("gate", "INT8", "--max-drop", 1),
        ("gate", "INT8", "--max-drop", 1, "--data", "digits", *SHORT),
        ("gate", "INT8", "--min-speedup", 0.1, *SHORT),
        ("compare", "INT8", "SOUND"),
    ],
    ids=lambda command: " ".join(map(str, command)),
)
def test_a_broken_baseline_fails_and_is_named(broken, bundles, vitedge, command):
    fp32 = broken.with_name(broken.name.replace("int8", "fp32"))
    before = (broken / "report.json").read_bytes()
    paths = {"INT8": broken, "FP32": fp32, "SOUND": bundles["onnxruntime", "int8"]}
    ran = vitedge(*(paths.get(word, word) for word in command), code=1)
    said = "".join((ran.stdout + ran.stderr).split())
    assert "theFP32baselineisbroken" in said and f"{fp32}doesnotgiveitsown" in said
    assert "ship" not in ran.stdout
    assert (broken / "report.json").read_bytes() == before


def test_what_is_not_compared_with_fp32_passes_beside_a_broken_baseline(broken, vitedge):
    vitedge("gate", broken, "--max-size-mb", 10)


def test_the_api_raises_and_returns_the_same(broken):
    with pytest.raises(LimitError, match="baseline is broken"):
        ve.validate(broken)
    with pytest.raises(LimitError, match="baseline is broken"):
        ve.bench([broken], duration_s=0.05)
    verdict = ve.gate([broken], max_drop_pp=1)
    assert verdict.answer == "failed"
    assert "baseline is broken" in verdict.judged[0].checks[0].reason


def test_fp32_has_to_give_what_the_artifact_was_compared_with(bundles, tmp_path, vitedge):
    int8 = sabotage.reference(bundles, tmp_path, unchanged)
    bundle = open_bundle(int8)
    golden = bundle.golden()
    Golden(golden.images, golden.outputs[:, ::-1], golden.labels).write(int8)
    seal(int8, bundle.manifest)
    said = vitedge("validate", int8, code=1).stderr
    assert f"does not give FP32's golden outputs in {int8}" in said


def test_a_model_without_images_of_its_own_has_its_baseline_checked(bundles, tmp_path, vitedge):
    int8 = sabotage.reference(bundles, tmp_path, sabotage.classes_swapped)
    for path in (int8, int8.with_name(int8.name.replace("int8", "fp32"))):
        bundle = open_bundle(path)
        amend(bundle, model=msgspec.structs.replace(bundle.manifest.model, source="mine"))
    assert "baseline is broken" in vitedge("validate", int8, code=1).stderr


# -- outputs that hardly vary -------------------------------------------------------------------

ZERO = sabotage.outputs_times(0.0), lambda outputs: 0 * outputs, "output is zero"
CONSTANT = (
    sabotage.outputs_times(1e-5, 3.0),
    lambda outputs: 1e-5 * outputs + 3 * np.arange(1, outputs.shape[1] + 1),
    "the same output for all images but for 1e-06 of it",
)


@pytest.fixture(scope="module", params=[ZERO, CONSTANT], ids=["zero", "constant"])
def dead(request, bundles, tmp_path_factory):
    """INT8 of a model whose outputs prove nothing, and why."""
    how, outputs, why = request.param
    return sabotage.reference(bundles, tmp_path_factory.mktemp("dead"), how, outputs), why


def test_outputs_that_hardly_vary_are_inconclusive(dead, vitedge):
    int8, why = dead
    ran = vitedge("validate", int8, "--json", code=4)
    assert "proves nothing" in ran.stderr and why in ran.stderr
    assert why in ran.document["numerics"]["degenerate"]
    ran = vitedge("gate", int8, "--max-drop", 1, "--min-sqnr-db", 30, "--json", code=4)
    (judged,) = ran.document["judged"]
    for check in judged["checks"]:
        assert check["answer"] == "inconclusive" and why in check["reason"]
    vitedge("gate", int8, "--min-top1", 0.9, code=1)  # that it breaks for certain
    if why == ZERO[-1]:  # of the others, bench would say the same
        ran = vitedge("bench", int8, *SHORT, code=4)
        assert "ship INT8" not in ran.stdout and why in ran.stderr
