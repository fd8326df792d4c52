"""The image processors of transformers, declared: what a class does where its file says nothing.

A test compares the defaults with the library's class attributes, and every class of it is here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from vitedge.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD

# fmt: off
Geometry = Literal[
    "size", "convnext", "levit", "poolformer", "perceiver", "multiple", "inside", "own",
    "donut", "square", "mirror", "person", "line", "pplcnet", "textnet", "yolos",
]
# fmt: on


@dataclass(frozen=True)
class Processor:
    """One class, `<name>ImageProcessor`, its suffixes Fast and Pil left off."""

    models: str = ""
    """Model types whose processor it is where a file names none."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Its defaults, where they are not those of `geometry_hf.Settings`."""
    always: dict[str, Any] = field(default_factory=dict)
    """What it does whatever a file says."""
    geometry: Geometry = "size"
    """How it resizes, as `preprocessing_hf` has it."""
    sampling: Literal["filter", "points", "corners", "blur"] = "filter"
    pads_black: bool = False
    """Whether it pads before it normalises; after that, zero is the mean colour."""
    channels: Literal["RGB", "BGR", "asked"] = "RGB"
    """What its models take; `asked`: BGR with `do_flip_channel_order`."""
    nominal: tuple[int, int] | None = None
    """Height and width that its models were trained at, where neither it nor they say so."""


