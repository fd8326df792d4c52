"""Models with several outputs, and dense ones: nothing is dropped in silence or hidden."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

import vitedge as ve
from tests.support import several_outputs as small
from tests.support.machine import ONNXRUNTIME
from vitedge.core.bundle import open_bundle

TARGETS = Path(__file__).parents[2] / "targets"
INT8 = ("--int8", "--calibration", "fast", "--num-samples", 8)


def exported(vitedge, folder, *outputs, flags=(), targets=(ONNXRUNTIME,), large=1.0, code=0):
    """What `vitedge export` said of a model that gives `outputs`; it writes to `out`."""
    model = small.write(folder, *outputs, large=large)
    named = [word for name in targets for word in ("--target", name)]
    given = ("--preprocess", folder / "model.toml", "--output", folder / "out")
    return vitedge("export", model, *named, *given, *flags, code=code)


def report_of(bundle):
    return msgspec.json.decode((bundle / "report.json").read_bytes())


# -- several ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory, vitedge, openvino):
    """The INT8 bundles of a model that gives tokens, logits and a class index; what was said."""
    folder = tmp_path_factory.mktemp("two")
    flags = (*INT8, "--calib-data", small.images(folder), "--duration", 0)
    targets = (ONNXRUNTIME, openvino)
    outputs = ("tokens", "logits", "label")
    done = exported(vitedge, folder, *outputs, flags=flags, targets=targets)
    return [folder / "out" / f"model-{target}-int8" for target in targets], done


def test_the_main_output_is_the_one_that_fits_and_all_others_are_told_of(two):
    bundles, done = two
    assert "'logits' is its main output" in done.stderr and "beside it: tokens" in done.stderr
    assert "outputs left out: label int64 (?)" in done.stderr
    for path in bundles:
        bundle, numerics = open_bundle(path), report_of(path)["numerics"]
        assert [output.name for output in bundle.manifest.outputs] == ["logits", "tokens"]
        assert bundle.manifest.model.task == "classification"
        assert bundle.golden().further["tokens"].shape == (8, small.TOKENS, small.WIDTH)
        assert bundle.manifest.golden.further["tokens"] > 30
        assert list(numerics["outputs"]) == ["logits", "tokens"]
        logits, tokens = numerics["outputs"].values()
        assert numerics["sqnr_db"] == logits["sqnr_db"] > 25 and logits["token_sqnr_db"] is None
        assert 30 < tokens["token_sqnr_db"]["worst"] <= tokens["sqnr_db"]
        assert tokens["cosine"] > 0.999 and tokens["max_abs_error"] < 0.2
    assert done.stdout.count("tokens") > 1  # a table of its own


@pytest.mark.parametrize("place", [0, 1], ids=["onnxruntime", "openvino"])
def test_validate_bench_gate_and_predict_are_of_the_main_output(two, place, vitedge, tmp_path):
    path = two[0][place]
    images = small.images(tmp_path, 24, seed=1)
    report = vitedge("validate", path, "--data", images, "--json").document
    assert report["accuracy"]["metric"] == "top1" and report["accuracy"]["n"] == 24
    assert list(report["numerics"]["outputs"]) == ["logits", "tokens"]
    assert report["numerics"]["n"] == 24
    timed = vitedge("bench", path, "--duration", 0.05, "--json").document
    assert not timed["parity"]["broken"]
    assert list(timed["parity"]["numerics"]["outputs"]) == ["logits", "tokens"]
    vitedge("gate", path, "--min-sqnr-db", 25)
    failed = vitedge("gate", path, "--min-token-sqnr-db", 25, code=1)
    assert "no tokens and no pixels" in failed.stdout + failed.stderr  # they are not the main one's
    assert "tokens: " in vitedge("inspect", path).stdout
    Image.fromarray(np.load(images)["images"][0]).save(tmp_path / "a.png")
    (prediction,) = vitedge("predict", path, tmp_path / "a.png", "--json").document["predictions"]
    assert len(prediction["top"]) == 5


def test_a_further_output_that_breaks_is_no_parity(two, vitedge, tmp_path):
    import shutil

    from vitedge.core.bundle import Golden, seal

    path = tmp_path / two[0][0].name
    shutil.copytree(two[0][0], path)
    bundle = open_bundle(path)
    golden = bundle.golden()
    tokens = golden.further["tokens"]
    Golden(golden.images, golden.outputs, golden.labels, {"tokens": tokens[:, ::-1]}).write(path)
    seal(path, bundle.manifest)
    done = vitedge("validate", path, code=1)
    assert "output 'tokens'" in done.stdout and "where it was exported" in done.stdout


def test_the_user_says_which_outputs_are_kept(vitedge, tmp_path):
    flags = ("--model-output", "tokens", "--model-output", "logits", "--task", "features")
    done = exported(vitedge, tmp_path, "logits", "tokens", "label", flags=flags)
    assert "'tokens' is its main output" in done.stderr
    manifest = open_bundle(tmp_path / "out" / f"model-{ONNXRUNTIME}-fp32").manifest
    assert [output.name for output in manifest.outputs] == ["tokens", "logits"]
    flags = ("--model-output", "logits", "--force")
    done = exported(vitedge, tmp_path, "logits", "tokens", flags=flags)
    assert "outputs left out: tokens (?, 16, 64)" in done.stderr
    lowered = onnx.load(tmp_path / "out" / f"model-{ONNXRUNTIME}-fp32" / "model.onnx")
    assert [value.name for value in lowered.graph.output] == ["logits"]
    flags = ("--model-output", "logit")
    done = exported(vitedge, tmp_path, "logits", "tokens", flags=flags, code=2)
    assert "has no output 'logit'" in done.stderr and "tokens (?, 16, 64)" in done.stderr
    done = vitedge("export", "--target", ONNXRUNTIME, "--model-output", "x", code=2)
    assert "--model-output does not apply" in done.stderr


class TwoHeads(nn.Module):
    """Patch tokens and class logits, as many modules give them: in a dict."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.block = nn.Conv2d(3, 32, 8, 8), nn.Linear(32, 32)
        self.head = nn.Linear(32, small.CLASSES)

    def forward(self, pixels):
        tokens = self.block(self.patches(pixels).flatten(2).transpose(1, 2))
        hidden = (tokens, [tokens.mean(1)])
        return {"logits": self.head(tokens.mean(1)), "hidden": hidden, "nothing": None}


