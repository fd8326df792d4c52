"""Models a user brings, typed as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper, parser
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
    corners = np.random.default_rng(0).integers(0, (427 - 96, 640 - 96), (24, 2))
    originals = load_sample_images().images
    crops = [
        originals[index % 2][top : top + 96, left : left + 96]
        for index, (top, left) in enumerate(corners)
    ]
    images = np.stack(crops)
    masks = images.astype(int).argmax(axis=-1)
    path = tmp_path_factory.mktemp("photographs") / "photographs.npz"
    np.savez(path, images=images, labels=np.arange(24) % 3, masks=masks)
    return path


def segmenter(path):
    """An ONNX file that takes normalised pixels and gives logits (B, 3, 16, 16): the colours."""
    noise = np.random.default_rng(0).normal(scale=0.01, size=(3, 3, 4, 4))
    weights = (np.eye(3)[:, :, None, None] + noise).astype(np.float32)
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> segmenter (float[batch, 3, 64, 64] pixels)'
        " => (float[batch, 3, 16, 16] logits) { logits = Conv <strides = [4, 4]> (pixels, w) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    onnx.save(model, path)
    return path


@pytest.mark.usefixtures("peers")
def test_a_transformers_folder_to_proven_int8(tmp_path, vitedge, photographs):
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        **{"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3},
        **{"intermediate_size": 192, "image_size": 64, "id2label": dict(enumerate(CLASSES))},
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


def checkpoint(folder, name):
    """Random weights of a ViT of ours."""
    torch.manual_seed(0)
    save_file(VisionTransformer(ZOO[name].config).state_dict(), folder / "mine.safetensors")
    return folder / "mine.safetensors"


def proven(vitedge, model, photographs, openvino, *flags):
    """Its INT8 bundle, what validating that prints, and its report when it was timed, too."""
    output = model.with_name("out")
    vitedge(
        *("export", model, "--target", openvino, "--int8", "--calib-data", photographs, *flags),
        *("--num-samples", 8, "--output", output, "--duration", 0),
    )
    int8 = output / f"{model.stem}-{openvino}-int8"
    table = vitedge("validate", int8, "--data", photographs, "--allow-overlap").stdout
    vitedge("bench", int8, "--duration", 0.3, "--json")
    return open_bundle(int8), table, json.loads((int8 / "report.json").read_text())


def test_segmentation_is_exported_validated_and_timed(tmp_path, vitedge, photographs, openvino):
    model, settings = segmenter(tmp_path / "colours.onnx"), tmp_path / "mine.toml"
    settings.write_text('height = 64\nwidth = 64\nresize = "exact"\n')
    bundle, table, report = proven(vitedge, model, photographs, openvino, "--preprocess", settings)
    assert bundle.manifest.model.task == "segmentation"
    assert "mIoU" in table
    accuracy = report["accuracy"]
    assert (accuracy["metric"], accuracy["n"]) == ("miou", 24)
    assert accuracy["fp32"] > 0.5
    assert abs(accuracy["drop_pp"]) < 3
    assert accuracy["also"]["pixel_accuracy"]["fp32"] > 0.7
    assert report["latency"]["speedup"] > 0


def test_features_are_exported_validated_and_timed(tmp_path, vitedge, photographs, openvino):
    model = checkpoint(tmp_path, "digits")
    bundle, table, report = proven(
        *(vitedge, model, photographs, openvino), *("--arch", "digits", "--task", "features")
    )
    assert "k-NN" in table
    assert report["accuracy"]["metric"] == "knn_agreement"
    assert 0.5 < report["accuracy"]["artifact"] <= 1
    assert report["numerics"]["cosine"] > 0.99
    assert bundle.manifest.model.num_classes == 0


RESNET18 = ("export", "resnet18", "--random-weights", "--int8", "--calib-data", "random")


def test_a_model_that_is_no_vit_works_and_says_what_was_skipped(tmp_path, vitedge):
    said = vitedge(
        *(*RESNET18, "--target", "openvino-cpu", "--num-samples", 2, "--calibration", "fast"),
        *("--output", tmp_path, "--duration", 0),
    )
    assert "no attention was found" in said.stderr
    assert open_bundle(tmp_path / "resnet18-openvino-cpu-int8").manifest.quantization


def test_what_the_target_multiplies_in_float_is_stored_in_int8(tmp_path, vitedge):
    flags = ("--target", "onnxruntime-cpu", "--num-samples", 2, "--calibration", "fast")
    vitedge(*RESNET18, *flags, "--output", tmp_path, "--duration", 0)
    bundles = [open_bundle(tmp_path / f"resnet18-onnxruntime-cpu-{x}") for x in ("fp32", "int8")]
    fp32, int8 = ((bundle.path / "model.onnx").stat().st_size for bundle in bundles)
    assert fp32 / int8 > 3.8
    layers = bundles[1].manifest.quantization.layers
    assert {(layer.op, layer.quantized, layer.stored) for layer in layers} == {
        ("Conv", False, True),
        ("Gemm", False, True),
    }
    assert all(layer.why.startswith("weights alone in INT8: ") for layer in layers)
    report = json.loads((bundles[1].path / "report.json").read_bytes())
    assert report["numerics"]["sqnr_db"] > 30


def test_the_nearest_arch_by_shape_is_named(tmp_path, vitedge):
    model = checkpoint(tmp_path, "vit_tiny_patch16_224")
    export = ("export", model, "--target", "openvino-cpu")
    for arch in ((), ("--arch", "vit_small_patch16_224")):
        said = vitedge(*export, *arch, "--output", tmp_path / "out", code=2).stderr
        assert "vit_tiny_patch16_224" in said
    assert "misshaped" in said


@pytest.mark.usefixtures("peers")
@pytest.mark.parametrize("source", ["timm:vit_tiny_patch16_224", "hf:google/vit-base-patch16-224"])
def test_weights_out_of_reach_say_so_at_once(tmp_path, vitedge, source):
    said = vitedge(
        *("export", source, "--target", "openvino-cpu", "--output", tmp_path / "out"), code=3
    )
    assert source in said.stderr and "--random-weights" in said.stderr


def test_every_model_has_a_card(vitedge):
    cards = vitedge("models", "list", "--json").document
    assert {"digits", "shapes", "shapes-detr", "vit_base_patch16_384", "detr_resnet50"} <= {
        card["name"] for card in cards
    }
    keys = {"name", "params", "macs", "input_size", "num_classes", "task", "paper"}
    assert all(set(card) == keys for card in cards)
    assert vitedge("models", "show", "vt_resnet50", "--json").document in cards


@pytest.mark.parametrize(
    ("model", "metric", "least", "first"),
    [
        ("shapes", "miou", 0.85, "background"),
        pytest.param("shapes-setr", "miou", 0.80, "background", marks=pytest.mark.heavy),
        pytest.param("shapes-detr", "map", 0.60, "circle", marks=pytest.mark.heavy),  # as the demo
    ],
)
def test_the_embedded_models_of_scenes_need_no_flags(
    tmp_path, vitedge, openvino, model, metric, least, first
):
    said = vitedge(
        *("export", model, "--target", openvino, "--int8", "--output", tmp_path),
        *("--calibration", "fast", "--duration", 0, "--json"),
    )
    artifacts = [made["report"]["accuracy"] for made in said.document["artifacts"]]
    fp32, int8 = artifacts[0], artifacts[-1]
    assert (int8["metric"], int8["n"], int8["data"]) == (metric, 400, "shapes")
    assert fp32["artifact"] >= least
    assert int8["drop_pp"] < 0.5
    assert open_bundle(tmp_path / f"{model}-{openvino}-int8").labels()[0] == first
