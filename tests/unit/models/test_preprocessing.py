"""A photograph becomes the tensor its model's own library makes of it, or the source is refused."""

import msgspec
import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess
from vitedge.data.decode import decode
from vitedge.data.geometry import fit
from vitedge.graph.preprocess import apply_numpy, prepend
from vitedge.graph.run import Runner
from vitedge.models.eager import EagerSession
from vitedge.models.preprocessing import from_timm, from_torchvision
from vitedge.models.sources import ModelIdentity, ReferenceModel

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
    return apply_numpy(
        fit(decode(str(photo), preprocess.exif), preprocess)[np.newaxis], preprocess
    )[0]


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

FAMILIES = (
    *("vision_transformer", "deit", "beit", "eva", "swin", "pvt", "mobilevit", "hybrid"),
    "deepseek",
)


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


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box"])
@pytest.mark.parametrize("crop_pct", [0.81, 0.95, 1.0])
def test_every_filter_and_crop_of_timm(photos, crop_mode, interpolation, crop_pct):
    from timm.data import create_transform, resolve_data_config

    config = {"input_size": (3, 131, 131), "crop_pct": crop_pct, "crop_mode": crop_mode}
    config["interpolation"] = interpolation
    resolved = resolve_data_config({}, pretrained_cfg=config)
    assert from_timm(config) == from_timm(resolved)
    assert_same(photos, from_timm(config), create_transform(**resolved))


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_a_timm_input_that_is_not_square(photos, crop_mode):
    from timm.data import create_transform, resolve_data_config

    config = {"input_size": (3, 131, 77), "crop_pct": 1.0, "crop_mode": crop_mode}
    peer = create_transform(**resolve_data_config({}, pretrained_cfg=config))
    assert_same(photos, from_timm(config), peer)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"crop_mode": "corner"}, "crop_mode"),
        ({"interpolation": "random"}, "interpolation"),
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
