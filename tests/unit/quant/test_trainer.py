"""The loop: what accumulates, averages and is resumed ends where it should."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from accelerate import Accelerator

from vitedge.core import catalog
from vitedge.core.errors import InputError, LimitError
from vitedge.core.machine import describe_machine
from vitedge.core.manifest import Bounds
from vitedge.core.progress import SILENT
from vitedge.core.spec import Training
from vitedge.data.open import open_images
from vitedge.measure.accuracy.output_error import OutputErrors
from vitedge.models.zoo import ZOO
from vitedge.quant.calibrate import calibrate
from vitedge.quant.placement import Placement
from vitedge.quant.qat import team
from vitedge.quant.qat.checkpoint import LOG, no_listener
from vitedge.quant.qat.job import TrainingJob
from vitedge.quant.qat.network import Network
from vitedge.quant.qat.trainer import train
from vitedge.quant.qdq import quantizers

DIGITS = ZOO["digits"]
RECIPE = msgspec.structs.replace(catalog.find_calibration("default"), weight_bits=4)
TARGET = msgspec.structs.replace(  # symmetric: training has further to go from there
    catalog.targets()["onnxruntime-cpu"].quantization, zero_points=()
)
HOW = Training(epochs=2, batch_size=8, learning_rate=3e-5, floats="fp32")


@pytest.fixture(scope="module")
def calibrated(digits_graph, calibration_batches):
    batches = iter(calibration_batches(8, 1))
    return calibrate(digits_graph(1).path, batches, RECIPE, TARGET, SILENT)[0]


def network(calibrated, learned=True, quantized=None):
    """The student; `quantized`: a placement that takes the place of PTQ's."""
    placed, scales = quantizers(calibrated)
    tensors = {name: torch.from_numpy(scale) for name, scale in scales.items()}
    return Network(calibrated.path, quantized or placed, tensors, "fp32", learned=learned)


def job(calibrated, **changes):
    plain = TrainingJob(
        student=network(calibrated),
        teacher=Network(calibrated.path, Placement(), {}, "fp32", learned=False),
        images=open_images("digits", "calibration", DIGITS.preprocess, DIGITS.labels),
        training=list(range(32)),
        held_out=list(range(32, 48)),
        task="classification",
        settings=HOW,
        folder=Path(),
        fingerprint={"the run": "1"},
        errors=partial(OutputErrors, ["logits"], "classification"),
        bounds=Bounds(),
    )
    return replace(plain, **changes)


def run(made, folder, *, listener=no_listener, steps=SILENT, **how):
    folder.mkdir(exist_ok=True)
    settings = msgspec.structs.replace(made.settings, **how)
    made = replace(made, settings=settings, folder=folder)
    return train(made, Accelerator(cpu=True), steps, listener)


def losses(done):
    return [line["loss"] for line in done.log if "loss" in line]


def looks(done):
    return [line["held_out"]["loss"] for line in done.log if "held_out" in line]


def weights(made):
    return np.concatenate([w.reshape(-1) for w in made.student.trained_weights().values()])


def test_accumulated_gradients_are_those_of_the_whole_batch(calibrated, tmp_path):
    """With float activations: between two steps of INT8 the last bit of a sum decides, and the
    CPU sums 8 images in another order than 2.
    """
    placed, _ = quantizers(calibrated)
    reads = {
        node: {index: name for index, name in inputs.items() if name in placed.weights}
        for node, inputs in placed.reads.items()
    }
    runs = []
    for parts in (1, 4):
        student = network(calibrated, quantized=Placement({}, placed.weights, reads))
        job_of_weights = job(calibrated, student=student)
        runs.append(run(job_of_weights, tmp_path / str(parts), accumulate=parts))
    whole, parts = map(losses, runs)
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-4)
    np.testing.assert_allclose(parts, whole, rtol=0.2)
    assert runs[0].steps == 8


def test_frozen_scales_stay_those_of_ptq(calibrated, tmp_path):
    placed, scales = quantizers(calibrated)
    more = {"training": list(range(64)), "held_out": list(range(64, 96))}
    made = job(calibrated, student=network(calibrated, learned=False), **more)
    before = weights(made)
    run(made, tmp_path, scales="frozen", batch_size=16, learning_rate=1e-4)
    student = made.student
    assert student.activation_scales() == {n: float(a.scale) for n, a in placed.activations.items()}
    for name, scale in student.weight_scales().items():
        np.testing.assert_array_equal(scale, scales[name])
    assert (weights(made) != before).any()


def test_the_moving_average_is_what_is_kept_and_survives_a_stop(calibrated, tmp_path):
    plain, averaged, resumed = (job(calibrated) for _ in range(3))
    start = weights(plain)
    run(plain, tmp_path / "plain")
    run(averaged, tmp_path / "averaged", ema=0.9)
    moved = [np.abs(weights(trained) - start).mean() for trained in (plain, averaged)]
    assert 0 < moved[1] < 0.8 * moved[0]

    class Stopped(Exception): ...

    def stop(step, done, total, note=""):
        if done == 6:
            raise Stopped

    with pytest.raises(Stopped):
        run(job(calibrated), tmp_path / "stopped", steps=stop, ema=0.9)
    lines = []
    done = run(resumed, tmp_path / "stopped", listener=lines.append, ema=0.9)
    assert lines == done.log and len(losses(done)) == 8
    np.testing.assert_array_equal(weights(resumed), weights(averaged))


