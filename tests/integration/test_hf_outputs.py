"""hf: what each head gives, by the library's own names, and models that one image does not do."""

import pytest
import torch

from tests.support.sweep import excluded
from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess
from vitedge.models.sources import ModelRequest, resolve

pytestmark = pytest.mark.usefixtures("peers")

VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 8,
}
CONVOLUTIONS = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
WINDOWS = {"embed_dim": 8, "window_size": 4, "image_size": 64}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
HEAD = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8}
SAM = {
    "vision_config": {**VIT, "output_channels": 16, "window_size": 4, "global_attn_indexes": [1]},
    "prompt_encoder_config": {"hidden_size": 16, "image_size": 64, "patch_size": 8},
    "mask_decoder_config": {"hidden_size": 16, "mlp_dim": 16, "iou_head_hidden_dim": 16},
}
NAFLEX = {key: value for key, value in VIT.items() if key != "image_size"}
QUERIES = {
    **{"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 5},
    **{"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "use_timm_backbone": False},
}


def config_of(name, settings):
    """A config of transformers, those in it too: `{"backbone_config": ("ResNetConfig", {…})}`."""
    import transformers

    made = {
        key: config_of(*value) if isinstance(value, tuple) else value
        for key, value in settings.items()
    }
    return getattr(transformers, name)(**made)


@pytest.fixture
def folder(tmp_path):
    """Write the config.json of an architecture, and its folder."""

    def write(architecture, config, **settings):
        made = config_of(config, settings)
        made.architectures = [architecture]
        made.save_pretrained(tmp_path)
        return tmp_path

    return write


def read(folder, size=(64, 64), **request):
    """The model of a folder, with random weights."""
    preprocess = Preprocess(height=size[0], width=size[1])
    request = ModelRequest(f"hf:{folder}", random_weights=True, preprocess=preprocess, **request)
    return resolve(request)


def shapes(model, size=(64, 64)):
    """Shapes of a model's outputs for one image, by name."""
    with torch.inference_mode():
        given = model.content(torch.rand(1, 3, *size))
    given = given if isinstance(given, tuple) else (given,)
    return {name: tuple(out.shape) for name, out in zip(model.outputs, given, strict=True)}


RESNET = ("ResNetConfig", {**CONVOLUTIONS, "out_features": ["stage1", "stage2"]})
HEADS = {
    "DetrForSegmentation": (
        *(
            "DetrConfig",
            {
                **QUERIES,
                "num_labels": 3,
                "backbone_config": (
                    "ResNetConfig",
                    {
                        "embedding_size": 8,
                        "hidden_sizes": [8, 8, 8, 16],
                        "depths": [1] * 4,
                        "out_features": STAGES,
                    },
                ),
            },
        ),
        *(
            "detection",
            {"logits": (1, 5, 4), "pred_boxes": (1, 5, 4), "pred_masks": (1, 5, 16, 16)},
        ),
    ),
    "EomtForUniversalSegmentation": (
        *("EomtConfig", {**VIT, "num_blocks": 1, "num_queries": 5, "num_upscale_blocks": 1}),
        "features",
        {"class_queries_logits": (1, 5, 3), "masks_queries_logits": (1, 5, 16, 16)},
    ),
    "DepthAnythingForDepthEstimation": (
        "DepthAnythingConfig",
        {
            "backbone_config": (
                "Dinov2Config",
                {**VIT, "out_features": STAGES, "reshape_hidden_states": False},
            ),
            **{**HEAD, "reassemble_hidden_size": 32, "head_hidden_size": 8, "patch_size": 8},
        },
        *("dense", {"predicted_depth": (1, 64, 64)}),
    ),
    "VitPoseForPoseEstimation": (
        "VitPoseConfig",
        {
            "backbone_config": (
                "VitPoseBackboneConfig",
                {**VIT, "image_size": [64, 64], "patch_size": [8, 8], "out_indices": [4]},
            ),
            "num_labels": 7,
        },
        *("dense", {"heatmaps": (1, 7, 32, 32)}),
    ),
    "ViTForMaskedImageModeling": (
        *("ViTConfig", {**VIT, "encoder_stride": 8}),
        *("dense", {"reconstruction": (1, 3, 64, 64)}),
    ),
    "Swin2SRForImageSuperResolution": (
        *("Swin2SRConfig", {**WINDOWS, "depths": [1], "num_heads": [2], "upscale": 2}),
        *("dense", {"reconstruction": (1, 3, 128, 128)}),
    ),
    "Dinov2Backbone": (
        *("Dinov2Config", {**VIT, "out_features": ["stage2", "stage4"]}),
        *("dense", {"stage4": (1, 32, 8, 8), "stage2": (1, 32, 8, 8)}),
    ),
    "ResNetBackbone": (*RESNET, "dense", {"stage2": (1, 16, 8, 8), "stage1": (1, 8, 16, 16)}),
    "DeiTForImageClassificationWithTeacher": (
        *("DeiTConfig", {**VIT, "num_labels": 5}),
        *("classification", {"logits": (1, 5)}),
    ),
    "CLIPVisionModelWithProjection": (
        *("CLIPVisionConfig", {**VIT, "projection_dim": 16}),
        *("features", {"image_embeds": (1, 16)}),
    ),
    "CvtModel": (
        "CvtConfig",
        {"embed_dim": [8, 8, 16], "num_heads": [1, 1, 2], "depth": [1, 2, 3]},
        *("features", {"cls_token_value": (1, 16)}),
    ),
}


@pytest.mark.parametrize("architecture", HEADS)
def test_a_head_gives_all_that_its_user_needs_by_name(folder, architecture):
    config, settings, task, outputs = HEADS[architecture]
    model = read(folder(architecture, config, **settings))
    assert model.identity.task == task
    assert shapes(model) == outputs and list(shapes(model)) == list(outputs)
    assert len(model.identity.labels) == {"classification": 5, "detection": 3}.get(task, 0)


def test_what_is_left_out_is_named(folder):
    config, settings, *_ = HEADS["DetrForSegmentation"]
    notes = read(folder("DetrForSegmentation", config, **settings)).identity.notes
    assert notes[0].startswith("'logits' and 'pred_boxes' are what accuracy")
    assert "beside them: pred_masks" in notes[0]
    assert "left out: last_hidden_state" in notes[1]
    mae = read(folder("ViTMAEForPreTraining", "ViTMAEConfig", **VIT)).identity
    assert mae.task == "features"
    assert "ViTMAEForPreTraining guesses hidden patches: its encoder `vit` is" in mae.notes[0]


def test_heat_maps_are_those_of_the_library(folder):
    config, settings, *_ = HEADS["VitPoseForPoseEstimation"]
    model = read(folder("VitPoseForPoseEstimation", config, **settings))
    pixels = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        want = model.content.module(pixels).heatmaps
        assert torch.equal(model.content(pixels), want)


def test_maps_of_an_encoder_or_a_segmentation_may_be_what_counts(folder):
    sam = folder("SamModel", "SamConfig", **SAM)
    assert read(sam, task="dense").identity.task == "dense"
    assert shapes(read(sam, task="features")) == {"last_hidden_state": (1, 16, 8, 8)}
    classes = folder("SegformerForSemanticSegmentation", "SegformerConfig", num_labels=3)
    model = read(classes, task="dense")
    assert (model.identity.task, model.identity.labels) == ("dense", ())
    assert shapes(model) == {"logits": (1, 3, 16, 16)}
    flat = folder("ViTForImageClassification", "ViTConfig", **VIT)
    with pytest.raises(InputError, match="logits"):
        read(flat, task="dense", model_output=("logits",))


BEYOND = {
    "naflex": ("Siglip2VisionModel", "Siglip2VisionConfig", NAFLEX, "`spatial_shapes`", ""),
    "naflex with a head": (
        *("Siglip2ForImageClassification", "Siglip2Config"),
        *({"vision_config": NAFLEX}, "`spatial_shapes`", ""),
    ),
    "a video": (
        *("VideoMAEForVideoClassification", "VideoMAEConfig"),
        *({**VIT, "num_frames": 4}, "a video of 4 frames", ""),
    ),
    "prompts": ("SamModel", "SamConfig", SAM, "`input_points`", "its SamVisionEncoder with `task="),
    "text": (
        *("OwlViTForObjectDetection", "OwlViTConfig", {"vision_config": VIT}),
        *("`input_ids`", "its OwlViTVisionTransformer with `task="),
    ),
    "clips": ("VJEPA2ForVideoClassification", "VJEPA2Config", {}, "`pixel_values_videos`", ""),
    "colours by number": (
        "ImageGPTForImageClassification",
        "ImageGPTConfig",
        {},
        "`input_ids`",
        "",
    ),
    "another image": (
        *("SuperGlueForKeypointMatching", "SuperGlueConfig", {}),
        *("a pair of images", ""),
    ),
    "a fourth channel": (
        *("VitMatteForImageMatting", "VitMatteConfig"),
        {"backbone_config": ("VitDetConfig", {"num_channels": 4, "out_features": ["stage4"]})},
        *("4-channel", ""),
    ),
    "room for more": (
        *("SuperPointForKeypointDetection", "SuperPointConfig", {}),
        *("as many keypoints as an image has", ""),
    ),
}


@pytest.mark.parametrize("beyond", BEYOND)
def test_a_model_that_needs_more_than_an_image_says_what(folder, beyond):
    architecture, config, settings, needs, part = BEYOND[beyond]
    with pytest.raises(InputError) as caught:
        read(folder(architecture, config, **settings))
    assert architecture in caught.value.what and needs in caught.value.what
    assert part in caught.value.fix
    told = {"error": {"what": caught.value.what}}
    assert excluded(told) == (beyond not in ("a fourth channel", "room for more"))


@pytest.mark.parametrize(
    ("architecture", "config", "settings", "size", "sizes"),
    [
        ("ViTForImageClassification", "ViTConfig", VIT, (4, 4), ("8×8", "14×14")),
        (
            *("SwinForImageClassification", "SwinConfig"),
            *({**WINDOWS, "depths": [1] * 4, "num_heads": [1] * 4}, (64, 64)),
            ("128×128", "224×224"),
        ),
    ],
)
def test_sizes_that_a_family_takes_are_named(folder, architecture, config, settings, size, sizes):
    made = folder(architecture, config, **settings)
    with pytest.raises(InputError) as caught:
        read(made, size)
    assert f"{size[0]}×{size[1]}" in caught.value.what
    assert " or ".join(sizes) in caught.value.fix
    for taken in sizes:
        side = int(taken.partition("×")[0])
        assert read(made, (side, side)).identity.preprocess.height == side
