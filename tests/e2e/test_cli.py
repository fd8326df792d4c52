"""The command line as a user types it."""

from __future__ import annotations

import csv
import json
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.support import machine
from tests.support.command import call
from tests.support.machine import ONNXRUNTIME
from vitedge import __version__
from vitedge.core import catalog
from vitedge.core.bundle import bundles_in, open_bundle
from vitedge.models.zoo import ZOO
from vitedge.runtimes.onnxruntime import CONTRIB

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "vitedge" / "models" / "zoo" / "digits.safetensors"
HEAVY = (
    *("numpy", "torch", "onnx", "onnxruntime", "openvino", "nncf", "tensorrt", "tensorrt_rtx"),
    *("cuda", "PIL", "msgspec", "rich"),
)

TARGETS = [word for name in machine.TARGETS.values() for word in ("--target", name)]
NO_SECONDS = (-1, "nan", "inf")
RUNTIMES = pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])


def names(folder):
    """Everything in a folder, what begins with a dot included."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["doctor", "--json"], 0),
        (["bench", "absent", "--sweeep"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_process_says_what_the_other_tests_read_in_this_one(
    tmp_path, vitedge, vitedge_process, arguments, code
):
    ours, other = (run(*arguments, code=code, cwd=tmp_path) for run in (vitedge, vitedge_process))
    assert ours.stdout == other.stdout
    assert ours.stderr == other.stderr.replace("python -m vitedge", "vitedge")


# -- start-up -----------------------------------------------------------------------------------


def test_help_and_an_import_load_nothing_heavy():
    """In one process, the least first: what was imported would stay."""
    code = f"""
import sys, vitedge
print(sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)
from vitedge.cli.main import run
for arguments in (["--help"], ["export", "--help"], ["--version"]):
    sys.argv = ["vitedge", *arguments]
    try:
        run()
    except SystemExit as stop:
        assert not stop.code
    heavy = {{*{HEAVY[:9]}}} - ({{"numpy"}} if "--version" in arguments else set())
    print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["[]"] * 4
    assert done.stdout.count("Usage:") == 2
    said = done.stdout.rpartition("╯")[2].split("\n")
    assert __version__ in said and f"ONNX Runtime {version('onnxruntime')}" in said
    assert f"Python {platform.python_version()} on Linux {platform.machine()}" in said
    assert not any("Intel" in line for line in said)  # OpenVINO is named once


def test_help_lists_every_command_in_the_order_of_the_work(vitedge):
    listed = vitedge("--help").stdout
    commands = re.findall(r"^│ (\w+) ", listed, re.MULTILINE)
    assert commands == [
        *("demo", "export", "qat", "build", "validate", "predict", "bench", "sweep", "gate"),
        *("compare", "selftest", "sign", "verify", "package", "card", "push", "pull", "inspect"),
        *("targets", "calibrations", "models", "doctor"),
    ]
    for command in set(commands) - {"card"}:  # which is a text
        assert "--json" in vitedge(command, "--help").stdout
    for panel, option in (("Model", "--arch"), ("Precision", "--int8"), ("Data", "--calib-data")):
        section = vitedge("export", "--help").stdout.partition(f"─ {panel} ─")[2].partition("╰")[0]
        assert option in section


def test_a_shell_completes_targets_recipes_and_models(vitedge):
    def completed(typed):
        return vitedge(
            _VITEDGE_COMPLETE="complete_bash", COMP_WORDS=f"vitedge {typed}", COMP_CWORD="3"
        ).stdout

    assert "openvino-cpu" in completed("export --target openvino-c").split()
    assert "thorough" in completed("export --calibration tho").split()
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # whatever shell runs the tests
    assert "vitedge" in vitedge("--show-completion", "bash", **named).stdout


# -- export, validate, bench --------------------------------------------------------------------


