"""`--max-drop` keeps the fewest layers in float, or says why it cannot."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from PIL import Image

from tests.e2e.test_bad_input import stop
from tests.support.machine import ONNXRUNTIME
from tests.support.outliers import write_digits
from vitedge.core.bundle import open_bundle
from vitedge.data.open import open_images
from vitedge.models.zoo import ZOO

ROOT = Path(__file__).parents[2]
DIGITS = ZOO["digits"]
LAYERS = 12
NAME = f"fragile-{ONNXRUNTIME}-int8"
STATE = f".{NAME}.control.json"


@pytest.fixture(scope="module")
def images(tmp_path_factory, held_out):
    """360 held-out digits: one of them is 0.28 points."""
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, images=held_out.images[:360], labels=held_out.labels[:360])
    return path


def write_fragile(path, ruined):
    """Which class mean an image points to, then layers that do nothing but be `ruined` by INT8.

    Beside the input of a ruined one lies a constant so large that its steps swallow the rest.
    """
    pictures = open_images("digits", "calibration", DIGITS.preprocess, DIGITS.labels)
    (batch,) = pictures.batches(len(pictures))
    pixels = batch.images.reshape(len(batch.images), -1).astype(np.float64)
    mean = pixels.mean(0)
    towards = np.stack([pixels[batch.labels == label].mean(0) - mean for label in range(10)], 1)
    first = towards / np.linalg.norm(towards, axis=0) / 1e3  # (3072, 10)
    tensors = {
        **{"shape": np.array([1, -1]), "mean": mean[None].astype(np.float32)},
        **{"large": np.full((1, 1), 1e6, np.float32), "none": np.zeros((1, 1), np.float32)},
    }
    body = """
        cast = Cast <to = 1> (image)
        pixels = Reshape(cast, shape)
        centred = Sub(pixels, mean)
    """
    for layer in range(LAYERS):
        source = f"layer{layer - 1}" if layer else "centred"
        beside = "large" if layer in ruined else "none"
        weight = first if layer == 0 else np.eye(10)
        tensors[f"weight{layer}"] = np.concatenate([weight, np.zeros((1, 10))]).astype(np.float32)
        body += f"""
            wide{layer} = Concat <axis = 1> ({source}, {beside})
            layer{layer} = MatMul(wide{layer}, weight{layer})
        """
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> fragile (uint8[1, 32, 32, 3] image)'
        f" => (float[1, 10] layer{LAYERS - 1}) {{ {body} }}"
    )
    for node in model.graph.node:
        node.name = node.output[0]
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in tensors.items()
    )
    onnx.save(model, path)
    return path


def command(model, images, output, max_drop):
    """An export with a recipe that does not equalise, which would mend what is broken here."""
    recipe = output.with_name("plain.toml")
    recipe.write_text(
        'name = "plain"\ndescription = "no equalisation"\nnum_samples = 32\n'
        'activations = "minmax"\nweights = "minmax"\nequalize = "off"\n'
    )
    return [
        *("export", str(model), "--target", ONNXRUNTIME, "--int8", "--duration", "0"),
        *("--calibration", str(recipe)),
        *("--calib-data", "digits", "--eval-data", str(images), "--max-drop", str(max_drop)),
        *("--output", str(output)),
    ]


@pytest.fixture(autouse=True)
def short_timing(monkeypatch):
    """What the bound costs is timed with as few runs as it takes."""
    monkeypatch.setattr("vitedge.export.accuracy_control.COST_S", 0.1)


def bundles_in(output):
    return sorted(path.name for path in output.iterdir() if path.is_dir())


@pytest.mark.heavy
def test_a_vit_with_outliers_meets_the_bound_with_few_layers_in_float(tmp_path, images, vitedge):
    weights = write_digits(tmp_path / "vit.safetensors", "norm", 100, seed=0)
    output = tmp_path / "out"
    ran = vitedge(*command(weights, images, output, 0.3), "--arch", "digits")
    bundle = open_bundle(output / f"vit-{ONNXRUNTIME}-int8")
    report = json.loads((bundle.path / "report.json").read_text())
    assert report["accuracy"]["drop_pp"] <= 0.3
    control = bundle.manifest.quantization.control
    assert control.full.drop_pp > 5
    assert control.reached.drop_pp == report["accuracy"]["drop_pp"]
    assert 1 <= len(control.kept) <= 4 < control.layers
    tried = {0: control.full, **dict(control.tried)}
    assert tried[len(control.kept)].drop_pp <= 0.3
    assert tried[len(control.kept) - 1].drop_pp > 0.3
    cost = control.cost
    assert cost.slowdown == pytest.approx(cost.p50_ms / cost.full_int8_p50_ms)
    assert cost.speedup == pytest.approx(cost.fp32_p50_ms / cost.p50_ms)
    assert cost.slowdown_ci[0] <= cost.slowdown <= cost.slowdown_ci[1]
    reasons = {layer.node: layer.why for layer in bundle.manifest.quantization.layers}
    for place, kept in enumerate(control.kept):
        assert (
            f"{kept.noise_db:.1f} dB at the output), to lose 0.3 points at most"
            in reasons[kept.node]
        )
        assert place or "1st most harmful" in reasons[kept.node]
    said = (
        f"kept {len(control.kept)} of {control.layers} layers in float to lose 0.3 points at most"
    )
    assert said in ran.stdout
    assert f"{cost.slowdown:.2f}× the latency of full INT8" in ran.stdout
    in_float = {n.name for n in onnx.load(bundle.path / "model.onnx").graph.node}
    assert {kept.node for kept in control.kept} <= in_float
    assert len(list(output.iterdir())) == 2, "nothing is left of the search"


def test_nothing_is_searched_where_the_bound_is_met(tmp_path, images, vitedge):
    model = write_fragile(tmp_path / "fragile.onnx", set())
    ran = vitedge(*command(model, images, tmp_path / "out", 2))
    assert open_bundle(tmp_path / "out" / NAME).manifest.quantization.control is None
    assert "in float" not in ran.stdout


@contextmanager
def stopped(how):
    """Stopped while the second probe is saved: the ranking and one probe are in the file."""
    saves, replace = count(1), Path.replace

    def save(path, target):
        if str(target).endswith(".control.json") and next(saves) == 3:
            stop(how)
        return replace(path, target)

    with patch.object(Path, "replace", save):
        yield


KILLED = """
from tests.e2e.test_max_drop import stopped
from vitedge.cli.main import run
with stopped("SIGKILL"):
    run()
