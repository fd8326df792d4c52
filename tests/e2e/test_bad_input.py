"""Every line of "bad input gets a clear error and loses nothing", through the command line.

Damaged images, one by one, are in tests/unit/data/test_open.py.
"""

from __future__ import annotations

import builtins
import gc
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import zlib
from _thread import interrupt_main
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.support.machine import ONNXRUNTIME
from vitedge.core import publication
from vitedge.core.bundle import open_bundle
from vitedge.core.runtime import runtimes
from vitedge.data.open import open_images
from vitedge.measure.latency.lock import exclusive_timing
from vitedge.models.zoo import ZOO

DIGITS = ZOO["digits"]
TARGET = ("--target", ONNXRUNTIME)
ROOT = Path(__file__).parents[2]


def names(folder):
    """Everything in a folder, what begins with a dot included."""
    return sorted(path.name for path in folder.iterdir())


def refused(vitedge, *arguments, says, code=2):
    """The command fails with one message: what is wrong, where, and how to fix it."""
    ran = vitedge(*arguments, code=code)
    assert ran.stdout == ""
    assert ran.stderr.startswith("error: ") and "\n  fix: " in ran.stderr
    for part in says:
        assert part in ran.stderr


@pytest.fixture
def output(tmp_path):
    """An output folder in which nothing must be left."""
    folder = tmp_path / "out"
    yield folder
    assert not folder.exists() or names(folder) == []


@pytest.fixture
def int8(bundles, tmp_path):
    """An INT8 bundle of one's own, with its FP32 one beside it."""
    for precision in ("fp32", "int8"):
        source = bundles["onnxruntime", precision]
        shutil.copytree(source, tmp_path / source.name)
    return tmp_path / bundles["onnxruntime", "int8"].name


# -- unknown names ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "name", "says"),
    [
        ("--target", "openvino-cpuu", ("unknown target 'openvino-cpuu'", "'openvino-cpu'")),
        ("--calibration", "thorogh", ("unknown calibration recipe 'thorogh'", "'thorough'")),
        ("--target", "targets/onnxruntime-cpu.toml", ("mine.toml", "`nmae`", "'name'")),
        ("--calibration", "calibration/fast.toml", ("mine.toml", "`nmae`", "'name'")),
    ],
)
def test_an_unknown_name_and_an_unknown_key_in_a_file(vitedge, tmp_path, output, flag, name, says):
    if "/" in name:
        text = (ROOT / name).read_text().replace("name =", "nmae =")
        name = str(tmp_path / "mine.toml")
        Path(name).write_text(text)
    target = () if flag == "--target" else TARGET
    export = ("export", *target, "--int8", flag, name, "--output", output)
    refused(vitedge, *export, says=says)


# -- data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--calib-data", "--eval-data", "--data"])
@pytest.mark.parametrize("kind", ["missing", "empty", "no images", "no usable", "npz of none"])
def test_data_without_an_image(vitedge, tmp_path, output, onnx_model, int8, flag, kind):
    data = tmp_path / ("data.npz" if kind == "npz of none" else "data")
    if kind == "npz of none":
        save_npz(data, np.zeros((0, 32, 32, 3), np.uint8), np.zeros(0, int))
    elif kind != "missing":
        (data / "0").mkdir(parents=True)
        file = {"no images": "notes.txt", "no usable": "a.png"}.get(kind)
        if file:
            (data / "0" / file).write_bytes(b"no picture")
    calibration = () if flag == "--calib-data" else ("--calib-data", "digits")
    export = ("export", onnx_model, *TARGET, "--int8", *calibration, "--output", output)
    before = (int8 / "report.json").read_bytes()
    command = ("validate", int8) if flag == "--data" else export
    refused(vitedge, *command, flag, data, says=(str(data),))
    assert (int8 / "report.json").read_bytes() == before


