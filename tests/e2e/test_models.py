"""Models a user brings, typed as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images

from tests.support import machine
from vitedge.core.bundle import open_bundle
from vitedge.models.zoo import ZOO
from vitedge.models.zoo.vit import VisionTransformer

TARGETS = [word for name in machine.TARGETS.values() for word in ("--target", name)]
CLASSES = ("cat", "dog", "newt")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """24 crops of two real photographs, with labels and with masks that follow their colours."""
    rng = np.random.default_rng(0)
    crops = []
    for index in range(24):
        photograph = load_sample_images().images[index % 2]
        top, left = rng.integers(0, 427 - 96), rng.integers(0, 640 - 96)
        crops.append(photograph[top : top + 96, left : left + 96])
    images = np.stack(crops)
    masks = images.astype(int).argmax(axis=-1)
    path = tmp_path_factory.mktemp("photographs") / "photographs.npz"
    np.savez(path, images=images, labels=np.arange(24) % 3, masks=masks)
    return path


def segmenter(path):
    """An ONNX file that takes normalised pixels and gives logits (B, 3, 16, 16): the colours."""
    rng = np.random.default_rng(0)
    weights = np.eye(3, dtype=np.float32)[:, :, None, None] + np.zeros((1, 1, 4, 4), np.float32)
    weights += rng.normal(scale=0.01, size=weights.shape)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["pixels", "w"], ["logits"], "colours", strides=[4, 4])],
        "segmenter",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 64, 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


@pytest.mark.usefixtures("peers")
def test_a_transformers_folder_to_proven_int8(tmp_path, vitedge, photographs):
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=192,
        image_size=64,
        id2label=dict(enumerate(CLASSES)),
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "pets")
    size = {"height": 64, "width": 64}
    transformers.ViTImageProcessor(size=size).save_pretrained(tmp_path / "pets")
    data = ("--calib-data", photographs, "--eval-data", photographs, "--allow-overlap")
    said = vitedge(
        *("export", f"hf:{tmp_path / 'pets'}", *TARGETS, "--int8", *data, "--num-samples", 8),
        *("--output", tmp_path / "out", "--duration", 0, "--json"),
    )
    for made in said.document["artifacts"]:
        bundle = open_bundle(Path(made["path"]))
        assert bundle.labels() == CLASSES
        assert bundle.manifest.name.startswith("pets-")
        assert bundle.manifest.preprocessing.host.interpolation == "bilinear"
        assert made["report"]["accuracy"]["metric"] == "top1"
        assert made["report"]["accuracy"]["n"] == 24
    assert made["report"]["numerics"]["sqnr_db"] > 20


def test_segmentation_is_exported_validated_and_timed(tmp_path, vitedge, photographs, openvino):
    model, settings = segmenter(tmp_path / "colours.onnx"), tmp_path / "mine.toml"
    settings.write_text('height = 64\nwidth = 64\nresize = "exact"\n')
    vitedge(
        *("export", model, "--preprocess", settings, "--target", openvino, "--int8"),
        *("--calib-data", photographs, "--num-samples", 8, "--output", tmp_path / "out"),
        *("--duration", 0),
    )
    int8 = tmp_path / "out" / f"colours-{openvino}-int8"
    assert open_bundle(int8).manifest.model.task == "segmentation"
    table = vitedge("validate", int8, "--data", photographs, "--allow-overlap").stdout
    assert "mIoU" in table
    vitedge("bench", int8, "--duration", 0.3, "--json")
    report = json.loads((int8 / "report.json").read_text())
    accuracy = report["accuracy"]
    assert (accuracy["metric"], accuracy["n"]) == ("miou", 24)
    assert accuracy["fp32"] > 0.5
    assert abs(accuracy["drop_pp"]) < 3
    assert accuracy["also"]["pixel_accuracy"]["fp32"] > 0.7
    assert report["latency"]["speedup"] > 0


def test_features_are_exported_validated_and_timed(tmp_path, vitedge, photographs, openvino):
    torch.manual_seed(0)
    state = VisionTransformer(ZOO["digits"].config).state_dict()
    save_file(state, tmp_path / "mine.safetensors")
    vitedge(
        *("export", tmp_path / "mine.safetensors", "--arch", "digits", "--task", "features"),
        *("--target", openvino, "--int8", "--calib-data", photographs),
        *("--num-samples", 8, "--output", tmp_path / "out", "--duration", 0),
    )
    int8 = tmp_path / "out" / f"mine-{openvino}-int8"
    assert "k-NN" in vitedge("validate", int8, "--data", photographs, "--allow-overlap").stdout
    vitedge("bench", int8, "--duration", 0.3, "--json")
    report = json.loads((int8 / "report.json").read_text())
    assert report["accuracy"]["metric"] == "knn_agreement"
    assert 0.5 < report["accuracy"]["artifact"] <= 1
    assert report["numerics"]["cosine"] > 0.99
    assert open_bundle(int8).manifest.model.num_classes == 0


def test_a_model_that_is_no_vit_works_and_says_what_was_skipped(tmp_path, vitedge):
    said = vitedge(
        *("export", "resnet18", "--random-weights", "--target", "openvino-cpu", "--int8"),
        *("--calib-data", "random", "--num-samples", 2, "--calibration", "fast"),
        *("--output", tmp_path, "--duration", 0),
    )
    assert "no attention was found" in said.stderr
    assert open_bundle(tmp_path / "resnet18-openvino-cpu-int8").manifest.quantization


def test_operators_the_target_has_no_int8_for_are_named(tmp_path, vitedge):
    said = vitedge(
        *("export", "resnet18", "--random-weights", "--target", "onnxruntime-cpu", "--int8"),
        *("--calib-data", "random", "--num-samples", 2, "--output", tmp_path),
        code=2,
    )
    assert "Conv, Gemm" in said.stderr and "MatMul" in said.stderr
    assert not list(tmp_path.iterdir())


def test_the_nearest_arch_by_shape_is_named(tmp_path, vitedge):
    torch.manual_seed(0)
    state = VisionTransformer(ZOO["vit_tiny_patch16_224"].config).state_dict()
    save_file(state, tmp_path / "mine.safetensors")
    export = ("export", tmp_path / "mine.safetensors", "--target", "openvino-cpu")
    for arch in ((), ("--arch", "vit_small_patch16_224")):
        said = vitedge(*export, *arch, "--output", tmp_path / "out", code=2).stderr
        assert "vit_tiny_patch16_224" in said
    assert "misshaped" in said


@pytest.mark.usefixtures("peers")
@pytest.mark.parametrize("source", ["timm:vit_tiny_patch16_224", "hf:google/vit-base-patch16-224"])
def test_weights_out_of_reach_say_so_at_once(tmp_path, vitedge, source):
    said = vitedge(
        *("export", source, "--target", "openvino-cpu", "--output", tmp_path / "out"),
        code=3,
    )
    assert source in said.stderr and "--random-weights" in said.stderr


def test_every_model_has_a_card(vitedge):
    cards = vitedge("models", "list", "--json").document
    assert {"digits", "shapes", "vit_base_patch16_384", "vt_fpn_resnet50"} <= {
        card["name"] for card in cards
    }
    for card in cards:
        assert set(card) == {
            *("name", "params", "macs", "input_size", "num_classes", "task", "paper")
        }
    assert vitedge("models", "show", "vt_resnet50", "--json").document in cards


def test_the_embedded_segmentation_model_needs_no_flags(tmp_path, vitedge, openvino):
    said = vitedge(
        *("export", "shapes", "--target", openvino, "--int8", "--output", tmp_path),
        *("--calibration", "fast", "--duration", 0, "--json"),
    )
    fp32, int8 = (made["report"]["accuracy"] for made in said.document["artifacts"])
    assert (int8["metric"], int8["n"], int8["data"]) == ("miou", 400, "shapes")
    assert fp32["artifact"] > 0.85
    assert int8["drop_pp"] < 0.5
    assert open_bundle(tmp_path / f"shapes-{openvino}-int8").labels()[0] == "background"
