"""A photograph becomes the tensor its model's own library makes of it, or the source is refused."""

import json

import msgspec
import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess
from vitedge.data.decode import decode, fit
from vitedge.graph.preprocess import apply_numpy, prepend
from vitedge.graph.run import Runner
from vitedge.models.eager import EagerSession
from vitedge.models.preprocessing import from_timm, from_torchvision
from vitedge.models.sources import ModelIdentity, ReferenceModel
from vitedge.models.sources.preprocessing_hf import from_hf

pytestmark = pytest.mark.usefixtures("peers")

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
NO_SIZE = (1, 1)  # of a model whose processor fixes the size itself


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Landscape, portrait, odd sizes, and two that have to be enlarged."""
    china, flower = load_sample_images().images  # (427, 640, 3)
    pictures = (
        china,
        np.rot90(flower),
        china[50:351, 100:323],
        flower[100:137, 250:303],
        china[60:173, 200:301],
    )
    folder = tmp_path_factory.mktemp("photos")
    for index, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


def ours(photo, preprocess):
    """The whole path of an image: decoded, resized, cropped, normalised; (3, H, W)."""
    return apply_numpy(fit(decode(str(photo)), preprocess)[np.newaxis], preprocess)[0]


def grey_levels(photo, preprocess, peer):
    """Differences from `peer`, in steps of the 8-bit image; (3, H, W)."""
    theirs = np.asarray(peer(Image.open(photo)))
    pixels = ours(photo, preprocess)
    assert pixels.shape == theirs.shape
    return np.abs(pixels - theirs) * (255 * np.reshape(preprocess.std, (3, 1, 1)))


def assert_same(photos, preprocess, peer):
    """Equal but for what float32 rounds off."""
    for photo in photos:
        levels = grey_levels(photo, preprocess, peer)
        assert levels.max() < 0.001, (photo.name, preprocess)


# -- timm ---------------------------------------------------------------------------------------

FAMILIES = ("vision_transformer", "deit", "beit", "eva", "swin", "pvt", "mobilevit", "hybrid")


def timm_configs():
    """Every pretrained_cfg timm registers for a transformer."""
    from timm.models import _registry

    return [
        config.to_dict()
        for name, config in _registry._model_pretrained_cfgs.items()
        if any(f in _registry._model_to_module.get(name.split(".")[0], "") for f in FAMILIES)
    ]


def test_every_timm_transformer_sees_what_timm_shows_it(photos):
    from timm.data import create_transform, resolve_data_config

    configs = timm_configs()
    assert len(configs) > 800
    configs.append({"num_classes": 1000, "crop_mode": None})  # defaults for all the rest
    distinct = {from_timm(config): config for config in configs}
    tested = set()
    for preprocess, config in distinct.items():
        geometry = (preprocess.height, preprocess.width, preprocess.resize, preprocess.resize_px)
        small = max(geometry[:2]) <= 256  # large ones: one mean and two photos are enough
        if geometry not in tested or small:
            tested.add(geometry)
            peer = create_transform(**resolve_data_config({}, pretrained_cfg=config))
            assert_same(photos if small else [photos[1], photos[3]], preprocess, peer)
    assert len(tested) > 25


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("crop_pct", [0.81, 0.95, 1.0])
def test_every_filter_and_crop_of_timm(photos, crop_mode, interpolation, crop_pct):
    from timm.data import create_transform, resolve_data_config

    config = {"input_size": (3, 131, 131), "crop_pct": crop_pct, "crop_mode": crop_mode}
    config["interpolation"] = interpolation
    resolved = resolve_data_config({}, pretrained_cfg=config)
    assert from_timm(config) == from_timm(resolved)
    assert_same(photos, from_timm(config), create_transform(**resolved))


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"crop_mode": "border"}, "crop_mode"),
        ({"interpolation": "random"}, "interpolation"),
        ({"interpolation": "box"}, "interpolation"),
        ({"input_size": (1, 28, 28)}, "input_size"),
        ({"input_size": (3, 256, 128)}, "input_size"),
        ({"input_size": (3, 256, 128), "crop_mode": "squash"}, "input_size"),
        ({"input_size": 224}, "input_size"),
        ({"crop_pct": 1.1}, "crop_pct"),
        ({"mean": [123.7, 116.3, 103.5]}, "mean"),
        ({"std": [1.0]}, "std"),
    ],
)
def test_what_timm_does_and_we_cannot_is_refused(config, key):
    assert_refused(lambda: from_timm(config), key)


def assert_refused(read, key):
    with pytest.raises(InputError) as caught:
        read()
    assert key in caught.value.what
    assert "`preprocess=FILE.toml`" in caught.value.fix


# -- torchvision --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["vit_", "swin_", "resnet"])
def test_every_torchvision_model_sees_what_its_weights_ask_for(photos, family):
    from torchvision import models

    presets = {}
    for name in models.list_models(module=models):
        if name.startswith(family):
            presets |= {
                repr(w.transforms()): w.transforms() for w in models.get_model_weights(name)
            }
    assert len(presets) >= 2
    for preset in presets.values():
        assert_same(photos, from_torchvision(preset, NO_SIZE), preset)


def test_a_torchvision_segmentation_image_of_the_models_own_shape(photos):
    from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights

    preset = DeepLabV3_ResNet50_Weights.DEFAULT.transforms()
    landscape = photos[:1]
    assert_same(landscape, from_torchvision(preset, (520, 779)), preset)


def test_a_torchvision_transform_that_is_no_such_preset_is_refused():
    from torchvision.transforms import Resize
    from torchvision.transforms._presets import ImageClassification

    assert_refused(lambda: from_torchvision(Resize(224), NO_SIZE), "Resize")
    without = ImageClassification(crop_size=224, antialias=False)
    assert_refused(lambda: from_torchvision(without, NO_SIZE), "antialias")


# -- Hugging Face -------------------------------------------------------------------------------


def hf_peers(kind, settings):
    """Both backends of an image processor, and the preprocessor_config.json it writes."""
    import transformers

    processors = [
        getattr(transformers, f"{kind}ImageProcessor{backend}").from_dict(dict(settings))
        for backend in ("Pil", "")
    ]

    def run(processor):
        return lambda image: processor(image, return_tensors="np")["pixel_values"][0]

    return run(processors[0]), run(processors[1]), json.loads(processors[0].to_json_string())


def square(side):
    return {"height": side, "width": side}


def edge(side):
    return {"shortest_edge": side}


HF = {  # what public checkpoints set
    "google/vit": ("ViT", {}),
    "google/vit-384": ("ViT", {"size": square(384)}),
    "facebook/vit-mae": ("ViT", {"resample": 3, **IMAGENET}),
    "facebook/deit": ("DeiT", IMAGENET),
    "facebook/dinov2": ("Bit", {"size": edge(256), **IMAGENET}),
    "microsoft/beit": ("Beit", {}),
    "microsoft/beit-640": ("Beit", {"size": square(640)}),
    "microsoft/swin": ("ViT", {"resample": 3, **IMAGENET}),
    "microsoft/swinv2": ("ViT", {"size": square(256), "resample": 3}),
    "OpenGVLab/pvt_v2": ("Pvt", {}),
    "apple/mobilevit": ("MobileViT", {"size": edge(288), "resample": 2}),
    "apple/deeplabv3-mobilevit": ("MobileViT", {"size": edge(544), "crop_size": square(512)}),
    "nvidia/segformer": ("Segformer", {}),
    "openai/clip": ("CLIP", {}),
    "openai/clip-336": ("CLIP", {"size": edge(336), "crop_size": square(336)}),
    "google/siglip": ("Siglip", {}),
    "facebook/convnext": ("ConvNext", {"size": edge(224)}),
    "facebook/convnext-384": ("ConvNext", {"size": edge(384)}),
    "odd crop": ("Bit", {"size": edge(150), "crop_size": {"height": 131, "width": 128}}),
    "other scale": ("ViT", {"rescale_factor": 1 / 127.5, "do_normalize": False}),
}


def assert_one_level(photos, preprocess, peer):
    """The processors' torchvision backend filters in other arithmetic than their Pillow backend.

    Its bilinear filter is within one grey level, its bicubic in all but 0.2% of the values.
    """
    for photo in photos:
        off = np.mean(grey_levels(photo, preprocess, peer) > 1.001)
        limit = 0.002 if preprocess.interpolation == "bicubic" else 0
        assert off <= limit, (photo.name, preprocess)


@pytest.mark.parametrize("checkpoint", HF)
def test_a_hugging_face_model_sees_what_its_processor_shows_it(photos, checkpoint):
    pillow, torchvision, config = hf_peers(*HF[checkpoint])
    preprocess = from_hf(config, "", NO_SIZE)
    assert_same(photos, preprocess, pillow)
    assert_one_level(photos, preprocess, torchvision)


LEGACY = {  # files as they were first published: numbers for sizes, and what is left out
    "vit": ("ViT", {"do_normalize": True, "do_resize": True, "size": 224}),
    "swin": (
        "ViT",
        {"feature_extractor_type": "ViTFeatureExtractor", "resample": 3, "size": 224, **IMAGENET},
    ),
    "deit": ("DeiT", {"size": 256, "do_center_crop": True, "crop_size": 224, **IMAGENET}),
    "dinov2": ("Bit", {"size": edge(256), "pad_size": None, **IMAGENET}),
    "clip": ("CLIP", {"crop_size": 224, "size": 224, "do_center_crop": True}),
    "beit": ("Beit", {"size": 384, "do_center_crop": False, "crop_size": 384}),
    "mobilevit": (
        "MobileViT",
        {"crop_size": 256, "size": 288, "do_normalize": True, "do_flip_channel_order": True},
    ),
    "resnet": ("ConvNext", {"crop_pct": 0.875, "size": 224, **IMAGENET}),
    "segformer": (
        "Segformer",
        {"size": 512, "reduce_labels": True, "do_center_crop": True, "crop_size": 256},
    ),
    "siglip": ("Siglip", {"size": [256, 256], "image_processor_type": "SiglipImageProcessorFast"}),
}


@pytest.mark.parametrize("model_type", LEGACY)
def test_an_old_file_means_what_the_processor_makes_of_it(photos, model_type):
    kind, config = LEGACY[model_type]
    pillow, _, _ = hf_peers(kind, config)
    assert_same(photos, from_hf(config, model_type, NO_SIZE), pillow)


@pytest.mark.parametrize("kind", ["Detr", "Yolos"])
def test_a_detection_image_of_the_models_own_shape(photos, kind):
    pillow, torchvision, config = hf_peers(kind, {})
    landscape = photos[:1]
    preprocess = from_hf(config, "", np.shape(pillow(Image.open(photos[0])))[1:])
    assert (preprocess.height, preprocess.resize) == (800, "exact")
    assert_same(landscape, preprocess, pillow)
    assert_one_level(landscape, preprocess, torchvision)


def test_a_detection_image_of_another_shape_is_squashed_to_the_models(photos):
    old = {"feature_extractor_type": "DetrFeatureExtractor", "size": 800, "max_size": 1333}
    peer, _, _ = hf_peers("Detr", {"size": {"height": 320, "width": 480}})
    assert_same(photos, from_hf(old, "", (320, 480)), peer)


def typed(kind, **settings):
    return {"image_processor_type": f"{kind}ImageProcessor", **settings}


def test_the_hybrids_processor_is_that_of_bit():
    config = hf_peers("Bit", {"size": edge(384), "crop_size": square(384)})[2]
    assert from_hf(config | typed("ViTHybrid"), "", NO_SIZE) == from_hf(config, "", NO_SIZE)
    assert from_hf({}, "vit-hybrid", NO_SIZE) == from_hf({}, "dinov2", NO_SIZE)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (typed("Siglip2"), "Siglip2ImageProcessor"),
        ({}, "image_processor_type"),
        ({"do_resize": False}, "do_resize"),
        ({"resample": 4}, "resample"),
        ({"size": {"max_height": 512, "max_width": 512}}, "max_height"),
        ({"size": {"longest_edge": 512}}, "size"),
        ({"size": "large"}, "size"),
        ({"size": {"height": 256, "width": 200}, "do_center_crop": True}, "size"),
        ({"do_center_crop": True}, "crop_size"),
        ({"do_center_crop": True, "crop_size": 256}, "crop_size"),
        ({"do_center_crop": True, "crop_size": edge(200)}, "crop_size"),
        (typed("MobileViT"), "crop_size"),
        (typed("ConvNext", crop_pct=0), "crop_pct"),
        (typed("ConvNext", size=square(224)), "size"),
        (typed("ConvNext", do_center_crop=True, crop_size=224), "do_center_crop"),
        ({"rescale_factor": 0}, "rescale_factor"),
        ({"do_rescale": False, "image_std": [300, 300, 300]}, "std"),
        ({"image_mean": 0.5}, "image_mean"),
        ({"image_std": [0.5, 0.5, 0]}, "std"),
        ({"do_pad": True, "pad_size": square(256)}, "pad_size"),
    ],
)
def test_what_hugging_face_does_and_we_cannot_is_refused(config, key):
    assert_refused(lambda: from_hf(typed("ViT") | config if config else {}, "", NO_SIZE), key)


# -- channels -----------------------------------------------------------------------------------

BGR = Preprocess(
    height=5, width=4, channels="BGR", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), resize="exact"
)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_the_graph_and_eager_mode_order_the_channels_as_the_host_does(tmp_path, channels):
    preprocess = msgspec.structs.replace(BGR, channels=channels)
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    pixels = (images / 255 - preprocess.mean) / preprocess.std
    expected = np.moveaxis(pixels, -1, 1)[:, :: -1 if channels == "BGR" else 1]

    np.testing.assert_allclose(apply_numpy(images, preprocess), expected, atol=1e-6)

    model = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["": 17]>
        same (float[b, 3, 5, 4] x) => (float[b, 3, 5, 4] y) { y = Identity(x) }""")
    prepend(model, preprocess)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "model.onnx")
    np.testing.assert_allclose(Runner(tmp_path / "model.onnx")(images)[0], expected, atol=1e-6)

    identity = ModelIdentity("same", "test", "", preprocess, "features", (), trained=False)
    session = EagerSession(ReferenceModel(identity, torch.nn.Identity()), threads=1)
    (output,) = session.run({"image": images}).values()
    np.testing.assert_allclose(output, expected, atol=1e-6)
