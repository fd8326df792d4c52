"""`vitedge inspect MODEL`: what a model is before any export, with no weights at hand."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import vitedge as ve
from tests.support.machine import ONNXRUNTIME
from vitedge.core import catalog
from vitedge.models.sources.zoo_model import EMBEDDED_WEIGHTS
from vitedge.models.zoo.costs import COSTS

SMALL = ve.Preprocess(height=32, width=32, resize="exact")


def test_the_plan_is_what_the_export_did(vitedge, bundles):
    artifact = vitedge("inspect", bundles["onnxruntime", "int8"], "--json").document
    target = artifact["target"]
    ran = vitedge("inspect", "digits", "--target", target, "--json").document
    assert ran["planned"] and ran["target"] == target
    for key in ("node", "op", "role", "quantized", "why", "macs"):
        assert [x[key] for x in ran["layers"]] == [x[key] for x in artifact["layers"]]
    (share,) = ran["model"]["targets"]
    assert share["macs_share"] == artifact["summary"]["quantized_macs_share"]


def test_a_model_of_the_zoo_says_what_it_is_and_what_is_missing(vitedge, onnx_model):
    model = vitedge("inspect", "--json").document["model"]  # the embedded reference
    assert (model["source"], model["task"], model["classes"]) == ("digits", "classification", 10)
    assert (model["parameters"], model["macs"]) == COSTS["digits"]
    assert model["preprocess"]["height"] == 32 and model["missing"] == []
    (output,) = model["outputs"]
    assert (output["name"], output["shape"]) == ("logits", [1, 10])
    assert {share["target"] for share in model["targets"]} == {*catalog.targets()}
    file = vitedge("inspect", onnx_model, "--json").document["model"]
    assert file["macs"] == model["macs"] and file["targets"] == model["targets"]
    before = {"Cast": 1, "Transpose": 14, "Mul": 5, "Add": 26}  # preprocessing
    assert file["operators"] == {**model["operators"], **before}


def test_people_read_the_same(vitedge, onnx_model, tmp_path):
    page = tmp_path / "page.html"
    ran = vitedge("inspect", onnx_model, "--html", page)
    for text in ("0.03229 G", "onnxruntime-cpu", "16 of 26"):
        assert text in ran.stdout and text in page.read_text(encoding="utf-8")


def test_weights_of_a_file_are_not_read(vitedge, tmp_path):
    state = load_file(EMBEDDED_WEIGHTS["digits"])
    state["head.weight"], state["head.bias"] = torch.full((7, 96), torch.nan), torch.zeros(7)
    torch.save(state, tmp_path / "seven.pt")
    ran = vitedge("inspect", tmp_path / "seven.pt", "--arch", "digits", "--json").document
    assert ran["model"]["classes"] == 7 and ran["name"] == "seven"
    del state["norm.weight"]
    torch.save(state, tmp_path / "seven.pt")
    ran = vitedge("inspect", tmp_path / "seven.pt", "--arch", "digits", code=2)
    assert "1 missing (norm.weight)" in ran.stderr


class Gated(nn.Module):
    """A tensor that is no buffer, and so large a weight that no machine has the memory."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.gate = torch.ones(16, 1, 1)
        self.wide = nn.Linear(16, 2**40, device="meta")
        self.head = nn.Linear(16, 3)

    def forward(self, pixels):
        return self.head((self.patches(pixels) * self.gate).mean((2, 3)))


def test_a_module_in_memory_gives_up_nothing(capfd):
    module = Gated()
    before = module.head.weight
    found = ve.inspect(module, preprocess=SMALL)
    assert module.head.weight is before and not before.is_meta
    assert found.model.outputs[0].shape == (1, 3) and found.model.operators["Conv"] == 1
    with pytest.raises(ve.InputError, match="does not say how its images are made"):
        ve.inspect(module)
    loaded = ve.load(nn.Sequential(nn.Conv2d(3, 4, 32), nn.Flatten()), preprocess=SMALL)
    assert ve.inspect(loaded, target=ONNXRUNTIME).model.macs == 3 * 4 * 32 * 32
    assert not loaded.content[0].weight.is_meta and capfd.readouterr().out == ""


def test_a_folder_of_transformers_with_its_config_alone(vitedge, peers, tmp_path):
    import transformers

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTConfig(**small, intermediate_size=64, image_size=32, patch_size=8)
    config.architectures = ["ViTForImageClassification"]
    config.save_pretrained(tmp_path)
    ran = vitedge("inspect", f"hf:{tmp_path}", "--json").document["model"]
    assert [lack["what"].split()[0] for lack in ran["missing"]] == ["the", f"hf:{tmp_path}"]
    assert ran["preprocess"] is None and ran["task"] == "classification"
    assert ran["inputs"][0]["shape"] == [1, 3, 32, 32] and ran["outputs"][0]["shape"] == [1, 2]
    assert {share["operators"] for share in ran["targets"]} == {18}
    said = vitedge("inspect", tmp_path, code=2).stderr
    assert f"'hf:{tmp_path}'" in said
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Nothing"]}))
    assert "config.json" in vitedge("inspect", f"hf:{tmp_path}", code=2).stderr


@pytest.mark.parametrize(
    "name", ["timm:test_vit", pytest.param("torchvision:squeezenet1_1", marks=pytest.mark.heavy)]
)
def test_names_of_libraries_fetch_nothing(vitedge, peers, tmp_path, name):
    ran = vitedge("inspect", name, "--json", TORCH_HOME=str(tmp_path))
    model = ran.document["model"]
    assert "--weights FILE" in model["missing"][0]["fix"]
    assert "are not on this machine" in model["missing"][0]["what"]
    assert len(model["labels"]) == model["classes"] == 1000
    assert model["macs"] > 1e6 and os.listdir(tmp_path) == []


@pytest.mark.heavy
def test_a_vit_b_of_timm_takes_no_weights(vitedge, peers):
    model = vitedge("inspect", "timm:vit_base_patch16_224", "--json").document["model"]
    assert (model["parameters"], model["macs"]) == COSTS["vit_base_patch16_224"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("vit_tiny_patch16_225", "did you mean 'vit_tiny_patch16_224'"),
        ("artifacts/digits-onnxruntime-cpu-in8", "'artifacts/digits-onnxruntime-cpu-int8'"),
        ("timm:nothing_at_all", "timm has no model"),
        ("weights.safetensors", "no weights file"),
    ],
)
def test_what_is_no_model_says_what_is_near(vitedge, peers, small_bundle, tmp_path, source, says):
    small_bundle(tmp_path / "artifacts" / "digits-onnxruntime-cpu-int8")
    ran = vitedge("inspect", source, code=2, cwd=tmp_path)
    assert says in ran.stderr and ran.stdout == ""
