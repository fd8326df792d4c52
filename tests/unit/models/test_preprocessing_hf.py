"""An image processor of transformers and ours make one tensor of a photograph, or it is refused."""

import json
import re

import msgspec
import numpy as np
import pytest

from tests.support.image_processors import (
    SETTINGS,
    backends,
    differences,
    edge,
    photographs,
    square,
    ways,
)
from vitedge.core.errors import InputError
from vitedge.models.preprocessing import from_timm
from vitedge.models.sources.geometry_hf import Settings
from vitedge.models.sources.image_processors import (
    NOT_OF_ONE_IMAGE,
    PROCESSOR_OF_MODEL,
    PROCESSORS,
)
from vitedge.models.sources.preprocessing_hf import from_hf

pytestmark = pytest.mark.usefixtures("peers")

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
NO_SIZE = (1, 1)  # of a model whose processor fixes the size itself
COMPARED = sorted(set(PROCESSORS) - {"ViTHybrid", "Swin2SR"})
"""The library has no hybrid any more; a Swin2SR's images keep their own size."""


def typed(kind, **settings):
    return {"image_processor_type": f"{kind}ImageProcessor", **settings}


# -- every class of the library -----------------------------------------------------------------


def library():
    """Names of the image processors, without their suffixes, by model type."""
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    return {
        model: re.sub(r"ImageProcessor(Pil)?$", "", next(iter(names.values())))
        for model, names in IMAGE_PROCESSOR_MAPPING_NAMES.items()
    }


def test_every_image_processor_of_transformers_is_known_or_refused_for_a_reason():
    """TimmWrapper's settings are timm's own."""
    ours = {*PROCESSORS, *NOT_OF_ONE_IMAGE} - {"ViTHybrid"}
    assert ours == set(library().values()) - {"TimmWrapper"}
    assert not set(PROCESSORS) & set(NOT_OF_ONE_IMAGE)
    of_model = {model: kind for model, kind in library().items() if kind in PROCESSORS}
    legacy = {"clip_vision_model", "dinov2_with_registers", "vit-hybrid"}
    assert {m: k for m, k in PROCESSOR_OF_MODEL.items() if m not in legacy} == of_model


def test_the_docs_list_every_class_and_the_reasons():
    """`python -m benchmarks.image_processors --write` writes that table."""
    from benchmarks.image_processors import PAGE, refused

    page = PAGE.read_text(encoding="utf-8").partition("<!-- measured -->")[2]
    rows = dict(re.findall(r"^\| (\w+) \| ([\w .-]+) \| \S+ .*\|$", page, re.MULTILINE))
    rows.pop("image", None)
    assert rows == {kind: entry.models for kind, entry in PROCESSORS.items()}
    assert set(refused()) <= set(page.splitlines())


@pytest.mark.parametrize(("kind", "needs"), [("Llama4", "text"), ("VitMatte", "a trimap")])
def test_an_image_processor_whose_models_need_more_says_what(kind, needs):
    with pytest.raises(InputError, match=f"not run on an image alone: they need {needs}"):
        from_hf({"image_processor_type": f"{kind}ImageProcessorFast"}, "", None)


@pytest.mark.parametrize("kind", sorted(set(PROCESSORS) - {"ViTHybrid"}))
def test_defaults_are_the_librarys(kind):
    """What a file does not say; pad_size and the like may be left to an instance."""
    processor = next(iter(backends(kind).values()))()
    ours = Settings(**(PROCESSORS[kind].settings | PROCESSORS[kind].always))
    for key in set(Settings.__struct_fields__) - {"default_to_square", "max_size"}:
        theirs = getattr(processor, key, None)
        own = getattr(ours, key)
        if key in PROCESSORS[kind].always or theirs is None:
            continue
        if hasattr(theirs, "height"):
            theirs = {name: side for name, side in dict(theirs).items() if side}
        if key in ("size", "crop_size", "pad_size") and isinstance(own, int):
            own = square(own) if key != "size" or ours.default_to_square else edge(own)
        same = own == theirs or (isinstance(own, tuple) and list(own) == list(theirs))
        assert same, (key, own, theirs)


@pytest.mark.parametrize("kind", COMPARED)
def test_a_photograph_is_what_the_processor_makes_of_it(kind):
    """In Pillow's backend where there is one: equal but for what becomes whole grey levels."""
    backend, of_backend = next(iter(backends(kind).items()))
    for settings in SETTINGS.get(kind, [{}]):
        assert_one_level(backend, of_backend(**settings), kind, photographs(5))


