"""Every lineage model through the product's own pipeline: random weights, real photographs.

tests/integration/test_lineage.py runs each family shallow; `python -m benchmarks.lineage` at
full depth prints the table of docs/measured/lineage.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images

from vitedge.core.progress import Steps
from vitedge.core.spec import Preprocess
from vitedge.data.open import open_images
from vitedge.export.job import export
from vitedge.export.request import ExportRequest
from vitedge.measure.accuracy.output_error import OutputErrors
from vitedge.measure.accuracy.validation import run_all
from vitedge.models.api import load
from vitedge.models.sources import ModelRequest, random_weights
from vitedge.models.zoo import ZOO
from vitedge.models.zoo.build import build
from vitedge.runtimes import open_session

TARGETS = ("onnxruntime-cpu", "openvino-cpu")
CALIBRATION_IMAGES, EVALUATION_IMAGES = 8, 8
ZOO_PX = 256
"""Side of the images of our zoo's models at full depth: SETR's own have nine times the pixels."""


@dataclass(frozen=True)
class Row:
    """One model of the table."""

    source: str
    """`timm`, `torchvision`, `hf` or `zoo`."""
    model: str
    """timm's, torchvision's and our name; transformers' class."""
    shallow: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of timm's model, transformers' config or ours that keep every kind of part, but
    make it fit for CI."""
    processor: str = ""
    """transformers' image processor."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """transformers: what differs from the defaults of the config class."""
    model_output: tuple[str, ...] = ()
    """transformers: what is kept of it; empty: what an export keeps by itself."""
    small_input: bool = False
    """Whether CI gives it 128×128 pixels."""
    like_another: bool = False
    """Whether CI has a row of the same parts, from elsewhere or of another training."""
    slow: bool = False
    """Whether it cannot be made small enough."""
    spared: bool = False
    """Whether its random weights leave so little in INT8 that layers stay in float."""

    @property
    def fits_ci(self):
        """Whether it is worth CI's time."""
        return not (self.slow or self.like_another)

    @property
    def name(self):
        return f"{self.source}:{self.model}"


