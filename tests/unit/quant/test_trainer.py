"""The loop: what accumulates, averages and is resumed ends where it should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from accelerate import Accelerator

from vitedge.core import catalog
from vitedge.core.errors import InputError
from vitedge.core.machine import describe_machine
from vitedge.core.progress import SILENT
from vitedge.core.spec import Training
from vitedge.data.open import open_images
from vitedge.models.zoo import ZOO
from vitedge.quant.calibrate import calibrate
from vitedge.quant.parameters import Calibrated
from vitedge.quant.placement import Placement
from vitedge.quant.qat import team
from vitedge.quant.qat.checkpoint import LogListener, no_listener
from vitedge.quant.qat.network import Network
from vitedge.quant.qat.trainer import TrainingJob, TrainingRun, train
from vitedge.quant.qdq import quantizers

DIGITS = ZOO["digits"]
RECIPE = msgspec.structs.replace(catalog.find_calibration("default"), weight_bits=4)
TARGET = catalog.targets()["onnxruntime-cpu"].quantization
HOW = Training(epochs=2, batch_size=16, learning_rate=1e-4, floats="fp32")


@pytest.fixture(scope="module")
def calibrated(digits_graph, calibration_batches) -> Calibrated:
    batches = iter(calibration_batches(8, 1))
    return calibrate(digits_graph(1).path, batches, RECIPE, TARGET, lambda *step: None)[0]


def job(calibrated: Calibrated) -> TrainingJob:
    placed, scales = quantizers(calibrated)
    tensors = {name: torch.from_numpy(scale) for name, scale in scales.items()}
    return TrainingJob(
        student=Network(calibrated.path, placed, tensors, "fp32", learned=True),
        teacher=Network(calibrated.path, Placement(), {}, "fp32", learned=False),
        images=open_images("digits", "calibration", DIGITS.preprocess, DIGITS.labels),
        training=list(range(64)),
        held_out=list(range(64, 96)),
        task="classification",
        fingerprint={"the run": "1"},
    )


def weights_only(calibrated: Calibrated) -> TrainingJob:
    """A job whose student has float activations."""
    placed, scales = quantizers(calibrated)
    reads = {
        node: {index: name for index, name in inputs.items() if name in placed.weights}
        for node, inputs in placed.reads.items()
    }
    tensors = {name: torch.from_numpy(scale) for name, scale in scales.items()}
    student = Network(
        calibrated.path, Placement({}, placed.weights, reads), tensors, "fp32", learned=True
    )
    return replace(job(calibrated), student=student)


def run(
    made: TrainingJob, how: Training, folder: Path, listener: LogListener = no_listener
) -> TrainingRun:
    folder.mkdir(exist_ok=True)
    return train(made, how, folder, Accelerator(cpu=True), SILENT, listener)


def losses(done: TrainingRun) -> list[float]:
    return [line["loss"] for line in done.log if "loss" in line]


def looks(done: TrainingRun) -> list[float]:
    return [line["held_out"]["loss"] for line in done.log if "held_out" in line]


def weights(made: TrainingJob) -> np.ndarray:
    found = made.student.trained_weights().values()
    return np.concatenate([each.reshape(-1) for each in found])


def test_accumulated_gradients_are_those_of_the_whole_batch(calibrated, tmp_path) -> None:
    """With float activations: between two steps of INT8 the last bit of a sum decides, and the
    CPU sums 16 images in another order than 4.
    """
    whole = run(weights_only(calibrated), HOW, tmp_path / "whole")
    how = msgspec.structs.replace(HOW, accumulate=4)
    parts = run(weights_only(calibrated), how, tmp_path / "parts")
    np.testing.assert_allclose(losses(parts)[0], losses(whole)[0], rtol=1e-4)
    np.testing.assert_allclose(losses(parts), losses(whole), rtol=0.2)
    assert whole.steps == 8


def test_frozen_scales_stay_those_of_ptq(calibrated, tmp_path) -> None:
    made = job(calibrated)
    placed, scales = quantizers(calibrated)
    frozen = Network(
        calibrated.path,
        placed,
        {name: torch.from_numpy(scale) for name, scale in scales.items()},
        "fp32",
        learned=False,
    )
    before = weights(made)
    made = replace(made, student=frozen)
    run(made, msgspec.structs.replace(HOW, scales="frozen"), tmp_path)
    assert frozen.activation_scales() == {n: float(a.scale) for n, a in placed.activations.items()}
    for name, scale in frozen.weight_scales().items():
        np.testing.assert_array_equal(scale, scales[name])
    assert (weights(made) != before).any()


def test_the_moving_average_is_what_is_kept_and_survives_a_stop(calibrated, tmp_path) -> None:
    how = msgspec.structs.replace(HOW, ema=0.9)
    plain, averaged = job(calibrated), job(calibrated)
    start = weights(plain)
    run(plain, HOW, tmp_path / "plain")
    run(averaged, how, tmp_path / "averaged")
    moved = [np.abs(weights(each) - start).mean() for each in (plain, averaged)]
    assert 0 < moved[1] < 0.8 * moved[0]

    class Stopped(Exception): ...

    def stop(step: str, done: float, total: float, note: str = "") -> None:
        if done == 6:
            raise Stopped

    stopped = tmp_path / "stopped"
    stopped.mkdir()
    with pytest.raises(Stopped):
        train(job(calibrated), how, stopped, Accelerator(cpu=True), stop, no_listener)
    resumed, told = job(calibrated), []
    done = run(resumed, how, stopped, told.append)
    assert told == done.log and len(losses(done)) == 8
    np.testing.assert_array_equal(weights(resumed), weights(averaged))


def test_training_that_makes_nothing_better_leaves_what_ptq_gave(calibrated, tmp_path) -> None:
    made = job(calibrated)
    before = weights(made)
    done = run(made, msgspec.structs.replace(HOW, learning_rate=0.1), tmp_path)
    assert done.best_step == 0
    np.testing.assert_array_equal(weights(made), before)


def test_a_run_writes_a_line_for_every_step(calibrated, tmp_path) -> None:
    done = run(job(calibrated), HOW, tmp_path)
    assert [line["step"] for line in done.log if "loss" in line] == list(range(1, 9))
    assert [line["step"] for line in done.log if "held_out" in line] == [0, 4, 8]
    rates = [line["learning_rate"] for line in done.log if "loss" in line]
    assert rates[0] == max(rates) == HOW.learning_rate


def test_a_loss_that_is_no_number_stops_at_its_step_and_can_be_gone_on_from(
    calibrated, tmp_path
) -> None:
    how = msgspec.structs.replace(HOW, learning_rate=1e30)
    with pytest.raises(InputError, match="at step 2: training has stopped") as stopped:
        run(job(calibrated), how, tmp_path)
    assert "--resume and a lower --learning-rate" in stopped.value.fix
    done = run(job(calibrated), HOW, tmp_path)
    assert len(losses(done)) == done.steps == 8


def test_a_loss_that_is_no_number_from_the_start_is_told_as_such(calibrated, tmp_path) -> None:
    made = job(calibrated)
    with torch.no_grad():
        next(made.teacher.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match="nan at step 0, before any training") as stopped:
        run(made, HOW, tmp_path)
    assert "vitedge export --int8" in stopped.value.fix


def test_bf16_steps_make_it_better_and_are_measured_in_float32(calibrated, tmp_path) -> None:
    few = {"training": list(range(8)), "held_out": list(range(64, 72))}
    how = msgspec.structs.replace(HOW, epochs=1, batch_size=4, learning_rate=3e-5)
    made = replace(job(calibrated), **few)
    exact = run(replace(job(calibrated), **few), how, tmp_path / "fp32")
    done = run(made, msgspec.structs.replace(how, floats="bf16"), tmp_path / "bf16")
    assert looks(done)[0] == looks(exact)[0]
    assert 0 < abs(losses(done)[0] - losses(exact)[0]) < 0.3 * losses(exact)[0]
    assert looks(done)[-1] < 0.9 * looks(done)[0]
    assert {each.dtype for each in made.student.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("isa", "wanted"),
    [
        (None, False),
        (("avx2",), False),
        (("avx2", "avx512f", "avx512_vnni"), False),
        (("avx2", "avx512f", "avx512_bf16"), True),
        (("avx2", "amx_int8"), True),
    ],
)
def test_auto_is_bf16_where_the_cpu_multiplies_in_it(monkeypatch, isa, wanted) -> None:
    machine = msgspec.structs.replace(describe_machine(threads=0), isa=isa)
    monkeypatch.setattr(team, "describe_machine", lambda threads: machine)
    assert team.bf16(Training(), torch.device("cpu")) == wanted


def test_features_have_no_accuracy(calibrated, tmp_path) -> None:
    made = replace(job(calibrated), task="features", training=list(range(16)))
    done = run(made, msgspec.structs.replace(HOW, epochs=1), tmp_path)
    assert [line["held_out"]["accuracy"] for line in done.log if "held_out" in line] == [None, None]