def test_training_that_makes_nothing_better_leaves_what_ptq_gave(calibrated, tmp_path):
    made = job(calibrated)
    before = weights(made)
    done = run(made, tmp_path, learning_rate=0.1)
    assert done.best_step == 0
    np.testing.assert_array_equal(weights(made), before)


def test_a_run_writes_a_line_for_every_step(calibrated, tmp_path):
    done = run(job(calibrated), tmp_path)
    assert [line["step"] for line in done.log if "loss" in line] == list(range(1, 9))
    assert [line["step"] for line in done.log if "held_out" in line] == [0, 4, 8]
    rates = [line["learning_rate"] for line in done.log if "loss" in line]
    assert rates[0] == max(rates) == HOW.learning_rate


def test_a_loss_that_is_no_number_stops_at_its_step_and_can_be_gone_on_from(calibrated, tmp_path):
    with pytest.raises(InputError, match="at step 2: training has stopped") as stopped:
        run(job(calibrated), tmp_path, learning_rate=1e30)
    assert "`resume=True` and a lower `learning_rate`" in stopped.value.fix
    done = run(job(calibrated), tmp_path)
    assert len(losses(done)) == done.steps == 8


def test_a_loss_that_is_no_number_from_the_start_is_told_as_such(calibrated, tmp_path):
    made = job(calibrated)
    with torch.no_grad():
        next(made.teacher.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match="nan at step 0, before any training") as stopped:
        run(made, tmp_path)
    assert "`precision='int8'`" in stopped.value.fix


def test_bf16_steps_make_it_better_and_are_measured_in_float32(calibrated, tmp_path):
    few = {"training": list(range(8)), "held_out": list(range(64, 72))}
    how = {"epochs": 1, "batch_size": 4, "learning_rate": 3e-5}
    made = job(calibrated, **few)
    exact = run(job(calibrated, **few), tmp_path / "fp32", **how)
    done = run(made, tmp_path / "bf16", **how, floats="bf16")
    assert looks(done)[0] == looks(exact)[0]
    assert 0 < abs(losses(done)[0] - losses(exact)[0]) < 0.3 * losses(exact)[0]
    assert looks(done)[-1] < 0.9 * looks(done)[0]
    assert {p.dtype for p in made.student.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("isa", "expected"),
    [
        (None, False),
        (("avx2",), False),
        (("avx2", "avx512f", "avx512_vnni"), False),
        (("avx2", "avx512f", "avx512_bf16"), True),
        (("avx2", "amx_int8"), True),
    ],
)
def test_auto_is_bf16_where_the_cpu_multiplies_in_it(monkeypatch, isa, expected):
    machine = msgspec.structs.replace(describe_machine(threads=0), isa=isa)
    monkeypatch.setattr(team, "describe_machine", lambda threads: machine)
    assert team.bf16(Training(), torch.device("cpu")) == expected


def test_features_have_no_accuracy(calibrated, tmp_path):
    made = job(calibrated, task="features", training=list(range(16)))
    done = run(made, tmp_path, epochs=1)
    assert [line["held_out"]["accuracy"] for line in done.log if "held_out" in line] == [None, None]


def kept(made):
    return [line["held_out"]["sqnr_db"] for line in made.log if "held_out" in line]


@pytest.fixture(scope="module")
def whole(calibrated, tmp_path_factory):
    """What each look of a run keeps that no level ends, and that run's own folder."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.raises(LimitError) as caught:
        run(job(calibrated, bounds=Bounds(min_sqnr_db=500)), folder, epochs=3)
    lines = map(json.loads, (folder / LOG).read_text().splitlines())
    return [line["held_out"]["sqnr_db"] for line in lines if "held_out" in line], folder, caught


def test_training_ends_at_the_first_look_that_keeps_the_level(calibrated, whole, tmp_path):
    levels, _, _ = whole
    assert len(levels) == 4 and max(levels[1:]) > levels[0]
    level = (levels[0] + max(levels[1:])) / 2
    first = next(place for place, reached in enumerate(levels) if reached >= level)
    made = run(job(calibrated, bounds=Bounds(min_sqnr_db=level)), tmp_path, epochs=3)
    assert kept(made) == pytest.approx(levels[: first + 1])
    assert made.steps == made.best_step == 4 * first


def test_a_level_that_ptq_keeps_ends_training_before_it_begins(calibrated, whole, tmp_path):
    student = job(calibrated, bounds=Bounds(min_sqnr_db=whole[0][0] - 0.1))
    before = weights(student)
    made = run(student, tmp_path)
    assert made.steps == made.best_step == 0
    np.testing.assert_array_equal(weights(student), before)


def test_a_level_that_is_never_kept_says_the_best_and_a_lower_one_takes_that(calibrated, whole):
    levels, folder, caught = whole
    best = max(levels)
    error = caught.value
    assert f"after 12 steps the model keeps {best:.2f} dB, less than `min_sqnr_db=500`" in str(
        error
    )
    assert f"of step {4 * levels.index(best)}" in error.what and "`resume=True`" in error.fix
    again = run(job(calibrated, bounds=Bounds(min_sqnr_db=best - 0.05)), folder, epochs=3)
    assert again.best_step == 4 * levels.index(best)