def test_a_module_that_gives_a_dict_has_an_output_for_each_tensor(tmp_path):
    model = ve.load(TwoHeads(), preprocess=ve.Preprocess(height=32, width=32))
    names = ("logits", "hidden_0", "hidden_1_0")
    assert model.outputs == names and "beside it: hidden_0" in model.identity.notes[0]
    _, int8 = ve.export(
        model,
        targets=ONNXRUNTIME,
        precision="int8",
        calib_data=small.images(tmp_path),
        calibration="fast",
        num_samples=8,
        duration_s=0,
        output=tmp_path / "out",
    )
    assert tuple(output.name for output in int8.bundle.manifest.outputs) == names
    assert set(int8.report.numerics.outputs) == set(names)
    pixels = np.load(tmp_path / "images.npz")["images"][:2]
    with torch.inference_mode():
        normal = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
        want = TwoHeads().eval()(normal)["logits"].argmax(1).tolist()
    assert [p.top[0].index for p in int8.bundle.predict(list(pixels))] == want
    chosen = ve.load(
        TwoHeads(),
        preprocess=ve.Preprocess(height=32, width=32),
        model_output="hidden_0",
        task="features",
    )
    assert chosen.outputs == ("hidden_0",)
    with torch.inference_mode():
        assert chosen.content(normal).shape == (2, 16, 32)


# -- maps of values -----------------------------------------------------------------------------