def test_export_writes_a_bundle_for_each_target_and_precision(bundles):
    kinds = {(r, p) for r in machine.TARGETS for p in ("fp32", "int8")}
    if catalog.targets()[ONNXRUNTIME].fp16_kernels:  # Arm's
        kinds.add(("onnxruntime", "fp16"))
    assert set(bundles) == kinds
    for (runtime, precision), path in bundles.items():
        manifest = open_bundle(path).manifest
        assert (manifest.precision, manifest.target.runtime) == (precision, runtime)
        model = {"model.onnx", CONTRIB} if runtime == "onnxruntime" else {"model.xml", "model.bin"}
        written = {*model, "manifest.json", "golden.npz", "labels.txt", "report.json"}
        written.add("evidence.npz")  # of each image it was validated on
        assert set(names(path)) == written
        assert (path / "labels.txt").read_text().split() == list("0123456789")
    first = next(iter(bundles.values()))
    assert names(first.parent) == sorted(path.name for path in bundles.values())


@RUNTIMES
def test_the_manifest_ties_an_artifact_to_where_it_came_from(bundles, runtime):
    manifest = json.loads((bundles[runtime, "int8"] / "manifest.json").read_text())
    assert manifest["schema"] == "vitedge.artifact/1"
    assert len(manifest["model"]["weights_sha256"]) == 64
    assert manifest["inputs"] == [
        {"name": "image", "shape": [1, 32, 32, 3], "dtype": "uint8", "layout": "NHWC, RGB"}
    ]
    assert manifest["outputs"][0]["shape"] == [1, 10]
    assert manifest["preprocessing"]["host"]["height"] == 32
    assert manifest["preprocessing"]["graph"]
    calibration = manifest["quantization"]["calibration"]
    assert calibration["recipe"]["name"] == "default"
    assert calibration["images"] == len(calibration["image_digests"]) == 300
    assert all(layer["why"] for layer in manifest["quantization"]["layers"])
    assert {"vitedge", "torch", "onnx", runtime} <= set(manifest["tools"])
    assert manifest["reference"]["bundle"] == bundles[runtime, "fp32"].name
    assert str(ROOT) not in (bundles[runtime, "int8"] / "manifest.json").read_text()


@pytest.fixture(scope="module")
def proven(artifacts, tmp_path_factory, vitedge):
    """What `validate --json` and `bench --json` printed of a copied INT8 bundle, and its report."""
    folder = tmp_path_factory.mktemp("proven") / "artifacts"
    shutil.copytree(artifacts, folder)
    (int8,) = folder.glob("digits-onnxruntime-*-int8")
    (int8 / "report.json").unlink()
    validated = vitedge("validate", int8, "--data", "digits", "--json").document
    benched = vitedge("bench", int8, "--duration", 0.5, "--json").document
    report = json.loads((int8 / "report.json").read_text())
    return {"validate": validated, "bench": benched, "report": report, "folder": folder}


def test_validate_and_bench_fill_the_report(proven, bundles):
    report = proven["report"]
    assert report == proven["bench"]
    assert report["schema"] == "vitedge.report/1"
    timing = "p50_ms p90_ms p99_ms mean_ms n"
    sections = {
        "accuracy": "metric fp32 artifact drop_pp drop_ci_pp confidence agreement n",
        "numerics": "sqnr_db max_abs_error cosine",
        "latency": f"{timing} fp32 speedup speedup_ci",
        "size": "bytes fp32_bytes",
        "memory": "peak_rss_bytes",
        "host": "cpu isa accelerator os runtimes threads",
    }
    for section, keys in sections.items():
        assert set(keys.split()) <= set(report[section]), section
    assert set(timing.split()) <= set(report["latency"]["fp32"])
    exported = json.loads((bundles["onnxruntime", "int8"] / "report.json").read_text())
    assert proven["validate"]["accuracy"] == exported["accuracy"]
    again, before = (dict(r["numerics"]) for r in (proven["validate"], exported))
    assert again.pop("outputs") == before.pop("outputs") == {}  # there is but one
    assert again == pytest.approx(before)
    assert report["accuracy"] == proven["validate"]["accuracy"]  # bench has kept it