def assert_one_level(backend, processor, kind, photos):
    """Equal, but for 0.2% of the values where torchvision's sharp filters overshoot.

    Of its bilinear ones, whose steps round in another way, but for 1 in 100,000.
    """
    if kind.endswith("Rec"):  # longer lines become lower
        photos = [photo for photo in photos if photo.width < 6 * photo.height]
    for preprocess, levels in differences(processor, kind, photos):
        sharp = preprocess.interpolation in ("bicubic", "lanczos")
        limit = (0.002 if sharp else 1e-5) if backend == "torchvision" else 0
        assert np.mean(levels > 1.001) <= limit, (backend, processor, preprocess)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", COMPARED)
def test_thirty_photographs_are_what_either_backend_makes_of_them(kind):
    """But in Owlv2's torchvision backend, whose edges are not those of Pillow's: see the docs."""
    for backend, of_backend in backends(kind).items():
        if (kind, backend) != ("Owlv2", "torchvision"):
            for settings in ways(kind):
                assert_one_level(backend, of_backend(**settings), kind, photographs(30))


# -- files --------------------------------------------------------------------------------------


CHECKPOINTS = {  # what public ones set
    "google/vit-384": ("ViT", {"size": square(384)}),
    "facebook/vit-mae": ("ViT", {"resample": 3, **IMAGENET}),
    "facebook/dinov2": ("Bit", {"size": edge(256), **IMAGENET}),
    "microsoft/swinv2": ("ViT", {"size": square(256), "resample": 3}),
    "apple/deeplabv3-mobilevit": ("MobileViT", {"size": edge(544), "crop_size": square(512)}),
    "openai/clip-336": ("CLIP", {"size": edge(336), "crop_size": square(336)}),
    "facebook/convnext": ("ConvNext", {"size": edge(224)}),
    "odd crop": ("Bit", {"size": edge(150), "crop_size": {"height": 131, "width": 128}}),
    "larger crop": ("DeiT", {"size": square(100), "crop_size": square(131)}),
    "other scale": ("ViT", {"rescale_factor": 1 / 127.5, "do_normalize": False}),
    "other filter": ("ViT", {"resample": 4}),
}


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_a_checkpoints_settings_are_what_its_processor_makes_of_them(checkpoint):
    kind, settings = CHECKPOINTS[checkpoint]
    for backend, of_backend in backends(kind).items():
        if (checkpoint, backend) not in (
            ("other filter", "torchvision"),
            ("larger crop", "pillow"),
        ):
            assert_one_level(backend, of_backend(**settings), kind, photographs(3))


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
    "poolformer": ("PoolFormer", {"crop_pct": None, "size": 256, "do_rescale": None}),
    "segformer": (
        "Segformer",
        {"size": 512, "reduce_labels": True, "do_center_crop": True, "crop_size": 256},
    ),
    "siglip": ("Siglip", {"size": [256, 256], "image_processor_type": "SiglipImageProcessorFast"}),
    "donut-swin": ("Donut", {"size": [120, 160], "image_processor_type": "DonutImageProcessor"}),
    "detr": (
        "Detr",
        {"size": 80, "max_size": 133, "do_pad": True, "pad_size": square(133), **IMAGENET},
    ),
}


@pytest.mark.parametrize("model_type", LEGACY)
def test_an_old_file_means_what_the_processor_makes_of_it(model_type):
    """The class is that of the model, or that of a feature extractor."""
    kind, config = LEGACY[model_type]
    processor = backends(kind)["pillow"].from_dict(dict(config))
    saved = from_hf(json.loads(processor.to_json_string()), "", NO_SIZE)
    assert from_hf(config, model_type, NO_SIZE) == saved
    assert_one_level("pillow", processor, kind, photographs(2))


def test_images_that_differ_in_size_are_squashed_and_a_note_says_so():
    notes = []
    old = {"feature_extractor_type": "DetrFeatureExtractor", "size": 800, "max_size": 1333}
    preprocess = from_hf(old, "", (320, 480), notes)
    assert (preprocess.height, preprocess.width, preprocess.resize) == (320, 480, "exact")
    assert "DetrImageProcessor" in notes[0] and "320×480" in notes[0]
    unsaid = from_hf(old, "", None)
    assert (unsaid.height, unsaid.width) == (800, 800)
    with pytest.raises(InputError, match="differ in size"):
        from_hf(typed("Swin2SR"), "", None)


