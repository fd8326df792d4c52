"""`vitedge inspect MODEL`: what a model is before any export, with no weights at hand."""

from __future__ import annotations

import json
import os

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper, parser
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


def onnx_file(path, side=0):
    """Convolution, an erf GELU, and a Linear: (B, 3, side, side) float32 -> (B, 5) logits."""
    size = f"{side}, {side}" if side else "h, w"
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]>'
        f"g (float[N, 3, {size}] x) => (float[N, 5] logits) {{"
        "c = Conv <strides = [4, 4]> (x, k) s = Div(c, root) e = Erf(s) p = Add(e, single)"
        "m = Mul(c, p) a = Mul(m, half) v = GlobalAveragePool(a) f = Flatten(v)"
        "t = Transpose <perm = [1, 0]> (w) logits = MatMul(f, t) }"
    )
    rng = np.random.default_rng(0)
    stored = {
        "k": rng.standard_normal((8, 3, 4, 4)).astype(np.float32),
        "w": rng.standard_normal((5, 8)).astype(np.float32),
        **{"root": np.float32(2**0.5), "single": np.float32(1), "half": np.float32(0.5)},
    }
    tensors = [numpy_helper.from_array(np.asarray(v), name) for name, v in stored.items()]
    model.graph.initializer.extend(tensors)
    onnx.save(model, path)
    return path


def test_open_sizes_are_bound_or_leave_shares_unsaid(vitedge, tmp_path):
    path = onnx_file(tmp_path / "open.onnx")
    found = vitedge("inspect", path, "--json").document
    assert {share["macs_share"] for share in found["model"]["targets"]} == {None}
    assert "leaves the size" in found["model"]["missing"][0]["what"] and found["notes"]
    sized = ("inspect", path, "--height", "32", "--width", "16", "--json")
    found = vitedge(*sized).document
    assert found["model"]["inputs"][0]["shape"] == ["batch", 3, 32, 16]
    assert found["model"]["macs"] == 8 * 8 * 4 * 48 + 8 * 5 and found["notes"] == []
    (lack,) = found["model"]["missing"]
    assert "does not say how they are made" in lack["what"]
    assert found["model"]["classes"] == 5 and found["model"]["preprocess"] is None
    spec = tmp_path / "pixels.toml"
    spec.write_text("height = 32\nwidth = 16\n")
    found = vitedge("inspect", path, "--preprocess", spec, "--json").document
    assert found["model"]["missing"] == [] and found["model"]["macs"] > 0


def test_the_plan_of_a_file_is_that_of_its_export(vitedge, tmp_path):
    path = onnx_file(tmp_path / "old.onnx", 32)
    spec = ve.Preprocess(height=32, width=32)
    (_, int8) = ve.export(
        str(path),
        targets=["openvino-cpu"],
        precision="int8",
        preprocess=spec,
        calib_data="random",
        num_samples=8,
        duration_s=0,
        output=tmp_path,
    )
    planned = ve.inspect(path, target="openvino-cpu", preprocess=spec)
    did = ve.inspect(int8.bundle)
    for key in ("node", "op", "role", "quantized", "why", "macs"):
        assert [getattr(x, key) for x in planned.layers] == [getattr(x, key) for x in did.layers]
    assert planned.layers[1].role == "linear" and planned.notes == ()
    loaded = ve.load(path, preprocess=spec)
    assert ve.inspect(loaded, target="openvino-cpu").layers == planned.layers


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--arch", "x"], "--arch does not apply"),
        (["--weights", "x.pt"], "--weights does not apply"),
        (["--preprocess", "nosuch.toml"], "nosuch.toml"),
        (["--preprocess", "small.toml"], "takes 32×32 pixels"),
        (["--task", "segmentation"], "segmentation"),
        (["--height", "64"], "takes 32×32 pixels"),
        (["--model-output", "nothing"], "nothing"),
    ],
)
def test_what_does_not_go_with_a_file_is_refused_as_by_its_export(
    vitedge, tmp_path, arguments, says
):
    (tmp_path / "small.toml").write_text("height = 16\nwidth = 16\n")
    onnx_file(tmp_path / "m.onnx", 32)
    ran = vitedge("inspect", "m.onnx", *arguments, code=2, cwd=tmp_path)
    assert ran.stdout == "" and ran.stderr.startswith("error: ") and says in ran.stderr