def test_a_report_adds_up(proven):
    accuracy, latency = proven["report"]["accuracy"], proven["report"]["latency"]
    assert accuracy["n"] == 719
    drop = 100 * (accuracy["fp32"] - accuracy["artifact"])
    assert accuracy["drop_pp"] == pytest.approx(drop)
    assert accuracy["drop_ci_pp"][0] <= drop <= accuracy["drop_ci_pp"][1]
    ratio = latency["fp32"]["p50_ms"] / latency["p50_ms"]
    assert latency["speedup"] == pytest.approx(ratio)
    assert (latency["p99_ms"] is None) == (latency["n"] < 662)
    assert (latency["p90_ms"] is None) == (latency["n"] < 64)
    assert proven["report"]["size"]["bytes"] < 0.5 * proven["report"]["size"]["fp32_bytes"]


def test_bench_without_an_argument_times_every_bundle_there(proven, vitedge):
    folder = proven["folder"]
    ran = vitedge("bench", "--duration", 0.1, cwd=folder.parent)
    for path in bundles_in(folder):
        assert path.name in ran.stdout
        assert "latency" in json.loads((path / "report.json").read_text())


@pytest.mark.usefixtures("openvino")
def test_bench_against_another_artifact_compares_with_that(proven, vitedge):
    (one,) = proven["folder"].glob("digits-openvino-*-int8")
    (two,) = proven["folder"].glob("digits-onnxruntime-*-int8")
    ran = vitedge(
        "bench", one, "--against", two, "--duration", 0.1, "--threads", 1, "--json"
    ).document
    assert ran["latency"]["against"] == str(two)
    assert ran["latency"]["speedup"] > 0
    assert ran["latency"]["fp32"] is None
    assert ran["host"]["threads"] == 1


def test_every_scenario_is_in_the_report_and_in_the_csv(proven, vitedge, tmp_path):
    (path,) = proven["folder"].glob("digits-onnxruntime-*-int8")
    before = json.loads((path / "report.json").read_text())
    asked = ("--scenario", "offline", "--sweep", "threads", "--duration", 0.3)
    for side in (300, 400):
        Image.new("RGB", (side, 300), "teal").save(tmp_path / f"{side}.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"broken")
    asked += ("--end-to-end", tmp_path)
    outputs = ("--csv", tmp_path / "x.csv", "--html", tmp_path / "x.html")
    ran = vitedge("bench", path, *asked, *outputs)
    assert "warning: 1 of the images drawn left out: corrupt, truncated or no image" in ran.stderr
    for title in ("throughput of settings in turn", "offline", "sweep-threads", "cold start"):
        assert title in ran.stdout
    assert "end to end of 2 images of 0.09 to 0.12 megapixels" in ran.stdout
    assert "End to end, from image files to outputs" in (tmp_path / "x.html").read_text()
    assert "in turn, against" not in ran.stdout  # single-stream was not asked for
    report = json.loads((path / "report.json").read_text())
    assert report["latency"] == before["latency"]  # and is still there
    assert report["offline"]["note"].startswith("fixed at batch 1")
    assert report["offline"]["best"] in report["offline"]["points"]
    assert report["sweep_threads"][0]["threads"] == 1
    assert report["cold_start"]["process_to_ready_ms"] > report["cold_start"]["load_ms"] > 0
    assert (report["energy"]["joules_per_inference"] is None) == bool(report["energy"]["note"])
    assert report["conditions"]["noise_percent"] >= 0
    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    parts = ("decode", "resize", "run", "sum", "whole", "run-alone")
    end_to_end = {f"end-to-end-{part}" for part in parts}
    assert {row["scenario"] for row in rows} == {"offline", "sweep-threads", *end_to_end}
    (whole,) = (row for row in rows if row["scenario"] == "end-to-end-whole")
    assert float(whole["p50_ms"]) == report["end_to_end"]["whole"]["p50_ms"]
    single = next(row for row in rows if row["scenario"] == "sweep-threads")
    assert float(single["p50_ms"]) == report["sweep_threads"][0]["p50_ms"]
    assert single["artifact"] == path.name and single["images_per_s_low"] == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--scenario", "offlin"), "did you mean 'offline'?"),
        (("--scenario", "server"), "choose one of: offline, single-stream"),
        (("--streams", 2), "--scenario offline"),
        (("--csv", "nowhere/x.csv"), "nowhere"),
        (("--end-to-end", "nowhere.jpg"), "--end-to-end: there is no 'nowhere.jpg'"),
        (("--end-to-end", __file__), "no usable image: corrupt"),
        *((("--duration", seconds), "duration") for seconds in (0, *NO_SECONDS)),
    ],
    ids=str,
)
def test_bench_refuses_what_makes_no_sense(proven, vitedge, options, says):
    (path,) = proven["folder"].glob("digits-onnxruntime-*-int8")
    before = (path / "report.json").read_bytes()
    assert says in vitedge("bench", path, *options, code=2).stderr
    assert (path / "report.json").read_bytes() == before


