"""What TensorBoard shows of a run is its log, whatever was killed and resumed."""

import importlib.util

import pytest

from vitedge.core.errors import InputError, UnavailableError
from vitedge.quant.qat import tensorboard

HERE = importlib.util.find_spec("tensorboard") is not None
needs_package = pytest.mark.skipif(not HERE, reason="TensorBoard is not installed")


def line(step, loss):
    return {"step": step, "loss": loss, "learning_rate": 1e-5, "gradient_norm": 1.0}


def shown(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, round(event.value, 6)) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


@needs_package
def test_a_resumed_run_is_shown_as_one(tmp_path):
    folder = tmp_path / "run" / "events"
    with tensorboard.watching(folder) as listener:
        listener({"step": 0, "held_out": {"loss": 1.0, "accuracy": 0.5}})
        for step in range(1, 7):
            listener(line(step, 0.25 * step))
    with tensorboard.watching(folder) as listener:  # from the checkpoint of step 4
        listener({"step": 0, "held_out": {"loss": 1.0, "accuracy": 0.5}})
        for step in range(1, 5):
            listener(line(step, 0.25 * step))
        listener(line(5, 0.125))
        listener({"step": 5, "held_out": {"loss": 0.5, "accuracy": None}})
    curves = shown(folder)
    assert curves["loss"] == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0), (5, 0.125)]
    assert curves["held_out/loss"] == [(0, 1.0), (5, 0.5)]
    assert curves["held_out/accuracy"] == [(0, 0.5)]
    assert curves["learning_rate"] == [(step, 1e-5) for step in range(1, 6)]


@needs_package
def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "events").write_text("")
    refused = pytest.raises(InputError, match="cannot write TensorBoard's events")
    with refused, tensorboard.watching(tmp_path / "events"):
        pass


@pytest.mark.skipif(HERE, reason="TensorBoard is installed")
def test_without_its_package_the_package_is_named():
    with pytest.raises(UnavailableError, match="needs the package 'tensorboard'") as refused:
        tensorboard.check()
    assert refused.value.fix == "pip install 'vitedge[tensorboard]'"
