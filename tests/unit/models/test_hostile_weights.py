"""Weights that would be far larger in memory than they are, or lie elsewhere, are refused."""

import json
import os
import pickle
import zipfile

import pytest
import torch

from vitedge.core import torch_file
from vitedge.core.errors import InputError
from vitedge.models.sources import model_folder
from vitedge.models.sources.checkpoints import read_tensors


def refusal(path):
    with pytest.raises(InputError, match=path.name) as caught:
        read_tensors(path)
    assert caught.value.fix
    return caught.value.what


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before torch 1.6"])
def test_what_torch_saves_is_read(tmp_path, new):
    path = tmp_path / "w.pt"
    shared = torch.ones(8, 8)
    state = {"a": shared, "tied": shared, "column": shared[:, 0], "one": torch.tensor(1)}
    torch.save({"state_dict": state, "epoch": 3}, path, _use_new_zipfile_serialization=new)
    assert read_tensors(path).keys() == state.keys()


def test_one_number_spread_over_a_terabyte_is_refused(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"a": torch.ones(1).expand(2**20, 2**20)}, path)
    assert "4194304 MiB" in refusal(path)


def test_a_member_that_inflates_is_refused(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"a": torch.ones(4)}, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data/bomb", b"\0" * 2**27)
    assert "MiB, of a file of" in refusal(path)


def test_tuples_that_hold_each_other_are_not_hashed(tmp_path):
    held = ("x", "y")
    for _ in range(60):
        held = (held, held)
    path = tmp_path / "w.pt"
    path.write_bytes(pickle.dumps([held], protocol=2))
    assert "tuples" in refusal(path)


def test_bytes_are_not_encoded_over_and_over(tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(b"\x80\x02c_codecs\nencode\nX\x03\x00\x00\x00abcX\x03\x00\x00\x00hex\x86R.")
    with pytest.raises(InputError, match="encodes bytes"):
        torch_file.check(path)


def test_a_pickle_of_megabytes_holds_no_names_and_shapes(tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(b"\x80\x02" + b"]0" * torch_file.PICKLE_BYTES + b"N.")
    assert "cannot be read as tensors only" in refusal(path)


@pytest.mark.parametrize("name", ["../w.safetensors", "/etc/passwd", "a/b.safetensors"])
def test_shards_lie_in_their_folder(tmp_path, name):
    index = {"metadata": {}, "weight_map": {"a": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="outside its folder"):
        model_folder.check(str(tmp_path))


def test_settings_are_files_within_bounds(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "vit", "layer_norm_eps": float("inf")}))
    (tmp_path / "tokenizer.json").write_bytes(b"[" * 2**25)
    model_folder.check(str(tmp_path))
    path.write_bytes(b"[" * 200_000)
    with pytest.raises(InputError, match=r"config\.json"):
        model_folder.check(str(tmp_path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="no regular file"):
        model_folder.check(str(tmp_path))


def test_what_is_no_folder_is_its_librarys_to_refuse():
    model_folder.check("no such/folder/anywhere")
