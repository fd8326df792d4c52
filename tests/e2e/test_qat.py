"""`vitedge qat`: trained on digits, killed, resumed, shared by processes, and given bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tests.support.machine import ONNXRUNTIME
from vitedge.core.bundle import open_bundle
from vitedge.data.open import open_images
from vitedge.measure.accuracy.validation import predict_all
from vitedge.models.zoo import ZOO
from vitedge.runtimes import open_session

DIGITS = ZOO["digits"]
NAME = f"model-{ONNXRUNTIME}-int8"
RUN = f".{NAME}.qat"
DIGITS_NAME = f"digits-{ONNXRUNTIME}-int8"
EVALUATION = "evaluation.npz"
SHORT = """
epochs = 2
batch_size = 32
learning_rate = 1e-5
checkpoint_steps = 4
labels = 1.0
floats = "fp32"
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory, held_out):
    """160 labelled training digits, and 100 for evaluation."""
    found = open_images("digits", "calibration", DIGITS.preprocess, DIGITS.labels)
    batch = next(found.batches(160))
    path = tmp_path_factory.mktemp("training") / "training.npz"
    np.savez(path, images=batch.images, labels=batch.labels)
    few = slice(100)
    evaluation = path.with_name(EVALUATION)
    np.savez(evaluation, images=held_out.images[few], labels=held_out.labels[few])
    return path


def arguments(model, images, output, settings=SHORT):
    """The command line of a run, with its settings in a file beside `output`."""
    how = output.with_name(f"{output.name}.toml")
    how.write_text(settings)
    return [
        *("qat", str(model), "--target", ONNXRUNTIME, "--train-data", str(images)),
        *("--training", str(how), "--num-samples", "32", "--duration", "0"),
        *("--eval-data", str(images.with_name(EVALUATION)), "--output", str(output)),
    ]


@pytest.fixture(scope="module")
def trained(vitedge, onnx_model, images, tmp_path_factory):
    """The folder of one uninterrupted run, which took the place of another that had not ended."""
    output = tmp_path_factory.mktemp("trained")
    (output / RUN).mkdir()
    (output / RUN / "last.safetensors").write_bytes(b"of another run")
    vitedge(*arguments(onnx_model, images, output), "--force")
    return output


def test_a_trained_artifact_is_a_bundle_like_any_other(trained, held_out):
    bundle = open_bundle(trained / NAME)
    record = bundle.manifest.quantization.training
    assert record.steps == 8 and record.images + record.held_out == 160
    assert [look.step for look in record.looks] == [0, 4, 8]
    best = min(record.looks, key=lambda look: look.loss)
    assert record.best_step == best.step
    assert [step for step, _ in record.curve] == list(range(1, 9))
    with open_session(bundle) as session:
        right = predict_all(session, held_out.images).argmax(1) == held_out.labels
    assert right.mean() > 0.98
    assert not list(trained.glob(".*")), "checkpoints of a finished run are of no use"


def test_the_artifact_computes_what_was_trained(trained):
    """But for values at the edge of two steps, which runtimes round one way or the other."""
    report = json.loads((trained / NAME / "report.json").read_text())
    parity = open_bundle(trained / NAME).manifest.quantization.training.parity
    assert parity < 5e-3 and parity < 0.5 * 10 ** (-report["numerics"]["sqnr_db"] / 20)


def test_inspect_tells_of_the_training(vitedge, trained, tmp_path):
    page = tmp_path / "page.html"
    shown = vitedge("inspect", trained / NAME, "--html", page).stdout
    assert "trained for 8 steps on 14" in shown
    html = page.read_text()
    assert "Training" in html and "loss" in html


def test_a_level_that_is_kept_ends_training(vitedge, onnx_model, images, tmp_path):
    ran = vitedge(*arguments(onnx_model, images, tmp_path), "--min-sqnr-db", 10)
    record = open_bundle(tmp_path / NAME).manifest.quantization.training
    assert record.steps == record.best_step == 0 and record.bounds.min_sqnr_db == 10
    (look,) = record.looks
    assert look.sqnr_db > 10
    assert f"which was to keep 10 dB ({look.sqnr_db:.2f} dB)" in ran.stdout
    assert "PTQ met the level" in ran.stderr


def test_a_level_that_training_never_keeps_is_exit_1(vitedge, onnx_model, images, tmp_path):
    command = arguments(onnx_model, images, tmp_path)
    ran = vitedge(*command, "--min-sqnr-db", 300, code=1)
    assert "after 8 steps the model keeps " in ran.stderr
    assert "less than --min-sqnr-db 300" in ran.stderr and "--resume" in ran.stderr
    assert not (tmp_path / NAME).exists() and (tmp_path / RUN).is_dir()
    ran = vitedge(*command, "--min-sqnr-db", 10, "--resume")
    assert open_bundle(tmp_path / NAME).manifest.quantization.training.steps == 8


def test_tokens_of_a_model_that_has_none_end_no_training(vitedge, onnx_model, images, tmp_path):
    ran = vitedge(*arguments(onnx_model, images, tmp_path), "--min-token-sqnr-db", 10, code=2)
    assert "no output of tokens or pixels" in ran.stderr


@pytest.mark.heavy
def test_two_runs_with_one_seed_are_equal(vitedge, onnx_model, trained, images, tmp_path):
    vitedge(*arguments(onnx_model, images, tmp_path))
    model = (tmp_path / NAME / "model.onnx").read_bytes()
    assert model == (trained / NAME / "model.onnx").read_bytes()