class Depth(nn.Module):
    """Depth of each patch (B, h, w), metres: far from zero, as depth is."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.block, self.head = (
            nn.Conv2d(3, 32, 4, 4),
            nn.Linear(32, 32),
            nn.Linear(32, 1),
        )

    def forward(self, pixels):
        tokens = self.block(self.patches(pixels).permute(0, 2, 3, 1)).relu()
        return {"predicted_depth": 50 + self.head(tokens)[..., 0]}


@pytest.fixture(scope="module")
def depth(tmp_path_factory):
    """The INT8 bundle of `Depth`, and unlabelled images."""
    folder = tmp_path_factory.mktemp("depth")
    model = ve.load(Depth(), preprocess=ve.Preprocess(height=32, width=32), task="dense")
    _, int8 = ve.export(
        model,
        targets=ONNXRUNTIME,
        precision="int8",
        calib_data=small.images(folder, labelled=False),
        calibration="fast",
        num_samples=8,
        duration_s=0,
        output=folder / "out",
    )
    return int8.bundle.path, small.images(folder, 24, labelled=False, seed=1)


def test_dense_maps_are_compared_pixel_by_pixel(depth, vitedge):
    path, images = depth
    report = vitedge("validate", path, "--data", images, "--json").document
    sessions = [
        onnx_session(path.with_name(path.name.replace("int8", p))) for p in ("fp32", "int8")
    ]
    pixels = np.load(images)["images"]
    want, got = (
        np.concatenate([session.run(None, {"image": image[None]})[0] for image in pixels])
        for session in sessions
    )
    error = np.abs(want - got).mean() / want.std()
    accuracy = report["accuracy"]
    assert (accuracy["metric"], accuracy["n"]) == ("pixel_error", 24)
    assert accuracy["artifact"] == pytest.approx(error, rel=1e-3) and error > 1e-4
    assert accuracy["also"]["pixel_error_p99"]["artifact"] > 2 * error
    assert report["numerics"]["sqnr_db"] > 60  # which says nothing: the mean depth is most of it
    shown = vitedge("validate", path, "--data", images).stdout
    assert "pixel error" in shown and "p99 pixel" in shown


def test_a_gate_holds_dense_maps_to_a_pixel_error(depth, vitedge):
    path, images = depth
    report = vitedge("validate", path, "--data", images, "--json").document
    error_pp = 100 * report["accuracy"]["artifact"]
    vitedge("gate", path, "--max-drop", 2 * error_pp)
    vitedge("gate", path, "--max-drop", error_pp / 2, code=1)
    chosen = vitedge("gate", path, "--min-agreement", 0.5, code=1)
    assert "chooses no classes" in chosen.stdout


def test_predicted_maps_are_written(depth, vitedge, tmp_path):
    path, images = depth
    image = tmp_path / "image.png"
    Image.fromarray(np.load(images)["images"][0]).save(image)
    maps = ve.open(path).predict(str(image)).maps
    assert maps.shape == (8, 8) and 40 < maps.mean() < 60
    assert "8×8 values from" in vitedge("predict", path, image).stdout
    done = vitedge("predict", path, image, "--output", tmp_path / "maps", "--json").document
    (said,) = done["predictions"]
    np.testing.assert_array_equal(np.load(said["map"]), maps)
    assert said["shape"] == [8, 8] and said["range"] == [maps.min(), maps.max()]


# -- tokens --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ruined(tmp_path_factory, vitedge):
    """The INT8 bundle of dense features in which one token is 100 times larger than the others.

    Its target reads no activation in two parts.
    """
    folder = tmp_path_factory.mktemp("ruined")
    text = (TARGETS / f"{ONNXRUNTIME}.toml").read_text()
    assert "rest_products = true\n" in text
    target = folder / "target.toml"
    target.write_text(text.replace("rest_products = true\n", ""))
    flags = (*INT8, "--task", "features", "--calib-data", small.images(folder, 32))
    timed = (*flags, "--duration", 0.05)
    exported(vitedge, folder, "dense", flags=timed, targets=(target,), large=100.0)
    return folder / "out" / f"model-{ONNXRUNTIME}-int8"


def test_the_worst_token_is_told_of(ruined):
    numerics = report_of(ruined)["numerics"]
    sessions = [
        onnx_session(ruined.with_name(ruined.name.replace("int8", precision)))
        for precision in ("fp32", "int8")
    ]
    images = open_bundle(ruined).golden().images
    want, got = (
        np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])
        for session in sessions
    )
    power, noise = ((x.astype(np.float64) ** 2).sum(axis=(0, 2)) for x in (want, want - got))
    by_token = np.sort(10 * np.log10(power / noise))
    assert numerics["sqnr_db"] > 28
    assert numerics["token_sqnr_db"]["worst"] == pytest.approx(by_token[0], abs=0.05) and (
        by_token[-2] < 10 < 28 < by_token[-1]
    )


def onnx_session(bundle):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    return onnxruntime.InferenceSession(bundle / "model.onnx", options)


def test_a_gate_holds_the_worst_token_to_a_limit(ruined, vitedge):
    vitedge("gate", ruined, "--min-sqnr-db", 20)
    failed = vitedge("gate", ruined, "--min-token-sqnr-db", 20, code=1)
    assert "worst token" in failed.stdout


def test_int8_of_ruined_tokens_is_not_what_to_ship_and_inspect_says_why(ruined, vitedge):
    recommendation = report_of(ruined)["recommendation"]
    assert recommendation["precision"] == "fp32"
    assert "in its worst token or pixel, less than 20" in recommendation["reason"]
    said = vitedge("inspect", ruined).stdout
    assert "in its worst token or pixel, which the" in said
    worst = vitedge("inspect", ruined, "--json").document["summary"]
    assert worst["worst"] == "dense" and worst["worst_sqnr_db"] < 10


def test_neighbours_are_of_tokens(ruined, vitedge, tmp_path):
    images = small.images(tmp_path, 24, labelled=False, seed=1)
    report = vitedge("validate", ruined, "--data", images, "--json").document
    assert report["accuracy"]["metric"] == "knn_agreement" and report["accuracy"]["n"] == 24
    assert report["accuracy"]["artifact"] < 0.8  # whole images look alike: 0.97
    assert report["numerics"]["cosine"] < 0.99  # likewise 1.0000


# -- queries ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def queries(tmp_path_factory, vitedge, openvino):
    """The bundles of a model that orders its queries by its own scores; what was said."""
    folder = tmp_path_factory.mktemp("queries")
    flags = (*INT8, "--calib-data", small.images(folder), "--duration", 0, "--task", "features")
    targets = (ONNXRUNTIME, openvino)
    done = exported(vitedge, folder, "tokens", "classes", "boxes", flags=flags, targets=targets)
    return [folder / "out" / f"model-{target}" for target in targets], done


@pytest.mark.parametrize("place", [0, 1], ids=["onnxruntime", "openvino"])
def test_queries_that_scores_order_are_compared_with_fp32s_own(queries, place, vitedge, tmp_path):
    bundle = open_bundle(queries[0][place].with_name(f"{queries[0][place].name}-int8"))
    tokens, classes, boxes = bundle.manifest.outputs
    assert not tokens.ordered_by and classes.ordered_by == boxes.ordered_by == "best"
    images = small.images(tmp_path, 24, seed=1)
    numerics = vitedge("validate", bundle.path, "--data", images, "--json").document["numerics"]
    assert 0.8 < numerics["kept_queries"] <= 1
    assert numerics["outputs"]["tokens"]["token_sqnr_db"]
    assert numerics["outputs"]["boxes"]["token_sqnr_db"] is None
    told = "the model orders them by its own scores"
    assert queries[1].stderr.count(told) == 2  # once for each INT8 artifact
    shown = " ".join(vitedge("inspect", bundle.path).stdout.split())
    assert shown.count(told) == 1


def test_a_golden_answer_in_another_order_is_the_same_one(queries, vitedge, tmp_path):
    import shutil

    from vitedge.core.bundle import Golden, seal

    source = queries[0][0].with_name(f"{queries[0][0].name}-fp32")
    path = tmp_path / source.name
    shutil.copytree(source, path)
    bundle = open_bundle(path)
    golden = bundle.golden()
    turned = {name: golden.further[name][:, ::-1] for name in ("classes", "boxes")}
    further = {**golden.further, **turned}
    Golden(golden.images, golden.outputs, golden.labels, further).write(path)
    seal(path, bundle.manifest)
    assert "NO PARITY" not in vitedge("validate", path).stdout
    further["boxes"] = golden.further["boxes"]  # of other queries than the classes
    Golden(golden.images, golden.outputs, golden.labels, further).write(path)
    seal(path, bundle.manifest)
    assert "output 'classes'" in vitedge("validate", path, code=1).stdout