"""


@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
def test_a_search_that_is_stopped_goes_on_where_it_stopped(tmp_path, images, vitedge, how):
    ruined = {0, 4, 9}
    output = tmp_path / "out"
    export = command(write_fragile(tmp_path / "fragile.onnx", ruined), images, output, 2)
    if how == "SIGINT":
        with stopped("SIGINT"):
            vitedge(*export, code=130)
    else:
        killed = [sys.executable, "-c", KILLED, *export]
        assert subprocess.run(killed, cwd=ROOT).returncode == -signal.SIGKILL
    assert not (output / NAME).exists()
    state = json.loads((output / STATE).read_text())
    assert len(state["ranking"]) == LAYERS and list(state["losses"]) == ["6"]
    state["losses"]["6"]["drop_pp"] = (
        1.25  # no 360 images lose that: it shows where it was measured
    )
    (output / STATE).write_text(json.dumps(state))
    ran = vitedge(*export)
    assert "went on where an earlier export stopped: the ranking and 1 probe" in ran.stderr
    control = open_bundle(output / NAME).manifest.quantization.control
    assert {kept.node for kept in control.kept} == {f"layer{layer}" for layer in ruined}
    assert dict(control.tried)[6].drop_pp == 1.25
    assert len(control.tried) == 4
    assert sorted(p.name for p in output.iterdir()) == [f"fragile-{ONNXRUNTIME}-fp32", NAME]


def test_a_search_of_other_data_is_not_gone_on_with(tmp_path, images, vitedge):
    output = tmp_path / "out"
    output.mkdir()
    (output / STATE).write_text('{"key": "other", "ranking": [["layer0", 1.0]], "losses": {}}')
    model = write_fragile(tmp_path / "fragile.onnx", {4})
    ran = vitedge(*command(model, images, output, 2))
    assert "is of another export: searched afresh" in ran.stderr
    control = open_bundle(output / NAME).manifest.quantization.control
    assert [kept.node for kept in control.kept] == ["layer4"]


def test_the_record_of_the_calibration_set_survives_the_search(tmp_path, images, held_out, vitedge):
    """Ranking layers reads some of the calibration images again."""
    calib = tmp_path / "calib"
    calib.mkdir()
    for index, image in enumerate(held_out.images[400:430]):
        Image.fromarray(image).save(calib / f"{index:02}.png")
    for name in ("a.png", "b.png"):
        (calib / name).write_bytes(b"no image")
    model, output = write_fragile(tmp_path / "fragile.onnx", {4}), tmp_path / "out"
    vitedge(*command(model, images, output, 2), "--calib-data", calib)
    quantization = open_bundle(output / NAME).manifest.quantization
    assert len(quantization.control.kept) == 1
    assert quantization.calibration.images == len(quantization.calibration.image_digests) == 30
    assert sum(quantization.calibration.skipped.values()) == 2


def test_an_unreachable_bound_writes_fp32_alone_and_says_what_was_tried(tmp_path, images, vitedge):
    """Every single layer ruins it alone."""
    output = tmp_path / "out"
    export = command(
        write_fragile(tmp_path / "fragile.onnx", set(range(LAYERS))), images, output, 2
    )
    ran = vitedge(*export, code=1)
    assert ran.stderr.startswith(f"error: {NAME} loses ")
    assert f"{NAME} loses " in ran.stdout, "it is a row, with its reason"
    assert f"even with {LAYERS - 1} of {LAYERS} layers in float" in ran.stderr
    assert "FP32 itself scores" in ran.stderr
    assert "--max-drop" in ran.stderr.split("fix:")[1]
    assert bundles_in(output) == [f"fragile-{ONNXRUNTIME}-fp32"]


@pytest.mark.parametrize("limit", ["-0.1", "nan"])
def test_a_limit_that_is_none_is_refused(tmp_path, vitedge, limit):
    ran = vitedge(
        *("export", "--target", "onnxruntime", "--int8", f"--max-drop={limit}"),
        *("--output", tmp_path / "out"),
        code=2,
    )
    assert "--max-drop" in ran.stderr and "no limit" in ran.stderr
