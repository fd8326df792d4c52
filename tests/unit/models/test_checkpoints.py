"""Weights files are data: nothing in one is run, and none that is damaged is used."""

import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vitedge.core.errors import InputError
from vitedge.models.sources import checkpoints

WEIGHT = torch.arange(6, dtype=torch.float32).view(2, 3)
STATE = {"weight": WEIGHT, "bias": torch.tensor([0.5, -0.5])}


def refusal(path):
    with pytest.raises(InputError) as caught:
        checkpoints.read(path)
    assert str(path) in caught.value.what
    assert caught.value.fix
    return caught.value


def assert_same(state):
    assert set(state) == set(STATE)
    for name, tensor in STATE.items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)


def write(path, state=STATE):
    """In the format of the suffix."""
    if path.suffix == ".safetensors":
        save_file(state, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})
    else:
        torch.save(state, path)
    return path


# -- what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_a_file_is_read(tmp_path, suffix):
    assert_same(checkpoints.read(write(tmp_path / f"w.{suffix}")))


@pytest.mark.parametrize("suffix", ["pt", "pth"])
@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE},
        {"model_ema": STATE, "epoch": 3},
        {"model": STATE, "model_ema": {"weight": WEIGHT + 1}},
        {"model": {"state_dict": STATE}},
    ],
    ids=["bare", "state_dict", "model", "average", "model and average", "nested"],
)
def test_a_state_dict_is_found_where_training_scripts_keep_it(tmp_path, suffix, content):
    path = tmp_path / f"w.{suffix}"
    torch.save(content, path)
    if content == {"model": {"state_dict": STATE}}:
        refusal(path)  # nobody writes this; it is refused, not guessed at
    else:
        assert_same(checkpoints.read(path))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_training_puts_before_every_name_is_dropped(tmp_path, prefix):
    path = tmp_path / "w.pt"
    torch.save({prefix + name: tensor for name, tensor in STATE.items()}, path)
    assert_same(checkpoints.read(path))
    torch.save({prefix + "weight": WEIGHT, "bias": STATE["bias"]}, path)
    assert set(checkpoints.read(path)) == {prefix + "weight", "bias"}


def test_the_digest_is_of_the_tensors_and_not_of_their_file(tmp_path):
    torch.save({"model": dict(reversed(STATE.items()))}, tmp_path / "w.pt")
    reordered = checkpoints.digest(checkpoints.read(tmp_path / "w.pt"))
    stored = checkpoints.digest(checkpoints.read(write(tmp_path / "w.safetensors")))
    assert reordered == stored
    assert checkpoints.digest({**STATE, "bias": torch.tensor([0.5, 0.5])}) != reordered
    assert checkpoints.digest({**STATE, "weight": WEIGHT.view(3, 2)}) != reordered


# -- what is refused ----------------------------------------------------------------------------


class Payload:
    """Unpickling this writes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch {self.marker}",))


def torch_zip(content, path):
    torch.save(content, path)


def torch_legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def plain_pickle(content, path):
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("save", [torch_zip, torch_legacy, plain_pickle])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, save):
    marker, path = tmp_path / "executed", tmp_path / "evil.pt"
    save({**STATE, "payload": Payload(marker)}, path)
    assert "safetensors" in refusal(path).fix
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()  # it would have worked


@pytest.mark.parametrize("save", [np.savez, plain_pickle], ids=["object array", "pickle"])
def test_code_in_an_npz_is_refused_and_not_run(tmp_path, save):
    marker, path = tmp_path / "executed", tmp_path / "evil.npz"
    payload = np.array([Payload(marker)], dtype=object)
    save(path, payload) if save is np.savez else save(payload, path)
    assert "never unpickles" in refusal(path).fix
    assert not marker.exists()
    np.load(path, allow_pickle=True)["arr_0" if save is np.savez else 0]
    assert marker.exists()  # it would have worked


def test_an_npz_that_is_not_weights_is_refused(tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, weight=np.array(["text"]))
    refusal(path)
    with path.open("wb") as file:
        np.save(file, WEIGHT.numpy())  # one array, unnamed
    refusal(path)


def test_a_whole_pickled_model_is_refused(tmp_path):
    torch.save(torch.nn.Linear(3, 2), tmp_path / "model.pt")
    assert "state_dict" in refusal(tmp_path / "model.pt").fix


@pytest.mark.parametrize(
    "content",
    [
        *({"lr": 0.1}, [WEIGHT], WEIGHT, {"model": {"lr": 3}}, {1: WEIGHT}),
        {"weight": torch.eye(3).to_sparse()},
    ],
    ids=str,
)
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    assert "no state dict" in refusal(tmp_path / "w.pt").what


@pytest.mark.parametrize("keep", [0, 4, 20, -1, -20])
@pytest.mark.parametrize("suffix", ["safetensors", "pt", "npz"])
def test_a_truncated_file_is_refused(tmp_path, suffix, keep):
    path = tmp_path / f"w.{suffix}"
    write(path)
    path.write_bytes(path.read_bytes()[:keep])
    refusal(path)


@pytest.mark.parametrize("size", [2**63, 2**40, 7])
def test_a_safetensors_header_that_lies_about_its_size_is_refused(tmp_path, size):
    path = write(tmp_path / "w.safetensors")
    path.write_bytes(size.to_bytes(8, "little") + path.read_bytes()[8:])
    refusal(path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("suffix", ["safetensors", "pt", "npz"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_nan_and_infinity_are_refused_by_the_tensors_name(tmp_path, bad, suffix, dtype):
    if suffix == "npz" and dtype is torch.bfloat16:
        pytest.skip("numpy has no bfloat16")
    state = {**STATE, "bias": torch.tensor([0.5, bad], dtype=dtype)}
    path = write(tmp_path / f"w.{suffix}", state)
    assert "'bias' holds NaN or infinity" in refusal(path).what


def test_a_bound_may_be_infinite_by_itself_and_a_weight_not():
    checkpoints.require_finite({"clamp.max": torch.tensor(torch.inf)}, "Gemma 4")
    for damaged in (torch.tensor(torch.nan), torch.tensor([torch.inf])):
        with pytest.raises(InputError, match="holds NaN or infinity"):
            checkpoints.require_finite({"scale": damaged}, "any model")


def test_no_file_at_all_is_refused(tmp_path):
    assert "no weights file" in refusal(tmp_path / "w.pt").what
    assert "no weights file" in refusal(tmp_path).what


# -- what fits ----------------------------------------------------------------------------------


def test_weights_that_fit_are_loaded(tmp_path):
    model = torch.nn.Linear(3, 2)
    checkpoints.load_into(model, STATE, tmp_path)
    assert_same(model.state_dict())


@pytest.mark.parametrize(
    ("state", "listed"),
    [
        ({"weight": WEIGHT}, "1 missing (bias)"),
        ({**STATE, "extra": WEIGHT}, "1 unexpected (extra)"),
        ({**STATE, "weight": WEIGHT.T}, "1 misshaped (weight (3, 2), not (2, 3))"),
        ({f"x{i}": WEIGHT for i in range(7)}, "7 unexpected (x0, x1, x2, x3, x4, …)"),
    ],
    ids=["missing", "extra", "misshaped", "many"],
)
def test_weights_that_do_not_fit_are_listed(tmp_path, state, listed):
    model = torch.nn.Linear(3, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError) as caught:
        checkpoints.load_into(model, state, tmp_path / "w.pt")
    assert listed in caught.value.what and "w.pt" in caught.value.what
    assert caught.value.fix
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])  # none of it was loaded