@RUNTIMES
def test_an_artifact_validates_on_a_folder_of_images(tmp_path, vitedge, bundles, held_out, runtime):
    for index in range(40):
        folder = tmp_path / "images" / str(held_out.labels[index])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(held_out.images[index]).save(folder / f"{index}.png")
    (tmp_path / "images" / "0" / "broken.png").write_bytes(b"\x89PNG broken")
    bundle = tmp_path / bundles[runtime, "int8"].name
    shutil.copytree(bundles[runtime, "int8"], bundle)  # its FP32 bundle is left behind
    accuracy = vitedge("validate", bundle, "--data", tmp_path / "images", "--json").document[
        "accuracy"
    ]
    assert accuracy["n"] == 40
    assert accuracy["artifact"] >= 0.95
    assert accuracy["fp32"] is None
    assert sum(accuracy["skipped"].values()) == 1


# -- one JSON document, and nothing else, on stdout ---------------------------------------------


def test_export_prints_json_of_every_artifact(tmp_path, vitedge, onnx_model):
    ran = vitedge("export", onnx_model, "--target", "onnxruntime", "--output", tmp_path, "--json")
    (made,) = ran.document["artifacts"]
    assert open_bundle(Path(made["path"])).manifest.precision == "fp32"
    assert made["report"]["size"]["bytes"] > 0
    assert made["parity"]["max_rel_error"] <= 1e-3
    assert ran.stderr == ""  # and no progress bar where nobody watches


def test_export_says_for_each_target_which_precision_to_ship(tmp_path, vitedge, onnx_model):
    said = vitedge(
        *("export", onnx_model, *TARGETS, "--int8"),
        *("--calib-data", "digits", "--num-samples", 8, "--duration", 0.1),
        *("--output", tmp_path),
    )
    for target in machine.TARGETS.values():
        report = json.loads((tmp_path / f"model-{target}-int8" / "report.json").read_text())
        chosen = report["recommendation"]
        line = f"model on {target}: ship {chosen['precision'].upper()}: {chosen['reason']}"
        assert said.stdout.splitlines().count(line) == 1
        assert "accuracy was not measured" in line or "SQNR, less than" in line
    int8 = tmp_path / f"model-{target}-int8"
    again = vitedge("bench", int8, "--duration", 0.1).stdout
    assert f"model on {target}: ship " in again


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path, vitedge, onnx_model):
    export = ("export", onnx_model, "--target", ONNXRUNTIME, "--int8", "--calib-data", "digits")
    dry = (*export, "--eval-data", "digits", "--output", tmp_path, "--dry-run")
    there = tmp_path / f"model-{ONNXRUNTIME}-int8"
    there.mkdir()
    plan = vitedge(*dry, "--json").document
    assert plan["targets"][ONNXRUNTIME][0] == "fp32" and plan["model"] == "model"
    assert plan["calibration"] == {"data": "digits", "images": 300, "recipe": "default"}
    assert plan["evaluation"]["images"] == 719
    assert [artifact["exists"] for artifact in plan["artifacts"]][
        :: len(plan["artifacts"]) - 1
    ] == [*(False, True)]
    said = vitedge(*dry).stdout
    assert "300 images of digits" in said and f"writes {there}" in said and "--force" in said
    assert "of digits" in vitedge("qat", *TARGETS[:2], "--output", tmp_path, "--dry-run").stdout
    assert names(tmp_path) == [there.name]


