"""`--min-sqnr-db` keeps the fewest layers in float without a label, or says why it cannot."""

from __future__ import annotations

import json

import numpy as np
import pytest

import vitedge as ve
from tests.e2e.test_max_drop import LAYERS, command, write_fragile
from tests.support import several_outputs as small
from tests.support.machine import ONNXRUNTIME
from vitedge.core.bundle import open_bundle
from vitedge.core.errors import LimitError
from vitedge.core.manifest import Bounds

DIGITS = f"digits-{ONNXRUNTIME}-int8"
FAST = ("--int8", "--calibration", "fast", "--num-samples", 8, "--duration", 0)


@pytest.fixture(autouse=True)
def short_timing(monkeypatch):
    """What a bound costs is timed with as few runs as it takes."""
    monkeypatch.setattr("vitedge.export.accuracy_control.COST_S", 0.1)


def quantization(path):
    return open_bundle(path).manifest.quantization


def report_of(path):
    return json.loads((path / "report.json").read_text())


@pytest.fixture(scope="module")
def full_db(tmp_path_factory, vitedge):
    """What all of INT8 keeps of the embedded reference."""
    output = tmp_path_factory.mktemp("full")
    vitedge("export", "--target", ONNXRUNTIME, *FAST, "--output", output)
    return report_of(output / DIGITS)["numerics"]["sqnr_db"]


@pytest.mark.heavy
def test_the_embedded_reference_keeps_the_level_with_few_layers_in_float(
    tmp_path, vitedge, full_db
):
    level = round(full_db + 1.5, 1)
    flags = ("--min-sqnr-db", level, "--output", tmp_path)
    ran = vitedge("export", "--target", ONNXRUNTIME, *FAST, *flags)
    path = tmp_path / DIGITS
    control, numerics = quantization(path).control, report_of(path)["numerics"]
    assert control.bounds == Bounds(min_sqnr_db=level)
    assert control.reached.sqnr_db == numerics["sqnr_db"] >= level > control.full.sqnr_db
    assert control.full.sqnr_db == pytest.approx(full_db)
    assert control.reached.drop_pp == report_of(path)["accuracy"]["drop_pp"]
    tried = {0: control.full, **dict(control.tried)}
    assert 1 <= len(control.kept) < control.layers
    assert tried[len(control.kept) - 1].sqnr_db < level
    assert control.cost.slowdown_ci[0] <= control.cost.slowdown <= control.cost.slowdown_ci[1]
    said = f"kept {len(control.kept)} of {control.layers} layers in float to keep {level:g} dB"
    assert said in ran.stdout
    reasons = {layer.node: layer.why for layer in quantization(path).layers}
    assert f"to keep {level:g} dB" in reasons[control.kept[0].node]
    vitedge("gate", path, "--min-sqnr-db", level)
    assert not list(tmp_path.glob(".*")), "nothing is left of the search"


def test_nothing_is_searched_where_the_level_is_kept(tmp_path, vitedge, full_db):
    flags = ("--min-sqnr-db", full_db - 1, "--output", tmp_path)
    ran = vitedge("export", "--target", ONNXRUNTIME, *FAST, *flags)
    assert quantization(tmp_path / DIGITS).control is None
    assert "in float to keep" not in ran.stdout


def without_labels(model, folder, *bounds):
    """The command line with images that nobody has labelled, and no others."""
    calibration = np.load(small.images(folder, 32, labelled=False))["images"]
    np.savez(folder / "calib.npz", images=calibration)
    words = command(model, "none", folder / "out", 1)
    cut = words.index("--calib-data")
    return [
        *words[:cut],
        *("--calib-data", folder / "calib.npz", "--output", folder / "out", *bounds),
    ]


