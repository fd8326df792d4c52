"""A checkpoint is there whole or not at all, and only for the run it is of."""

import json
import subprocess
import sys

import pytest
import torch

from vitedge.core.errors import InputError
from vitedge.quant.qat.checkpoint import Place, TrainingLog, no_listener, read, write

OF = {"the model": "1", "the training settings": "2"}
PLACE = Place(step=7, best_step=5, best_loss=0.25, of=OF)
TENSORS = {"weight": torch.arange(6.0).view(2, 3).T, "step": torch.tensor(7.0)}


def test_what_is_written_is_read_back(tmp_path):
    write(tmp_path / "last.safetensors", TENSORS, PLACE)
    place, tensors = read(tmp_path / "last.safetensors", OF)
    assert place == PLACE
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]


def test_another_runs_checkpoint_is_refused_by_what_differs(tmp_path):
    write(tmp_path / "last.safetensors", TENSORS, PLACE)
    with pytest.raises(InputError, match="of another run: the training settings differ"):
        read(tmp_path / "last.safetensors", {**OF, "the training settings": "3"})


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"", lambda b: b"\xff" * 99])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    path = tmp_path / "last.safetensors"
    write(path, TENSORS, PLACE)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="is not a whole safetensors file") as caught:
        read(path, OF)
    assert "start anew" in caught.value.fix


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    """The limit of a file's size stands for it: writing fails in the middle, as there."""
    path = tmp_path / "last.safetensors"
    write(path, TENSORS, PLACE)
    before = path.read_bytes()
    script = f"""
import resource, signal, sys
from pathlib import Path
import torch
from vitedge.core.errors import InputError
from vitedge.quant.qat.checkpoint import Place, write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
place = Place(step=9, best_step=9, best_loss=0.1, of={{}})
try:
    write(Path({str(path)!r}), {{"weight": torch.zeros(1 << 20)}}, place)
except InputError as error:
    print(error.what, "|", error.fix)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "of step 9" in ran.stdout and "the last one is kept" in ran.stdout, ran.stderr
    assert "`resume=True`" in ran.stdout
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_log_forgets_what_is_trained_again(tmp_path):
    path = tmp_path / "log.jsonl"
    log = TrainingLog(path, 0, no_listener)
    for step in range(1, 6):
        log.add(step=step, loss=1.0 / step)
    with path.open("a") as file:
        file.write('{"step": 6, "lo')  # killed in the middle of a line
    assert [line["step"] for line in TrainingLog(path, 3, no_listener).lines] == [1, 2, 3]
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]
    assert TrainingLog(path, 0, no_listener).lines == []