# -- catalogues ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "known", "name"),
    [
        ("targets", catalog.targets(), "openvino-cpu"),
        ("calibrations", catalog.calibrations(), "thorough"),
        ("models", ZOO, "digits"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_catalogue_lists_and_shows_everything(vitedge, command, known, name):
    table = vitedge(command, "list").stdout
    assert all(name in table for name in known)
    assert [entry["name"] for entry in vitedge(command, "list", "--json").document] == list(known)
    first = next(iter(known))
    assert vitedge(command, "show", first, "--json").document["name"] == first
    assert first in vitedge(command, "show", first).stdout
    assert f"'{name}'" in vitedge(command, "show", name[:-1], code=2).stderr
    assert "choose one of" in vitedge(command, "show", code=2).stderr


def test_doctor_says_what_is_here_and_what_is_missing(vitedge):
    found = vitedge("doctor", "--json").document
    checks = {check["name"]: check["status"] for check in found["checks"]}
    assert checks["onnxruntime"] == checks["openvino"] == checks["torch"] == "yes"
    assert checks["tensorrt_rtx"] == "yes"
    assert (checks["NVIDIA GPU"] == "yes") == bool(found["host"]["gpus"])
    for name in catalog.targets():
        assert checks[f"target {name}"] in ("yes", "no")
    assert "onnxruntime-arm" in vitedge("doctor").stdout


# -- demo ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("openvino")
def test_demo_ends_with_one_table_and_the_next_command(tmp_path, vitedge, monkeypatch):
    monkeypatch.setattr("vitedge.export.demo.DURATION_S", 0.2)
    ran = vitedge("demo", cwd=tmp_path)
    paths = bundles_in(tmp_path / "artifacts")
    assert len(paths) >= 4  # BF16, too, on a CPU that multiplies in it
    rows = [line.strip() for line in ran.stdout.splitlines()]
    for name in ("PyTorch eager FP32", *(path.name for path in paths)):
        (row,) = (row for row in rows if row.startswith(name))
        assert "99." in row.removeprefix(name)
    for path in paths:
        report = json.loads((path / "report.json").read_text())
        assert {"accuracy", "numerics", "latency", "size", "memory", "host"} <= set(report)
    for target in {open_bundle(path).manifest.target.name for path in paths}:
        assert ran.stdout.count(f"digits on {target}: ship ") == 1
    for column in ("top-1", "drop", "agree", "SQNR", "p50", "p90", "speed-up", "size"):
        assert column in ran.stdout
    next_command = next(line for line in ran.stdout.splitlines() if "next:" in line)
    assert any(str(path.relative_to(tmp_path)) in next_command for path in paths)


@pytest.mark.heavy
@pytest.mark.usefixtures("openvino")
def test_demo_of_the_embedded_detector(tmp_path, vitedge, monkeypatch):
    monkeypatch.setattr("vitedge.export.demo.DURATION_S", 0.1)
    monkeypatch.setattr("vitedge.export.demo._cpu_runtimes", lambda: ("openvino",))
    ran = vitedge("demo", "--model", "shapes-detr", cwd=tmp_path)
    assert "shapes-detr: accuracy on held-out images" in ran.stdout and "mAP" in ran.stdout
    row = next(line for line in ran.stdout.splitlines() if "PyTorch eager FP32" in line)
    fp32 = next(line for line in ran.stdout.splitlines() if line.strip().startswith("shapes-detr-"))
    assert row.split()[3] == fp32.split()[1]  # its accuracy, of the same images
    (int8,) = (tmp_path / "artifacts").glob("*-int8/report.json")
    accuracy = json.loads(int8.read_text())["accuracy"]
    assert (accuracy["metric"], accuracy["n"]) == ("map", 400)
    assert accuracy["fp32"] >= 0.60 and accuracy["drop_pp"] < 0.5


def test_demo_of_a_model_without_images(tmp_path, vitedge):
    ran = vitedge("demo", "--model", "vit_tiny_patch16_224", cwd=tmp_path, code=2)
    assert "--model vit_tiny_patch16_224" in ran.stderr and "shapes-detr" in ran.stderr


# -- sources ------------------------------------------------------------------------------------


def float_model(path):
    """A linear classifier of 8×8 images, (batch, 3, 8, 8) float32 -> (batch, 4)."""
    weight = np.random.default_rng(0).normal(0, 0.1, (192, 4)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["pixels"], ["rows"], "flatten"),
            helper.make_node("MatMul", ["rows", "weight"], ["logits"], "linear"),
        ],
        "linear",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weight, "weight")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_a_float_onnx_file_needs_its_preprocessing(tmp_path, vitedge):
    model, output = float_model(tmp_path / "mine.onnx"), tmp_path / "out"
    export = ("export", model, "--target", ONNXRUNTIME, "--output", output)
    refused = vitedge(*export, code=2)
    assert "--preprocess" in refused.stderr
    assert not output.exists()
    settings = tmp_path / "mine.toml"
    settings.write_text("height = 8\nwidth = 8\nmean = [0.4, 0.5, 0.6]\nstd = [0.2, 0.2, 0.2]\n")
    vitedge(*export, "--preprocess", settings, "--batch", "dynamic")
    manifest = open_bundle(output / f"mine-{ONNXRUNTIME}-fp32").manifest
    assert manifest.preprocessing.host.mean == (0.4, 0.5, 0.6)
    assert manifest.inputs[0].shape == ("batch", 8, 8, 3)