_IMAGENET: dict[str, Any] = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
_OPENAI = {
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
_BILINEAR: dict[str, Any] = {"resample": 2}
_EDGE: dict[str, Any] = {"default_to_square": False}
_WHOLE = {"do_center_crop": False}
_RAW: dict[str, Any] = {"do_normalize": False}


def _crop(side: int) -> dict[str, Any]:
    return {"do_center_crop": True, "crop_size": side}


_CLIP = {"size": 224, **_EDGE, **_crop(224), **_OPENAI}
_DETR = {
    "size": {"shortest_edge": 800, "longest_edge": 1333},
    **(_EDGE | _BILINEAR | _IMAGENET),
}
_DETECTOR = {**_DETR, "do_pad": True, "max_size": 1333}
_DPT = {"size": 384, "ensure_multiple_of": 1, "keep_aspect_ratio": False}
_MASKFORMER = {**_DETR, "size_divisor": 32, "do_pad": True}
_PADDLE = {"image_mean": IMAGENET_MEAN[::-1], "image_std": IMAGENET_STD[::-1], **_BILINEAR}
_LINE = {"size": {"height": 48, "width": 320}, "pad_size": {"height": 48, "width": 320}}
_PAGE = {"size": 800, "image_mean": (0, 0, 0), "image_std": (1, 1, 1)}

PROCESSORS: dict[str, Processor] = {
    "Beit": Processor("beit data2vec-vision", {"size": 224, "crop_size": 224}),
    "Bit": Processor("bit dinov2 dinov2_with_registers focalnet hiera pixio", _CLIP),
    "Blip": Processor("blip blip-2 instructblip", {"size": 384, **_OPENAI}),
    "CHMv2": Processor(
        "chmv2",
        {
            **_DPT,
            **{"do_resize": False, "do_pad": True, "keep_aspect_ratio": True},
            **{"ensure_multiple_of": 16, "size_divisor": 16},
            "image_mean": (0.42, 0.411, 0.296),
            "image_std": (0.213, 0.156, 0.143),
        },
        geometry="multiple",
    ),
    "CLIP": Processor(
        "clip aimv2 aimv2_vision_model altclip clip_vision_model florence2 git groupvit kosmos-2 "
        "metaclip_2 mlcd vipllava xclip",
        _CLIP,
    ),
    "Chameleon": Processor(
        "chameleon",
        {
            **{"size": 512, **_EDGE, **_crop(512), "resample": 1, "rescale_factor": 0.0078},
            **{"image_mean": (1, 1, 1), "image_std": (1, 1, 1)},
        },
    ),
    "ChineseCLIP": Processor("chinese_clip", _CLIP),
    "ConditionalDetr": Processor("conditional_detr", _DETECTOR, _WHOLE),
    "ConvNext": Processor(
        "convnext convnextv2 cvt regnet resnet",
        {"size": 384, **_EDGE, "crop_pct": 0.875},
        geometry="convnext",
    ),
    "DINOv3ViT": Processor("dinov3_vit", {"size": 224, **_BILINEAR, **_IMAGENET}),
    "DPT": Processor("dpt depth_anything", _DPT, _WHOLE, "multiple"),
    "DeformableDetr": Processor("deformable_detr lw_detr", _DETECTOR, _WHOLE),
    "DeiT": Processor("deit", {"size": 256, **_crop(224)}),
    "DepthPro": Processor("depth_pro", {"size": 1536, **_BILINEAR}, _WHOLE, sampling="points"),
    "Detr": Processor("detr omdet-turbo table-transformer", _DETECTOR, _WHOLE),
    "Donut": Processor(
        "donut-swin",
        {
            **{"size": {"height": 2560, "width": 1920}, **_BILINEAR, "do_pad": True},
            **{"do_thumbnail": True, "do_align_long_axis": False},
        },
        geometry="donut",
        pads_black=True,
    ),
    "EfficientNet": Processor(
        "efficientnet align", {"size": 346, "crop_size": 289, "include_top": True}
    ),
    "Eomt": Processor(
        "eomt eomt_dinov3",
        {
            **{"size": {"shortest_edge": 640, "longest_edge": 640}, "do_pad": False},
            **(_EDGE | _BILINEAR | _IMAGENET),
        },
        _WHOLE,
        pads_black=True,
    ),
    "Flava": Processor("flava", {"size": 224, **_crop(224), **_OPENAI}),
    "GLPN": Processor(
        "glpn", {**_BILINEAR, **_RAW, "size_divisor": 32}, _WHOLE, "own", nominal=(480, 640)
    ),
    "GroundingDino": Processor("grounding-dino mm-grounding-dino", _DETECTOR, _WHOLE),
    "Levit": Processor(
        "levit", {"size": 224, **_EDGE, **_crop(224), **_IMAGENET}, geometry="levit"
    ),
    "Mask2Former": Processor("mask2former", _MASKFORMER, _WHOLE),
    "MaskFormer": Processor("maskformer", _MASKFORMER, _WHOLE),
    "MobileNetV1": Processor("mobilenet_v1", {"size": 256, **_EDGE, **_crop(224), **_BILINEAR}),
    "MobileNetV2": Processor("mobilenet_v2", {"size": 256, **_EDGE, **_crop(224), **_BILINEAR}),
    "MobileViT": Processor(
        "mobilevit mobilevitv2",
        {"size": 224, **_EDGE, **_crop(256), "do_flip_channel_order": True},
        _RAW,
        channels="asked",
    ),
    "OneFormer": Processor("oneformer", _DETR, {**_WHOLE, "do_pad": False}),
    "OwlViT": Processor("owlvit", {"size": 768, "crop_size": 768, **_OPENAI}),
    "Owlv2": Processor(
        "owlv2",
        {"size": 960, **_OPENAI, "do_pad": True},
        {**_WHOLE, **_BILINEAR},
        "square",
        "blur",
        pads_black=True,
    ),
    "PPDocLayoutV2": Processor("pp_doclayout_v2", _PAGE, sampling="points"),
    "PPDocLayoutV3": Processor("pp_doclayout_v3", _PAGE, sampling="points"),
    "PPDocLayoutV4": Processor("pp_doclayout_v4", _PAGE, sampling="points"),
    "PPLCNet": Processor(
        "pp_lcnet",
        {**{"size": 256, **_crop(224), "resize_short": 256, "size_divisor": 1}, **_PADDLE},
        geometry="pplcnet",
        channels="BGR",
    ),
    "PPOCRV5ServerDet": Processor(
        "pp_ocrv5_server_det pp_ocrv5_mobile_det pp_ocrv6_medium_det pp_ocrv6_small_det",
        {"size": 960, **_PADDLE},
        _WHOLE,
        "own",
        channels="BGR",
    ),
    "PPOCRV5ServerRec": Processor(
        "pp_ocrv5_server_rec pp_ocrv5_mobile_rec",
        {**_LINE, **_BILINEAR, "do_pad": True},
        geometry="line",
    ),
    "PPOCRV6SmallRec": Processor(
        "pp_ocrv6_small_rec pp_ocrv6_tiny_rec",
        {**_LINE, **_BILINEAR, "do_pad": True},
        geometry="line",
        sampling="points",
        channels="BGR",
    ),
    "Perceiver": Processor(
        "perceiver", {"size": 224, **_crop(256), **_IMAGENET}, geometry="perceiver"
    ),
    "PoolFormer": Processor(
        "poolformer",
        {"size": 224, **_EDGE, **_crop(224), "crop_pct": 0.9, **_IMAGENET},
        geometry="poolformer",
    ),
    "PromptDepthAnything": Processor("prompt_depth_anything", _DPT, _WHOLE, "multiple"),
    "Pvt": Processor("pvt pvt_v2", {"size": 224, **_IMAGENET}),
    "RTDetr": Processor(
        "rt_detr deimv2",
        {"size": {"height": 640, "width": 640}, **(_EDGE | _BILINEAR | _IMAGENET | _RAW)},
        _WHOLE,
    ),
    "RfDetr": Processor("rf_detr", {**_DETR, "do_pad": True}, _WHOLE, sampling="points"),
    "SLANeXt": Processor(
        "slanext slanet",
        {**{"size": 512, "do_pad": True, "pad_size": 512}, **_BILINEAR, **_IMAGENET},
        _BILINEAR,
        "inside",
        "points",
    ),
    "Sam": Processor(
        "sam sam_hq",
        {
            **{"size": {"longest_edge": 1024}, "do_pad": True, "pad_size": 1024},
            **(_BILINEAR | _IMAGENET),
        },
    ),
    "Sam2": Processor("sam2 edgetam sam2_video", {"size": 1024, **_BILINEAR, **_IMAGENET}),
    "Sam3": Processor(
        "sam3 sam3_lite_text sam3_tracker sam3_tracker_video sam3_video",
        {"size": 1008, **_BILINEAR},
    ),
    "Sapiens2": Processor(
        "sapiens2",
        {"size": {"height": 1024, "width": 768}, "crop_size": 224, **_BILINEAR, **_IMAGENET},
        geometry="inside",
        pads_black=True,
    ),
    "Segformer": Processor("segformer upernet", {"size": 512, **_BILINEAR, **_IMAGENET}, _WHOLE),
    "Siglip": Processor(
        "siglip colpali gemma3n paligemma", {"size": {"height": 224, "width": 224}, **_EDGE}
    ),
    "SuperPoint": Processor(
        "superpoint",
        {"size": {"height": 480, "width": 640}, **_EDGE, **_BILINEAR},
        {**_RAW, **_WHOLE},
    ),
    "Swin2SR": Processor("swin2sr", {"size_divisor": 8, "do_pad": True}, {**_RAW, **_WHOLE}, "own"),
    "TextNet": Processor(
        "textnet",
        {"size": 640, **(_EDGE | _BILINEAR | _IMAGENET), "crop_size": 224, "size_divisor": 32},
        geometry="textnet",
    ),
    "Tipsv2": Processor("tipsv2", {"size": 448, **_BILINEAR, **_RAW}),
    "Tipsv2Dpt": Processor("tipsv2_dpt", {"size": 448, **_BILINEAR, **_RAW}),
    "UVDoc": Processor(
        "uvdoc",
        {"size": {"height": 712, "width": 488}, **_BILINEAR, **_RAW},
        {**_BILINEAR, **_WHOLE},
        sampling="corners",
        channels="BGR",
    ),
    "ViT": Processor(
        "vit clipseg dinat ijepa mgp-str swiftformer swin swinv2 trocr vit_mae vit_msn",
        {"size": 224, **_BILINEAR},
    ),
    "ViTHybrid": Processor("vit-hybrid", _CLIP),
    "VitPose": Processor(
        "vitpose",
        {"size": {"height": 256, "width": 192}, "do_affine_transform": True, **_IMAGENET},
        {**_BILINEAR, **_WHOLE},
        "person",
        pads_black=True,
    ),
    "Yolos": Processor("yolos", _DETECTOR, _WHOLE, "yolos"),
    "ZoeDepth": Processor(
        "zoedepth",
        {
            **{"size": {"height": 384, "width": 512}, **_BILINEAR, "do_pad": True},
            **{"keep_aspect_ratio": True, "ensure_multiple_of": 1 / 32},
        },
        _WHOLE,
        "mirror",
        "corners",
    ),
}

_TEXT = "text to read or to write"
_PATCHES = "its patches with their number and places"
_VIDEO = "a video"
_PAIRS = "a pair of images"
_NAMES = {
    _TEXT: "BridgeTower Emu3 Fuyu Gemma3 GotOcr2 Idefics Idefics2 Idefics3 Janus Kosmos2_5 "
    "LayoutLMv2 LayoutLMv3 Llava LlavaNext LlavaOnevision DeepseekOcr2 DeepseekVL "
    "DeepseekVLHybrid Mllama Aria Cohere2Vision GraniteDocling Inkling Inkling2 Llama4 Ovis2 PI0 "
    "PPChart2Table PerceptionLM Phi4Multimodal SmolVLM Step3p7 UltraVBert UnlimitedOcr Vilt Molmo2 "
    "MiniCPMOcr MiniCPMV4_6",
    _PATCHES: "CohereCompass Cosmos3Edge Ernie4_5_VLMoe Gemma4 Gemma4Unified Glm46V Glm4v Glm5Next "
    "GlmImage Glmga HunYuanVL Kimi_K25 Lfm2Vl MiniMaxM3VL MuseGlimmer NemotronH_Omni_Reasoning_V3 "
    "NeoMME PaddleOCRVL Pix2Struct Pixtral Qwen2VL Siglip2",
    _VIDEO: "Tvp VideoLlama3 VideoLlava VideoMAE Vivit",
    _PAIRS: "EfficientLoFTR LightGlue SuperGlue",
    "the page's margins cropped by what it shows": "Nougat PPFormulaNet",
    "its colours by number": "ImageGPT",
    "a picture and its mask as a prompt": "SegGpt",
    "a trimap": "VitMatte",
}
NOT_OF_ONE_IMAGE = {name: reason for reason, names in _NAMES.items() for name in names.split()}
"""Classes whose models do not run on an image alone, and what those need."""

PROCESSOR_OF_MODEL = {
    model: name for name, entry in PROCESSORS.items() for model in entry.models.split()
}