def test_no_label_and_no_evaluation_images_are_needed(tmp_path, vitedge):
    ruined = {2, 7}
    model = write_fragile(tmp_path / "fragile.onnx", ruined)
    vitedge(*without_labels(model, tmp_path, "--min-sqnr-db", 25))
    path = tmp_path / "out" / f"fragile-{ONNXRUNTIME}-int8"
    control, report = quantization(path).control, report_of(path)
    assert {kept.node for kept in control.kept} == {f"layer{layer}" for layer in ruined}
    assert report["numerics"]["data"] == "golden" and "accuracy" not in report
    assert control.reached.drop_pp is None and control.full.sqnr_db < 25
    assert control.reached.sqnr_db == report["numerics"]["sqnr_db"] >= 25


def test_evaluation_images_need_no_labels(tmp_path, vitedge):
    ruined = {2, 7}
    model = write_fragile(tmp_path / "fragile.onnx", ruined)
    images = np.load(small.images(tmp_path, 24, labelled=False, seed=1))["images"]
    np.savez(tmp_path / "unlabelled.npz", images=images)
    evaluation = ("--eval-data", tmp_path / "unlabelled.npz")
    vitedge(*without_labels(model, tmp_path, *evaluation, "--min-sqnr-db", 25))
    path = tmp_path / "out" / f"fragile-{ONNXRUNTIME}-int8"
    report = report_of(path)
    assert report["numerics"]["n"] == 24 and "accuracy" not in report
    assert {kept.node for kept in quantization(path).control.kept} == {
        f"layer{layer}" for layer in ruined
    }
    both = (*evaluation, "--min-sqnr-db", 25, "--max-drop", 1, "--force")
    ran = vitedge(*without_labels(model, tmp_path, *both), code=2)
    assert "has no array 'labels'" in ran.stderr


def test_an_unreachable_level_is_exit_1_and_another_goes_on_from_it(tmp_path, vitedge):
    model = write_fragile(tmp_path / "fragile.onnx", {4})
    ran = vitedge(*without_labels(model, tmp_path, "--min-sqnr-db", 200), code=1)
    name = f"fragile-{ONNXRUNTIME}-int8"
    assert ran.stderr.startswith(f"error: {name} keeps ")
    assert "less than --min-sqnr-db 200" in ran.stderr
    assert f"even with {LAYERS - 1} of {LAYERS} layers in float" in ran.stderr
    assert "allow --min-sqnr-db " in ran.stderr.split("fix:")[1]
    state = json.loads((tmp_path / "out" / f".{name}.control.json").read_text())
    known = state["losses"]
    assert known and all("sqnr_db" in losses for losses in known.values())
    ran = vitedge(*without_labels(model, tmp_path, "--min-sqnr-db", 25, "--force"))
    assert f"the ranking and {len(known)} probes were measured then" in ran.stderr
    control = quantization(tmp_path / "out" / name).control
    assert [kept.node for kept in control.kept] == ["layer4"]
    assert {str(count) for count, _ in control.tried} >= set(known)


def exported(vitedge, folder, outputs, *flags, target=ONNXRUNTIME, large=1.0, code=0):
    """What the export of a small model that gives `outputs` said; it writes to `out`."""
    model = small.write(folder, *outputs, large=large)
    data = ("--calib-data", small.images(folder, labelled=False), "--output", folder / "out")
    given = ("--preprocess", folder / "model.toml", "--target", target, *FAST, *data)
    return vitedge("export", model, *given, *flags, code=code)


def test_the_worst_output_and_its_worst_token_keep_their_levels(tmp_path, vitedge):
    outputs, path = ("tokens", "logits"), tmp_path / "out" / f"model-{ONNXRUNTIME}-int8"
    exported(vitedge, tmp_path, outputs)
    before = report_of(path)["numerics"]["outputs"]
    level = min(output["sqnr_db"] for output in before.values()) + 2
    token_db = before["tokens"]["token_sqnr_db"]["worst"] + 1
    flags = ("--min-sqnr-db", level, "--min-token-sqnr-db", token_db, "--force")
    exported(vitedge, tmp_path, outputs, *flags)
    after, control = report_of(path)["numerics"]["outputs"], quantization(path).control
    assert control.bounds == Bounds(min_sqnr_db=level, min_token_sqnr_db=token_db)
    assert control.reached.sqnr_db == min(output["sqnr_db"] for output in after.values()) >= level
    worst = after["tokens"]["token_sqnr_db"]["worst"]
    assert control.reached.token_sqnr_db == worst >= token_db
    assert control.full.token_sqnr_db < token_db