def save_npz(path, images, labels):
    np.savez(path, images=images, labels=labels)
    return path


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_labels_that_are_not_the_models(vitedge, tmp_path, int8, held_out, kind):
    if kind == "folder":
        from PIL import Image

        data = tmp_path / "data"
        for name in ("cat", "dog"):
            (data / name).mkdir(parents=True)
            Image.fromarray(held_out.images[0]).save(data / name / "1.png")
        says = ("2 class folders", "10 classes")
    else:
        labels = np.full(5, 10)
        data = save_npz(tmp_path / "data.npz", held_out.images[:5], labels)
        says = (str(data), "0 to 9")
    refused(vitedge, "validate", int8, "--data", data, says=says)


def with_one(path, held_out, seen):
    """Held-out digits, and at the end one that was calibrated on."""
    return save_npz(
        path,
        np.concatenate([held_out.images[:9], seen.images]),
        np.concatenate([held_out.labels[:9], seen.labels]),
    )


def test_calibration_images_are_no_evaluation_images(
    vitedge, tmp_path, int8, output, onnx_model, held_out
):
    images = open_images("digits", "calibration", DIGITS.preprocess, DIGITS.labels)
    (drawn,) = images.sample(1, seed=0)  # by every shipped recipe
    seen = with_one(tmp_path / "seen.npz", held_out, drawn)
    validate = ("validate", int8, "--data", seen)
    before = (int8 / "report.json").read_bytes()
    refused(vitedge, *validate, says=("calibrated on", str(seen), "--allow-overlap"))
    assert (int8 / "report.json").read_bytes() == before
    accuracy = vitedge(*validate, "--allow-overlap", "--json").document["accuracy"]
    assert accuracy["n"] == 10
    export = ("export", onnx_model, *TARGET, "--int8", "--num-samples", 8, "--output", output)
    data = ("--calib-data", "digits", "--eval-data", seen)
    refused(vitedge, *export, *data, says=("--allow-overlap",))


def write_recipe(folder, selection):
    """`fast`, choosing its images in another way."""
    text = (ROOT / "calibration" / "fast.toml").read_text()
    mine = folder / f"{selection}.toml"
    mine.write_text(text.replace('"random"', f'"{selection}"'))
    return mine


@pytest.mark.parametrize("selection", ["first", "random", "stratified", "diverse"])
def test_however_calibration_images_are_chosen_they_are_no_evaluation_images(
    vitedge, tmp_path, onnx_model, held_out, selection
):
    recipe = write_recipe(tmp_path, selection)
    export = ("export", onnx_model, *TARGET, "--int8", "--calibration", recipe)
    few = ("--calib-data", "digits", "--num-samples", 8, "--duration", 0)
    vitedge(*export, *few, "--output", tmp_path / "out")
    made = tmp_path / "out" / f"model-{ONNXRUNTIME}-int8"
    used = open_bundle(made).manifest.quantization.calibration
    assert (used.recipe.selection, used.images, len(set(used.image_digests))) == (selection, 8, 8)
    images = open_images("digits", "calibration", DIGITS.preprocess, DIGITS.labels)
    last = next(b for b in images.batches(1) if b.digests[0] == used.image_digests[-1])
    seen = with_one(tmp_path / "seen.npz", held_out, last)
    refused(vitedge, "validate", made, "--data", seen, says=("calibrated on", str(seen)))


def test_balanced_classes_of_images_without_labels(vitedge, tmp_path, output, onnx_model, held_out):
    np.savez(tmp_path / "plain.npz", images=held_out.images)
    recipe = write_recipe(tmp_path, "stratified")
    export = ("export", onnx_model, *TARGET, "--int8", "--calibration", recipe)
    data = ("--calib-data", tmp_path / "plain.npz")
    says = ("plain.npz", "no labels", '"random" or "diverse"')
    refused(vitedge, *export, *data, "--output", output, says=says)


@pytest.mark.parametrize("recipe", ["fast", "default"])  # default runs equalisation first
@pytest.mark.parametrize("kind", ["all the same", "black", "of one colour each"])
def test_calibration_images_that_show_nothing(
    vitedge, tmp_path, output, onnx_model, held_out, kind, recipe
):
    images = np.repeat(held_out.images[:1], 12, axis=0)
    if kind == "black":
        images[:] = 0
    if kind == "of one colour each":
        images[:] = 20 * np.arange(12)[:, None, None, None]
    data = tmp_path / "mine.npz"
    np.savez(data, images=images)
    export = ("export", onnx_model, *TARGET, "--target", "openvino-cpu", "--int8")
    says = (str(data), "all the same" if kind == "all the same" else "is blank", "look like")
    refused(
        vitedge,
        *(*export, "--calibration", recipe, "--calib-data", data, "--output", output),
        says=says,
    )


