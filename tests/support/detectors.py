"""Detectors of transformers so small that a test exports them, saved as a user's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SIDE_PX = 64
QUERIES = 12
LABELS = {0: "circle", 1: "square", 2: "star"}

_RESNET = (
    "ResNetConfig",
    {
        **{"embedding_size": 16, "hidden_sizes": [16, 16, 32, 32], "depths": [1] * 4},
        **{"layer_type": "basic", "out_features": ["stage2", "stage3", "stage4"]},
    },
)
_LAST = ("ResNetConfig", {**_RESNET[1], "out_features": ["stage4"]})
_OF_RT = (
    "RTDetrResNetConfig",
    {
        **{"embedding_size": 16, "hidden_sizes": [16, 16, 32, 32], "depths": [1] * 4},
        **{"layer_type": "basic", "out_features": ["stage2", "stage3", "stage4"]},
    },
)
_HGNET = (
    "HGNetV2Config",
    {
        **{"stem_channels": [3, 8, 8], "embedding_size": 8, "hidden_sizes": [16, 16, 32, 32]},
        **{"stage_in_channels": [8, 16, 16, 32], "stage_mid_channels": [8] * 4},
        **{"stage_out_channels": [16, 16, 32, 32], "stage_num_blocks": [1] * 4},
        **{"stage_numb_of_layers": [1] * 4, "depths": [1] * 4},
        "out_features": ["stage2", "stage3", "stage4"],
    },
)
_DETR = {
    **{"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "num_queries": QUERIES},
    **{"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "use_timm_backbone": False},
    **{"encoder_attention_heads": 4, "decoder_attention_heads": 4},
}
_RT = {
    **{"encoder_hidden_dim": 32, "d_model": 32, "num_queries": QUERIES, "decoder_layers": 2},
    **{"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_in_channels": [16, 32, 32]},
    **{"encoder_attention_heads": 4, "decoder_attention_heads": 4},
    **{"decoder_in_channels": [32, 32, 32], "hidden_expansion": 0.5},
}
_VIT = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"intermediate_size": 64, "image_size": [SIDE_PX, SIDE_PX], "patch_size": 8},
}
_DINO = (
    "RfDetrDinov2Config",
    {
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_windows": 2},
        **{"image_size": SIDE_PX, "patch_size": 16, "out_features": ["stage1", "stage2"]},
    },
)
_RF = {
    **{"d_model": 32, "num_queries": QUERIES, "decoder_layers": 2, "decoder_ffn_dim": 64},
    **{"decoder_self_attention_heads": 4, "decoder_cross_attention_heads": 4, "group_detr": 1},
    "c2f_num_blocks": 1,
}
DETECTORS: dict[str, tuple[str, dict[str, Any]]] = {
    "DetrForObjectDetection": ("DetrConfig", {**_DETR, "backbone_config": _LAST}),
    "ConditionalDetrForObjectDetection": (
        *("ConditionalDetrConfig", {**_DETR, "backbone_config": _LAST}),
    ),
    "DeformableDetrForObjectDetection": (
        *("DeformableDetrConfig", {**_DETR, "backbone_config": _RESNET, "num_feature_levels": 3}),
    ),
    "RTDetrForObjectDetection": ("RTDetrConfig", {**_RT, "backbone_config": _OF_RT}),
    "RTDetrV2ForObjectDetection": ("RTDetrV2Config", {**_RT, "backbone_config": _OF_RT}),
    "DFineForObjectDetection": ("DFineConfig", {**_RT, "backbone_config": _HGNET}),
    "YolosForObjectDetection": ("YolosConfig", {**_VIT, "num_detection_tokens": QUERIES}),
    "RfDetrForObjectDetection": ("RfDetrConfig", {**_RF, "backbone_config": _DINO}),
}
PROCESSORS = {
    "DFineForObjectDetection": "RTDetr",
    "RTDetrV2ForObjectDetection": "RTDetr",
}
"""Whose they are where a class has none of its own."""


def processor_of(architecture: str) -> Any:
    """The library's own image processor, on Pillow; RF-DETR's, which is on torchvision alone."""
    import transformers

    name = PROCESSORS.get(architecture, architecture.removesuffix("ForObjectDetection"))
    backend = "" if name == "RfDetr" else "Pil"
    kind = getattr(transformers, f"{name}ImageProcessor{backend}")
    return kind(size={"height": SIDE_PX, "width": SIDE_PX}, do_pad=False)


def save(architecture: str, folder: Path, **settings: Any) -> Path:
    """Write a detector's config.json, its image processor and weights that vary, as a user has."""
    import torch
    import transformers

    from vitedge.core.spec import Preprocess
    from vitedge.models.sources import random_weights
    from vitedge.models.sources.hf_model import ImageModel

    config = _config(*DETECTORS[architecture], id2label=LABELS, **settings)
    config.architectures = [architecture]
    torch.manual_seed(0)
    module = getattr(transformers, architecture)(config).eval()
    _vary(module)
    preprocess = Preprocess(height=SIDE_PX, width=SIDE_PX)
    model = ImageModel(module, preprocess)
    model.names = ("logits", "pred_boxes")
    random_weights.spread(model, preprocess)
    module.save_pretrained(folder)
    processor_of(architecture).save_pretrained(folder)
    return folder


def _vary(module: Any) -> None:
    """Weights as DETR starts from (Xavier's), and heads that place boxes all over an image."""
    import torch
    from torch import nn

    heads = [layer for name, layer in module.named_modules() if _is_head(name, layer)]
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight)
    for name, weight in module.named_parameters():
        if name.endswith("detection_tokens"):
            nn.init.normal_(weight)
    started = [layer.weight.detach().clone() for layer in heads]
    pixels = torch.rand(2, 3, SIDE_PX, SIDE_PX)

    def spread(gain: float) -> float:
        with torch.no_grad():
            for layer, weight in zip(heads, started, strict=True):
                layer.weight.copy_(gain * weight)
            boxes = module(pixel_values=pixels).pred_boxes
        sound = (boxes[..., 2:].min(dim=-1).values > 0.05).float().mean()
        return float(boxes.std(dim=1).mean() * sound)

    spread(max((0.1, 0.3, 1.0, 3.0), key=spread))
    torch.manual_seed(0)


def _is_head(name: str, layer: Any) -> bool:
    from torch import nn

    return "bbox" in name and isinstance(layer, nn.Linear)


def _config(name: str, settings: dict[str, Any], **further: Any) -> Any:
    import transformers

    made = {
        key: _config(*value) if isinstance(value, tuple) else value
        for key, value in settings.items()
    }
    return getattr(transformers, name)(**made, **further)