def test_queries_keep_a_level_matched_and_have_no_tokens_of_their_own(tmp_path, vitedge):
    outputs, path = ("classes", "boxes"), tmp_path / "out" / f"model-{ONNXRUNTIME}-int8"
    features = ("--task", "features")
    ran = exported(vitedge, tmp_path, outputs, *features, "--min-token-sqnr-db", 10, code=2)
    assert "--min-token-sqnr-db cannot be measured" in ran.stderr and "matched" in ran.stderr
    assert not list(tmp_path.glob("out/model*"))
    exported(vitedge, tmp_path, outputs, *features)
    before = report_of(path)["numerics"]["outputs"]
    level = min(output["sqnr_db"] for output in before.values()) + 1
    exported(vitedge, tmp_path, outputs, *features, "--min-sqnr-db", level, "--force")
    after = report_of(path)["numerics"]
    assert min(output["sqnr_db"] for output in after["outputs"].values()) >= level
    assert after["kept_queries"] is not None


def test_a_target_that_does_not_run_here_is_held_to_what_is_simulated(tmp_path, vitedge):
    path = tmp_path / "out" / "model-openvino-npu-int8"
    exported(vitedge, tmp_path, ("logits",), target="openvino-npu")
    level = report_of(path)["simulation"]["numerics"]["sqnr_db"] + 2
    flags = ("--min-sqnr-db", level, "--force")
    ran = exported(vitedge, tmp_path, ("logits",), *flags, target="openvino-npu")
    control = quantization(path).control
    assert control.reached.sqnr_db >= level > control.full.sqnr_db and control.cost is None
    assert report_of(path)["simulation"]["numerics"]["sqnr_db"] == control.reached.sqnr_db
    assert f"layers in float to keep {level:g} dB" in ran.stdout


@pytest.mark.parametrize("flag", ["--min-sqnr-db", "--min-token-sqnr-db"])
@pytest.mark.parametrize("limit", ["-1", "nan", "inf"])
def test_a_level_that_is_no_limit_is_refused(tmp_path, vitedge, flag, limit):
    flags = ("--int8", f"{flag}={limit}", "--output", tmp_path)
    ran = vitedge("export", "--target", ONNXRUNTIME, *flags, code=2)
    assert f"{flag} {limit} is no limit" in ran.stderr


def test_a_level_is_about_int8(tmp_path, vitedge):
    flags = ("--min-sqnr-db", 30, "--output", tmp_path)
    ran = vitedge("export", "--target", ONNXRUNTIME, *flags, code=2)
    assert "--min-sqnr-db" in ran.stderr and "--int8" in ran.stderr


def test_tokens_of_a_model_that_has_none_are_refused(tmp_path, vitedge):
    flags = ("--min-token-sqnr-db", 30, "--output", tmp_path)
    ran = vitedge("export", "--target", ONNXRUNTIME, *FAST, *flags, code=2)
    assert "no output of tokens or pixels" in ran.stderr
    assert not list(tmp_path.glob("digits*"))


@pytest.mark.heavy
def test_the_api_takes_the_gates_names(tmp_path):
    with pytest.raises(LimitError, match="min_sqnr_db=190"):
        ve.export(
            targets=ONNXRUNTIME,
            precision="int8",
            calibration="fast",
            num_samples=8,
            min_sqnr_db=190,
            duration_s=0,
            output=tmp_path,
        )