def test_calibration_images_that_are_few_and_double_are_noted(
    vitedge, tmp_path, onnx_model, held_out
):
    data = tmp_path / "mine.npz"
    np.savez(data, images=held_out.images[[0, 1, 2, 3, 4, 1, 1, 4]])
    export = ("export", onnx_model, *TARGET, "--int8", "--calib-data", data)
    fast = ("--calibration", "fast", "--duration", 0, "--output", tmp_path / "out")
    said = vitedge(*export, *fast).stderr
    assert "3 of 8 calibration images are duplicates" in said
    assert f"calibrated on 8 images, not 32: '{data}' has no more" in said


# -- models -------------------------------------------------------------------------------------


def test_a_pickle_with_code_is_refused_and_not_run(vitedge, tmp_path, output):
    import torch

    marker = tmp_path / "executed"

    class Payload:
        def __reduce__(self):
            return (os.system, (f"touch {marker}",))

    torch.save({"head.weight": Payload()}, tmp_path / "evil.pt")
    export = ("export", tmp_path / "evil.pt", "--arch", "digits", *TARGET, "--output", output)
    refused(vitedge, *export, says=("evil.pt", "safetensors"))
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["truncated", "nan", "inf"])
def test_damaged_weights(vitedge, tmp_path, output, kind):
    from safetensors.torch import load_file, save_file

    source, weights = ROOT / "vitedge/models/zoo/digits.safetensors", tmp_path / "mine.safetensors"
    if kind == "truncated":
        weights.write_bytes(source.read_bytes()[:-100])
    else:
        state = load_file(source)
        state["head.bias"][3] = float(kind)
        save_file(state, weights)
    says = (str(weights), "whole" if kind == "truncated" else "'head.bias' holds NaN or infinity")
    refused(vitedge, "export", *TARGET, "--weights", weights, "--output", output, says=says)


def test_an_onnx_file_that_reads_outside_its_folder(vitedge, tmp_path, output, onnx_model):
    model = onnx.load(onnx_model)
    stored = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    (tmp_path / "secret").write_bytes(stored.raw_data)
    stored.ClearField("raw_data")
    stored.data_location = TensorProto.EXTERNAL
    entry = stored.external_data.add()
    entry.key, entry.value = "location", "../secret"
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "mine.onnx").write_bytes(model.SerializeToString())
    export = ("export", folder / "mine.onnx", *TARGET, "--output", output)
    refused(vitedge, *export, says=("mine.onnx", stored.name, "../secret"))


def test_an_onnx_file_of_an_opset_that_nothing_reads(vitedge, tmp_path, output):
    from onnx import helper

    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["float"], ["logits"]),
        ],
        "flat",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 2, 2, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 12])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 6)], ir_version=8)
    onnx.save(model, tmp_path / "mine.onnx")
    export = ("export", tmp_path / "mine.onnx", *TARGET, "--output", output)
    refused(vitedge, *export, says=("mine.onnx", "opset 6", "7 to 25"))


# -- the output folder --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["a file", "below a file", "read-only"])
def test_an_output_folder_that_cannot_be_written(vitedge, tmp_path, onnx_model, kind):
    (tmp_path / "file").write_text("mine")
    places = {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "out",
        "read-only": Path("/proc/vitedge"),  # root writes everywhere else
    }
    export = ("export", onnx_model, *TARGET, "--output", places[kind])
    refused(vitedge, *export, says=(str(places[kind]), "cannot write", "--output"))
    assert (tmp_path / "file").read_text() == "mine"


"""A folder with the bundles of an older export, and the command that replaces them."""