SWIN = {"depths": [2, 1], "num_heads": [3, 6], "embed_dim": 48}
SEGFORMER = {
    **{"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [8, 1], "hidden_sizes": [32, 64]},
    **{"patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [1, 2]},
    "mlp_ratios": [4, 4],
}
SETR = {"depth": 4, "width": 192, "mlp_width": 768, "heads": 3, "first_width": 64}
SETR["decoder_width"] = 64
TOWER = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
TOWER["num_hidden_layers"] = 2
TOWERS = {"vision_config": TOWER, "text_config": {"num_hidden_layers": 1}}
OF_TOWERS = ("last_hidden_state", "image_embeds")
DEEP = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
ROWS = (
    Row("timm", "vit_tiny_patch16_224", {"depth": 2}, like_another=True),
    Row("timm", "deit_tiny_patch16_224", {"depth": 2}, like_another=True),
    Row("timm", "deit_tiny_distilled_patch16_224", {"depth": 2}, like_another=True),
    Row("timm", "vit_tiny_r_s16_p8_224", {"depth": 2}, like_another=True),
    Row("timm", "swin_tiny_patch4_window7_224", {**SWIN, "img_size": 112}),
    Row("timm", "swinv2_tiny_window8_256", SWIN, like_another=True),
    Row(
        "timm",
        "beit_base_patch16_224",
        {"depth": 2, "embed_dim": 192, "num_heads": 3},
        like_another=True,
    ),
    Row("timm", "vit_small_patch14_reg4_dinov2", {"depth": 2, "img_size": 224}, like_another=True),
    Row("timm", "eva02_tiny_patch14_224", {"depth": 2}, slow=True),
    Row("timm", "pvt_v2_b0", {"depths": [1, 1, 1, 1]}, like_another=True),
    Row("timm", "mobilevit_xxs", small_input=True, slow=True),
    Row("torchvision", "vit_b_16", slow=True),
    Row("torchvision", "swin_t", slow=True),
    Row(
        "hf",
        "ViTForImageClassification",
        {"num_hidden_layers": 2, **DEEP},
        "ViTImageProcessor",
        like_another=True,
    ),
    Row(
        "hf",
        "Dinov2ForImageClassification",
        {"num_hidden_layers": 2, "hidden_size": 192, "num_attention_heads": 3},
        "BitImageProcessor",
        like_another=True,
    ),
    Row(
        "hf",
        "Dinov2WithRegistersForImageClassification",
        {"num_hidden_layers": 2, "hidden_size": 192, "num_attention_heads": 3},
        "BitImageProcessor",
        like_another=True,
    ),
    Row("hf", "SwinForImageClassification", SWIN, "ViTImageProcessor", like_another=True),
    Row(
        "hf",
        "SegformerForSemanticSegmentation",
        SEGFORMER,
        "SegformerImageProcessor",
        {"num_labels": 19},
        small_input=True,
    ),
    Row(
        "hf",
        "BeitForSemanticSegmentation",
        {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4], **DEEP},
        "BeitImageProcessor",
        {"num_labels": 19, "use_relative_position_bias": True, "out_indices": [3, 5, 7, 11]},
        like_another=True,
    ),
    Row(
        "hf",
        "DetrForObjectDetection",
        {"encoder_layers": 1, "decoder_layers": 1},
        "DetrImageProcessor",
        {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None},
        small_input=True,
        slow=True,
    ),
    Row(
        "hf",
        "YolosForObjectDetection",
        {"num_hidden_layers": 2, "image_size": [128, 128], "num_detection_tokens": 20, **DEEP},
        "YolosImageProcessor",
        small_input=True,
        like_another=True,
    ),
    Row(
        "hf",
        "RTDetrForObjectDetection",
        {
            **{"decoder_layers": 1, "num_queries": 20, "encoder_hidden_dim": 64, "d_model": 64},
            **{"encoder_ffn_dim": 128, "decoder_ffn_dim": 128},
            "decoder_in_channels": [64, 64, 64],
        },
        "RTDetrImageProcessor",
        small_input=True,
        spared=True,
        slow=True,
    ),
    Row("zoo", "detr_resnet50", {"encoder_layers": 1, "decoder_layers": 1}, like_another=True),
    Row("zoo", "setr_naive_base_patch16_768", SETR, small_input=True, like_another=True),
    Row("zoo", "setr_pup_base_patch16_768", SETR, small_input=True, like_another=True),
    Row("zoo", "setr_mla_base_patch16_768", SETR, small_input=True, like_another=True),
    *(
        Row(
            *("hf", f"{kind}Model", TOWERS, f"{kind}ImageProcessor"),
            model_output=OF_TOWERS,
            like_another=True,
        )
        for kind in ("CLIP", "Siglip")
    ),
)


@dataclass(frozen=True)
class Quantized:
    """One INT8 artifact of a row."""

    sqnr_db: float
    worst_db: float | None
    """SQNR of the worst token, pixel or query; None of an output that has none. A query that
    scores order is counted by its place in FP32's order."""
    box_iou: float | None
    """Of a detector's boxes with FP32's."""
    worst_box_db: float | None
    """SQNR of the worst query's box."""
    quantized: int
    """Operators with multiply-accumulates that run in INT8."""
    kept: dict[str, int]
    """Reason -> operators kept in float for it, attention products aside."""


@dataclass(frozen=True)
class Result:
    """What came of a row."""

    params: int
    parity: float
    """Largest error of the FP32 graph, relative to the source's largest output."""
    int8: dict[str, Quantized]
    """By target."""


def run(row, folder, *, shallow):
    """Export a row to FP32 and INT8 for both runtimes and compare INT8 with FP32."""
    made, params = exported(row, folder, shallow=shallow)
    images = photographs(CALIBRATION_IMAGES + EVALUATION_IMAGES)
    np.savez(folder / "others.npz", images=images[CALIBRATION_IMAGES:])
    int8 = {}
    for bundle in (m.bundle for m in made if m.bundle.manifest.precision == "int8"):
        reference = bundle.reference()
        spec = bundle.manifest.preprocessing.host
        others = open_images(str(folder / "others.npz"), "calibration", spec, ())
        (batch,) = others.batches(EVALUATION_IMAGES)
        model, orders = bundle.manifest.model, bundle.manifest.orders
        names = [output.name for output in bundle.manifest.outputs]
        errors = OutputErrors(names, model.task, orders, model.detection)
        by_place = OutputErrors(names, model.task)  # of queries in FP32's order, too
        with open_session(bundle) as artifact, open_session(reference) as fp32:
            want = run_all(fp32, batch.images)
            got = errors.matched(want, run_all(artifact, batch.images))
        for part in (errors, by_place):
            part.update(want, got)
        numerics, places = errors.result("photographs"), by_place.result("photographs")
        boxes = numerics.detections and places.outputs[names[1]]
        layers = bundle.manifest.quantization.layers
        int8[bundle.manifest.target.name] = Quantized(
            sqnr_db=numerics.sqnr_db,
            worst_db=places.worst_token_db,
            box_iou=numerics.detections and numerics.detections.box_iou,
            worst_box_db=boxes and boxes.worst_token_db,
            quantized=sum(layer.quantized for layer in layers),
            kept=Counter(
                layer.op
                for layer in layers
                if not layer.quantized and layer.role in ("linear", "conv")
            ),
        )
    return Result(params, made[0].bundle.manifest.parity.max_rel_error, int8)


def exported(row, folder, *, shallow, batch=None):
    """The FP32 and INT8 bundles of a row for both runtimes, and its number of parameters."""
    asked, params = request(row, folder / "source", shallow)
    images = photographs(CALIBRATION_IMAGES)
    np.savez(folder / "calibration.npz", images=images)
    made = export(
        ExportRequest(
            asked,
            TARGETS,
            "int8",
            calib_data=str(folder / "calibration.npz"),
            calibration="fast" if shallow else "default",
            duration_s=0,
            batch=batch,
            output=folder / "artifacts",
        ),
        Steps(None),
    )
    return made, params


def request(row, folder, shallow):
    """How a user would name the row's model, and its number of parameters."""
    folder.mkdir()
    torch.manual_seed(0)  # among random weights are unlucky ones: MobileViT had 13 to 27 dB
    if row.source == "torchvision":
        from torchvision import models

        module = models.get_model(row.model, weights=None)
        if row.model.startswith("vit_"):  # torchvision starts its head at zero: nothing to compare
            module.heads.head.reset_parameters()
        save_file(module.state_dict(), folder / "weights.safetensors")
        return ModelRequest(row.name, weights=folder / "weights.safetensors"), _params(module)
    if row.source == "zoo":
        card = ZOO[row.model]
        side = 128 if shallow else ZOO_PX
        shape = {"image_size": (side, side), **(row.shallow if shallow else {})}
        module = build(replace(card.config, **shape)).eval()
        preprocess = msgspec.structs.replace(card.preprocess, height=side, width=side)
        random_weights.spread(module, preprocess)
        model = load(module, preprocess=preprocess, task=card.task, name=row.model)
        return model, _params(module)
    if row.source == "timm":
        import timm
        from timm.models import save_for_hf

        arguments = dict(row.shallow) if shallow else {}
        module = timm.create_model(row.model, **arguments)
        if shallow and row.small_input:
            module.pretrained_cfg["input_size"] = (3, 128, 128)
        save_for_hf(module, folder, model_args=arguments)
        return ModelRequest(f"timm:local-dir:{folder}"), _params(module)
    import transformers

    from vitedge.models.sources.hf_model import ImageModel

    kind, side = getattr(transformers, row.model), 128 if shallow else 640
    arguments = {**row.config, **(row.shallow if shallow else {})}
    if row.processor == "DetrImageProcessor":
        depths = [1, 1] if shallow else [3, 4, 6, 3]
        arguments["backbone_config"] = transformers.ResNetConfig(
            depths=depths,
            hidden_sizes=[256, 512, 1024, 2048][: len(depths)],
            out_features=[f"stage{len(depths)}"],
        )
    module = kind(kind.config_class(**arguments)).eval()
    if row.spared:  # as they start, all tokens have one score, and rounding chooses the queries
        model = ImageModel(module, Preprocess(height=side, width=side))
        model.names = ("logits", "pred_boxes")
        random_weights.spread(model, Preprocess(height=side, width=side))
    module.save_pretrained(folder)
    sizes = {"size": {"height": side, "width": side}} if shallow and row.small_input else {}
    getattr(transformers, row.processor)(**sizes).save_pretrained(folder)
    return ModelRequest(f"hf:{folder}", model_output=row.model_output), _params(module)


def _params(module):
    return sum(parameter.numel() for parameter in module.parameters())


def photographs(count):
    """Crops of two real photographs, (count, 300, 300, 3)."""
    rng = np.random.default_rng(0)
    crops = []
    for index in range(count):
        photograph = load_sample_images().images[index % 2]  # (427, 640, 3)
        top, left = rng.integers(0, 127), rng.integers(0, 340)
        crops.append(photograph[top : top + 300, left : left + 300])
    return np.stack(crops)