# -- flags of export ----------------------------------------------------------------------------


def test_random_calibration_makes_accuracy_not_measurable(tmp_path, vitedge, onnx_model):
    export = ("export", onnx_model, "--target", ONNXRUNTIME, "--output", tmp_path, "--int8")
    random = (*export, "--calib-data", "random", "--num-samples", 4, "--duration", 0)
    assert "not measurable" in vitedge(*random, "--eval-data", "digits", code=2).stderr
    assert names(tmp_path) == []
    said = vitedge(*random)
    assert "not measurable" in said.stdout + said.stderr
    int8 = tmp_path / f"model-{ONNXRUNTIME}-int8"
    assert open_bundle(int8).manifest.accuracy == "not measurable"
    refused = vitedge("validate", int8, "--data", "digits", code=2)
    assert "not measurable" in refused.stderr
    assert "accuracy" not in json.loads((int8 / "report.json").read_text())


@pytest.mark.parametrize("batch", ["2", "dynamic"])
def test_the_batch_asked_for_is_the_bundles(tmp_path, vitedge, batch):
    model, settings = float_model(tmp_path / "mine.onnx"), tmp_path / "mine.toml"
    settings.write_text("height = 8\nwidth = 8\n")
    output = tmp_path / "out"
    vitedge(
        *("export", model, "--preprocess", settings, "--batch", batch, "--output", output),
        *TARGETS,
    )
    for path in bundles_in(output):
        shape = open_bundle(path).manifest.inputs[0].shape
        assert shape[0] == ("batch" if batch == "dynamic" else 2)
        size = 2 if batch == "2" else 3
        ran = vitedge("bench", path, "--batch", size, "--duration", 0.05, "--json").document
        assert ran["latency"]["batch"] == size
    if batch == "2":
        refused = vitedge("bench", path, "--batch", 3, "--duration", 0.05, code=2)
        assert "fixed at batch 2" in refused.stderr
        refused = vitedge("bench", path, "--sweep", "batch", code=2)
        assert "--batch dynamic" in refused.stderr
    else:
        sweep = ("--sweep", "batch", "--scenario", "offline", "--streams", 1)
        ran = vitedge("bench", path, *sweep, "--duration", 0.05, "--json").document
        assert [point["batch"] for point in ran["sweep_batch"]] == [1, 2, 4, 8, 16]
        assert [point["batch"] for point in ran["offline"]["points"]] == [1, 2, 4, 8, 16]
        assert ran["offline"]["note"] == ""