@pytest.fixture(scope="module")
def older(tmp_path_factory, vitedge, onnx_model):
    """Make an export to some targets once, and copies of it."""
    made = {}

    def copy(folder, *targets):
        command = ["export", str(onnx_model), "--int8", "--calib-data", "digits", "--duration", "0"]
        command += ["--num-samples", "4", "--force"]
        command += [word for target in targets for word in ("--target", target)]
        if targets not in made:
            made[targets] = tmp_path_factory.mktemp("older")
            vitedge(*command, "--output", made[targets])
            for bundle in made[targets].iterdir():
                (bundle / "report.json").write_text('{"schema": "vitedge.report/1", "old": true}')
        shutil.copytree(made[targets], folder)
        return folder, [*command, "--output", str(folder)]

    return copy


@pytest.fixture
def old(tmp_path, older):
    return older(tmp_path / "old", ONNXRUNTIME)


def assert_old(folder, count):
    """Each bundle of an older export is there, whole, and nothing else is."""
    assert len(names(folder)) == count
    for bundle in folder.iterdir():
        open_bundle(bundle)
        assert json.loads((bundle / "report.json").read_text())["old"]


@pytest.mark.parametrize("kilobytes", [1, 20, 400, 1700])
def test_a_disk_that_fills_up_leaves_the_old_bundles(tmp_path, older, vitedge, openvino, kilobytes):
    """The kernel refuses a file beyond this size as it refuses one on a full disk."""
    folder, command = older(tmp_path / "old", openvino)
    _, most = usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000 * kilobytes, most))
    try:
        said = vitedge(*command, code=2).stderr
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert said.startswith("error: ") and "fix: " in said
    assert_old(folder, 2)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 12 MB, where one may mount such a thing."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root to mount a small disk")
    yield disk
    gc.collect()  # a failed export leaves open files to it
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("free_kilobytes", [0, 500, 3000, 5000])
def test_a_full_disk_leaves_the_old_bundles(older, small_disk, vitedge, openvino, free_kilobytes):
    output, command = older(small_disk / "out", openvino)
    space = os.statvfs(small_disk)
    filler = space.f_bavail * space.f_bsize - 1000 * free_kilobytes
    (small_disk / "filler").write_bytes(b"\0" * filler)
    refused(vitedge, *command, says=(str(output),))
    assert_old(output, 2)


# -- interrupted --------------------------------------------------------------------------------


CALLS = {
    "mkdir": [(os, "mkdir")],
    "open": [(io, "open"), (builtins, "open")],
    "rename": [(os, "rename"), (os, "replace"), (publication, "_exchange")],
}


def stop(how):
    """Of Ctrl-C Python's part alone: the kernel's needs a larger stack than pytest has for it."""
    if how == "SIGINT":
        interrupt_main()
    else:
        os.kill(os.getpid(), getattr(signal, how))


@contextmanager
def stopping(how, kind, number, folder):
    """Signal this process at one of the calls of a kind on paths in `folder`."""
    calls = count(1)

    def watched(function):
        def call(path, *arguments, **options):
            if str(path).startswith(folder) and next(calls) == number:
                stop(how)
            return function(path, *arguments, **options)

        return call

    with ExitStack() as patches:
        for module, name in CALLS[kind]:
            patches.enter_context(patch.object(module, name, watched(getattr(module, name))))
        yield


KILLED = """
import sys
from tests.e2e.test_bad_input import stopping
from vitedge.cli.main import run

kind, number, folder = sys.argv[1:4]
sys.argv[1:4] = []
with stopping("SIGKILL", kind, int(number), folder):
    run()
"""


def assert_whole(folder, vitedge, command):
    """Every bundle is old or new and whole; the next export leaves nothing else behind."""
    for bundle in folder.iterdir():
        if not bundle.name.startswith("."):
            open_bundle(bundle)
    vitedge(*command)
    assert len(names(folder)) == 2
    for bundle in folder.iterdir():
        assert open_bundle(bundle).reference() is not None


def moments(often):
    """Of an export: the workspace is made, it fills, renames publish it. The rest is heavy.

    tests/unit/core/test_bundle.py kills at each step of publishing one bundle.
    """
    every = [("mkdir", 1), ("open", 5), *(("rename", number) for number in (1, 2, 3, 4))]
    heavy = [pytest.mark.heavy]
    cases = [pytest.param(*moment, marks=[] if moment in often else heavy) for moment in every]
    return pytest.mark.parametrize(("kind", "number"), cases)