def test_a_killed_run_goes_on_to_the_same_weights(vitedge, onnx_model, trained, images, tmp_path):
    command = arguments(onnx_model, images, tmp_path)
    running = subprocess.Popen([sys.executable, "-m", "vitedge", *command], stderr=subprocess.PIPE)
    log = tmp_path / RUN / "log.jsonl"
    while not (log.exists() and '"step": 5' in log.read_text()):
        assert running.poll() is None, running.stderr.read().decode()
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert (tmp_path / RUN / "last.safetensors").exists() and not (tmp_path / NAME).exists()

    refused = vitedge(*command, code=2)
    assert "holds a run that was not finished" in refused.stderr and "--resume" in refused.stderr
    other = vitedge(*command, "--resume", "--seed", 9, code=2)
    assert "the training settings differ" in other.stderr

    vitedge(*command, "--resume")
    model = (tmp_path / NAME / "model.onnx").read_bytes()
    assert model == (trained / NAME / "model.onnx").read_bytes()
    assert not (tmp_path / RUN).exists()


@pytest.mark.heavy
def test_two_processes_train_as_one_does(onnx_model, trained, images, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [*launcher, "-m", "vitedge", *arguments(onnx_model, images, tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    one, two = (
        open_bundle(each / NAME).manifest.quantization.training for each in (trained, tmp_path)
    )
    assert two.processes == 2
    np.testing.assert_allclose([x for _, x in two.curve], [x for _, x in one.curve], rtol=0.02)


@pytest.mark.heavy
def test_four_bit_weights_lose_and_training_recovers(vitedge, images, tmp_path):
    recipe = tmp_path / "w4.toml"
    recipe.write_text(
        'name = "w4"\ndescription = "4-bit weights"\nnum_samples = 32\nactivations = "minmax"\n'
        'weights = "mse"\nweight_bits = 4\n'
    )
    how = "batch_size = 16\nlearning_rate = 3e-5"
    made = vitedge(*arguments("digits", images, tmp_path, how), "--calibration", recipe)
    assert "4-bit weights are stored in 8 bits" in made.stderr
    looks = open_bundle(tmp_path / DIGITS_NAME).manifest.quantization.training.looks
    assert looks[-1].loss < 0.8 * looks[0].loss


def refusal(vitedge, images, output, settings="", *more):
    """What is said of bad input; nothing may be left behind."""
    how = output.with_name("how.toml")
    how.write_text(settings)
    ran = vitedge(
        *("qat", "--target", ONNXRUNTIME, "--train-data", images, "--num-samples", 16),
        *("--eval-data", "digits", "--duration", 0, "--output", output, "--training", how, *more),
        code=2,
    )
    assert not output.exists() or not [p for p in output.iterdir() if p.suffix != ".qat"]
    return ran.stderr


def test_training_on_evaluation_images_is_refused(vitedge, tmp_path, held_out):
    path = tmp_path / "leak.npz"
    np.savez(path, images=held_out.images[:96])
    said = refusal(vitedge, path, tmp_path / "out")
    assert "96 images of" in said and "are evaluation images, too" in said


def test_a_missing_class_is_named_where_labels_are_trained_on(vitedge, tmp_path):
    found = open_images("digits", "calibration", DIGITS.preprocess, DIGITS.labels)
    batch = next(found.batches(len(found)))
    kept = batch.labels != 7
    path = tmp_path / "without.npz"
    np.savez(path, images=batch.images[kept], labels=batch.labels[kept])
    said = refusal(vitedge, path, tmp_path / "out", "labels = 1.0")
    assert "no image of 1 of the model's classes: 7" in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("batch_size = 4096", "less than a batch of 4096"),
        ("batch_size = 3\naccumulate = 2", "set batch_size to a multiple of 2"),
        ("learning_rat = 1", "learning_rate"),
        ("distillation = 0.0", "no loss: set"),
        ("epochs = 0", "epochs"),
    ],
)
def test_settings_that_cannot_work_are_refused(vitedge, images, tmp_path, text, says):
    unfinished = tmp_path / "out" / f".{DIGITS_NAME}.qat" / "last.safetensors"
    unfinished.parent.mkdir(parents=True)
    unfinished.write_bytes(b"of another run")
    assert says in refusal(vitedge, images, tmp_path / "out", text, "--force")
    assert unfinished.exists(), "another run is given up when this one begins"


@pytest.mark.heavy
def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(vitedge, images, tmp_path):
    how = "learning_rate = 1e30\nwarmup = 1.0\nbatch_size = 64\nepochs = 1"
    said = refusal(vitedge, images, tmp_path / "out", how)
    assert "at step " in said and "with --resume and a lower --learning-rate" in said
    vitedge(
        *("qat", "--target", ONNXRUNTIME, "--train-data", images, "--num-samples", 16),
        *("--eval-data", "digits", "--duration", 0, "--output", tmp_path / "out"),
        *("--training", tmp_path / "how.toml", "--resume", "--learning-rate", 1e-5),
    )
    assert (tmp_path / "out" / DIGITS_NAME / "manifest.json").exists()


@pytest.mark.heavy
def test_images_that_are_none_are_counted_and_left_out(vitedge, images, tmp_path):
    batch = np.load(images)
    for index in range(80):
        folder = tmp_path / "folder" / str(batch["labels"][index])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(batch["images"][index]).save(folder / f"{index}.png")
    (tmp_path / "folder" / "0" / "broken.png").write_bytes(b"no image")
    vitedge(
        *("qat", "--target", ONNXRUNTIME, "--train-data", tmp_path / "folder"),
        *("--num-samples", 16, "--epochs", 1, "--batch-size", 32, "--duration", 0),
        *("--eval-data", "digits", "--output", tmp_path / "out"),
    )
    record = open_bundle(tmp_path / "out" / DIGITS_NAME).manifest.quantization.training
    assert sum(record.skipped.values()) == 1 and record.images + record.held_out == 80