def test_the_hybrids_processor_is_that_of_bit():
    config = typed("Bit", size=edge(384), crop_size=square(384))
    assert from_hf(config | typed("ViTHybrid"), "", NO_SIZE) == from_hf(config, "", NO_SIZE)
    assert from_hf({}, "vit-hybrid", NO_SIZE) == from_hf({}, "dinov2", NO_SIZE)


@pytest.mark.parametrize("suffix", ["", "Fast", "Pil"])
def test_a_processor_in_a_processors_file_is_read(suffix):
    own = typed("ViT", size=square(96))
    nested = {"image_processor": own | {"image_processor_type": f"ViTImageProcessor{suffix}"}}
    assert from_hf(nested, "", None) == from_hf(own, "", None)


def test_a_wrapped_model_of_timm_has_timms_own_preprocessing():
    from transformers import TimmWrapperImageProcessor

    timm = {"input_size": [3, 96, 96], "crop_pct": 0.9, "interpolation": "bicubic"}
    theirs = TimmWrapperImageProcessor(pretrained_cfg=timm).data_config
    upright = msgspec.structs.replace(
        from_timm(theirs), exif="apply"
    )  # as transformers opens files
    assert from_hf({"pretrained_cfg": timm}, "timm_wrapper", None) == upright


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (
            typed("Siglip2"),
            "models of Siglip2ImageProcessor do not run on an image alone: they need its patches",
        ),
        (typed("VideoMAE"), "video"),
        ({"image_processor_type": "MyProcessor"}, "`image_processor_type` MyProcessor"),
        ({}, "image_processor_type"),
        ({"do_resize": False}, "do_resize"),
        ({"do_resize": None}, "do_resize"),
        ({"resample": 6}, "resample"),
        ({"size": None}, "size"),
        ({"size": {"max_height": 512}}, "size"),
        ({"size": "large"}, "size"),
        ({"size": {"height": 256, "width": 200}, "do_center_crop": True}, "crop_size"),
        ({"do_center_crop": True, "crop_size": edge(200)}, "crop_size"),
        (typed("ConvNext", crop_pct=0), "crop_pct"),
        (typed("ConvNext", size=square(224)), "size"),
        (typed("ConvNext", do_center_crop=True, crop_size=224), "do_center_crop"),
        ({"rescale_factor": 0}, "rescale_factor"),
        ({"do_rescale": False, "image_std": [300, 300, 300]}, "std"),
        ({"image_mean": 0.5}, "image_mean"),
        ({"image_processor": None}, "image_processor"),
        ({"pretrained_cfg": None}, "pretrained_cfg"),
        ({"image_std": [0.5, 0.5, 0]}, "std"),
        ({"size": {"height": 90, "width": 80}, "do_pad": True, "pad_size": square(99)}, "size"),
        (typed("Detr", pad_size=square(800)), "pad_size"),
        (typed("CLIP", do_pad=True, pad_size=square(256)), "pad_size"),
        (typed("Yolos", pad_size=square(1333)), "pad_size"),
        (typed("Mask2Former", pad_size=square(1344)), "pad_size"),
        (typed("Eomt", do_split_image=True), "do_split_image"),
        (typed("Donut", do_align_long_axis=True), "do_align_long_axis"),
        (typed("Donut", do_pad=False), "do_pad"),
        (typed("Perceiver", crop_size=200), "crop_size"),
        (typed("PPLCNet", size_divisor=32), "size_divisor"),
        (typed("SuperPoint", do_grayscale=True), "do_grayscale"),
        (typed("VitPose", do_affine_transform=False), "do_affine_transform"),
    ],
)
def test_what_hugging_face_does_and_we_cannot_is_refused(config, key):
    with pytest.raises(InputError) as caught:
        from_hf(typed("ViT") | config if config else {}, "", NO_SIZE)
    assert key in caught.value.what
    assert "`preprocess=FILE.toml` (or .json)" in caught.value.fix


@pytest.mark.parametrize(
    ("name", "meant"), [("DinoV3ViT", "DINOv3ViT"), ("Detr2", "Detr"), ("ViTT", "ViT")]
)
def test_the_nearest_of_an_unknown_image_processor_is_named(name, meant):
    with pytest.raises(InputError) as caught:
        from_hf(typed(name), "", NO_SIZE)
    assert f"{name}ImageProcessor is not known" in caught.value.what
    assert f"did you mean '{meant}'?" in caught.value.fix


def test_a_misspelt_suffix_is_told_by_the_whole_name():
    with pytest.raises(InputError, match="VitImageProcesor is not known") as caught:
        from_hf({"image_processor_type": "VitImageProcesor"}, "", NO_SIZE)
    assert "did you mean 'ViTImageProcessor'?" in caught.value.fix