def test_an_existing_artifact_is_replaced_only_with_force(tmp_path, vitedge, onnx_model):
    export = ("export", onnx_model, "--target", ONNXRUNTIME, "--output", tmp_path)
    vitedge(*export)
    bundle = tmp_path / f"model-{ONNXRUNTIME}-fp32"
    (bundle / "report.json").write_text("of the old one")
    before = bundle.stat().st_ino
    assert "--force" in vitedge(*export, code=2).stderr
    assert bundle.stat().st_ino == before
    vitedge(*export, "--force")
    assert bundle.stat().st_ino != before
    assert json.loads((bundle / "report.json").read_text())["size"]
    assert names(tmp_path) == [bundle.name]


def test_targets_and_recipes_of_ones_own_are_used_by_path(tmp_path, vitedge, onnx_model):
    target, recipe, output = tmp_path / "box.toml", tmp_path / "few.toml", tmp_path / "out"
    text = (ROOT / "targets" / f"{ONNXRUNTIME}.toml").read_text()
    target.write_text("threads = 1\n" + text.replace(f'"{ONNXRUNTIME}"', '"my-box"', 1))
    text = (ROOT / "calibration" / "fast.toml").read_text()
    recipe.write_text(
        text.replace('"fast"', '"few"').replace("num_samples = 32", "num_samples = 5")
    )
    vitedge(
        *("export", onnx_model, "--target", target, "--int8", "--output", output),
        *("--calibration", recipe, "--calib-data", "digits", "--duration", 0),
    )
    manifest = open_bundle(output / "model-my-box-int8").manifest
    assert (manifest.target.name, manifest.target.threads) == ("my-box", 1)
    assert manifest.quantization.calibration.recipe.name == "few"
    assert manifest.quantization.calibration.images == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "onnxruntime", "--int8", "--fp32"], "exclude each other"),
        (["--target", "onnxruntime-cpu", "--fp16"], "does not run fp16"),
        ([], "--target"),
        *(
            (["--target", "onnxruntime", f"--batch={n}"], "--batch")
            for n in ("0", "-1", "two", "1.5")
        ),
        *((["--target", "onnxruntime", f"--opset={n}"], "--opset 17 to 20") for n in (16, 21)),
        *(
            (["--target", "onnxruntime", "--int8", f"--duration={n}"], "--duration")
            for n in ("-1", "nan", "inf")
        ),
        (["--target", "onnxruntime", "--calib-data", "digits"], "--int8"),
        (["--target", "onnxruntime", "--max-drop", "1"], "--int8"),
        (["--target", "onnxruntime", "--int8", "--max-drop", "nan"], "--max-drop"),
        (["--target", "onnxruntime", "--int8", "--max-drop", "inf"], "--max-drop"),
        (["--target", "openvino-cpu", "--target", "openvino-cpu.toml"], "openvino-cpu"),
        (["--target", "onnxruntime", "--arch", "digits"], "--arch"),
        (["--target", "onnxruntime", "--weights", "x.pt", "--random-weights"], "exclude"),
        (["vit_unknown", "--target", "onnxruntime"], "unknown model 'vit_unknown'"),
        (["a.onnx", "--target", "onnxruntime", "--weights", "x.pt"], "--weights"),
        (["vit_tiny_patch16_224", "--target", "onnxruntime", "--int8"], "--calib-data"),
        (["vit_tiny_patch16_224", "--target", "onnxruntime"], "--weights FILE"),
        (["vit_tiny_patch16_224", "--target", "onnxruntime"], "--random-weights"),
        ([str(WEIGHTS), "--target", "onnxruntime"], "--arch"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_that_do_not_belong_together_are_refused(tmp_path, vitedge, arguments, said):
    shutil.copy(ROOT / "targets" / "openvino-cpu.toml", tmp_path)
    refused = vitedge("export", *arguments, "--output", "out", code=2, cwd=tmp_path)
    assert said in refused.stderr
    assert "fix:" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(tmp_path):
    code, _, said = call(["--debug", "validate", str(tmp_path / "absent")], None, {})
    assert code and "Traceback" in said and "InputError" in said