RENAMES = [("rename", number) for number in (1, 3, 4)]


@moments([("mkdir", 1), ("open", 5), *RENAMES])
def test_interrupted_at_a_chosen_moment(old, vitedge, kind, number):
    folder, command = old
    with stopping("SIGINT", kind, number, str(folder)):
        vitedge(*command, code=130)
    assert not [name for name in names(folder) if name.startswith(".")]
    assert_whole(folder, vitedge, command)


@moments([("open", 5), ("rename", 3)])
def test_killed_at_a_chosen_moment(old, vitedge, kind, number):
    folder, command = old
    killed = [sys.executable, "-c", KILLED, kind, str(number), str(folder), *command]
    assert subprocess.run(killed, cwd=ROOT).returncode == -signal.SIGKILL
    assert_whole(folder, vitedge, command)


def test_stopped_where_a_library_raises_its_own_error(old, vitedge):
    """zipfile answers Ctrl-C amid a file with a ValueError about its open handle."""
    folder, command = old
    interrupt = patch.object(zlib, "compressobj", lambda *_: stop("SIGINT"))
    with interrupt:
        assert "interrupted" in vitedge(*command, code=130).stderr
    assert_whole(folder, vitedge, command)


@pytest.mark.heavy
def test_stopped_at_any_moment(old, vitedge, vitedge_process):
    folder, command = old
    start = time.monotonic()
    vitedge_process(*command)
    usual = time.monotonic() - start
    for part, how in enumerate([signal.SIGINT, signal.SIGKILL] * 2):
        child = subprocess.Popen(
            [sys.executable, "-m", "vitedge", *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(usual * (part + random.random()) / 4)
        child.send_signal(how)
        _, said = child.communicate()
        assert child.returncode in (0, -how, 130), said
        if child.returncode == 130:
            assert "Traceback" not in said
        for bundle in folder.iterdir():
            if not bundle.name.startswith("."):
                open_bundle(bundle)
    assert_whole(folder, vitedge, command)


# -- a bundle that is not what its manifest says ------------------------------------------------


@pytest.mark.parametrize("command", [("validate",), ("bench", "--duration", "0.1")], ids=str)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_tampered_bundle_reaches_no_runtime(
    vitedge, tmp_path, bundles, monkeypatch, runtime, command
):
    bundle = tmp_path / "bundle"
    shutil.copytree(bundles[runtime, "int8"], bundle)
    model = bundle / ("model.onnx" if runtime == "onnxruntime" else "model.bin")
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1  # a weight: either runtime would load and run this
    model.write_bytes(content)
    monkeypatch.setattr(type(runtimes()[runtime]), "open", None)  # calling it fails otherwise
    says = f"'{model.name}' is not the file the manifest describes"
    refused(vitedge, *command, bundle, says=(says,))


def test_a_tampered_fp32_bundle_is_no_reference(vitedge, int8):
    fp32 = int8.with_name(int8.name.replace("-int8", "-fp32"))
    (fp32 / "model.onnx").write_bytes(b"something else")
    before = (int8 / "report.json").read_bytes()
    with exclusive_timing(lambda said: None):  # so that it need not wait for others
        refused(vitedge, "bench", int8, says=(str(fp32), "model.onnx"))
    assert (int8 / "report.json").read_bytes() == before


def test_artifacts_that_are_not_there(tmp_path, vitedge, int8):
    misspelt = int8.with_name(int8.name[:-1])
    refused(vitedge, "validate", misspelt, says=(str(misspelt), f"'{int8.name}'"))
    ran = vitedge("bench", code=2, cwd=tmp_path)
    assert "artifacts/" in ran.stderr and "vitedge export" in ran.stderr


def test_a_misspelt_model_is_what_is_said_of_it(vitedge, tmp_path):
    """And not that it has no images: the one that was meant has its own."""
    command = ("export", "shapes-dtr", "--target", "onnxruntime", "--int8", "--output", tmp_path)
    said = vitedge(*command, code=2).stderr
    assert "unknown model 'shapes-dtr'" in said
    assert "'shapes-detr'" in said
