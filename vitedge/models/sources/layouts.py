"""Whose state dict is this? Its tensors under timm's names, which are also ours.

Layouts are data: what a tensor is called there, and what it is called here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_Rule = tuple[str, str | Callable[[re.Match[str]], str]]

_HUGGING_FACE: tuple[_Rule, ...] = (
    (r"^(?:vit|deit)\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^(?:encoder\.layer|layers)\.(\d+)\.", r"blocks.\1."),  # the hub's files | transformers 5
    (r"\.attention\.(?:attention\.query|q_proj)\.", ".attn.query."),
    (r"\.attention\.(?:attention\.key|k_proj)\.", ".attn.key."),
    (r"\.attention\.(?:attention\.value|v_proj)\.", ".attn.value."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"^layernorm\.", "norm."),
    (r"^(?:cls_)?classifier\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
)
_HUGGING_FACE_DROPPED = re.compile(
    r"(?:(?:vit|deit)\.)?(?:pooler\.|embeddings\.mask_token$)|decoder\."
)

_TORCHVISION: tuple[_Rule, ...] = (
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.self_attention\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),  # linear_1, linear_2: the published files
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
    (r"^heads\.pre_logits\.", "pre_logits.fc."),
)

_DETR_OF_BOTH: tuple[_Rule, ...] = (
    # the ResNet of timm and torchvision, and of transformers
    (r"^(?:model\.backbone\.(?:conv_encoder\.)?model|backbone\.0\.body)\.", "backbone."),
    (r"^backbone\.embedder\.embedder\.convolution\.", "backbone.conv1."),
    (r"^backbone\.embedder\.embedder\.normalization\.", "backbone.bn1."),
    (
        r"^backbone\.encoder\.stages\.(\d+)\.layers\.(\d+)\.",
        lambda at: f"backbone.layer{int(at[1]) + 1}.{at[2]}.",
    ),
    (r"(backbone\..*)\.shortcut\.convolution\.", r"\1.downsample.0."),
    (r"(backbone\..*)\.shortcut\.normalization\.", r"\1.downsample.1."),
    (
        r"(backbone\..*)\.layer\.(\d+)\.(convolution|normalization)\.",
        lambda at: f"{at[1]}.{'conv' if at[3][0] == 'c' else 'bn'}{int(at[2]) + 1}.",
    ),
)
_DETR: tuple[_Rule, ...] = (
    *_DETR_OF_BOTH,
    (r"^transformer\.(encoder|decoder)\.layers\.", r"\1."),
    (r"^transformer\.decoder\.norm\.", "norm."),
    (r"\.multihead_attn\.", ".cross_attn."),
)
_DETR_HUGGING_FACE: tuple[_Rule, ...] = (
    *_DETR_OF_BOTH,
    (r"^model\.(encoder|decoder)\.layers\.", r"\1."),
    (r"^model\.decoder\.layernorm\.", "norm."),
    (r"^model\.query_position_embeddings\.", "query_embed."),
    (r"^model\.input_projection\.", "input_proj."),
    (r"^class_labels_classifier\.", "class_embed."),
    (r"^bbox_predictor\.", "bbox_embed."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.o_proj\.", ".out_proj."),
    (r"\.(?:mlp\.)?fc([12])\.", r".linear\1."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"^(decoder\..*)\.encoder_attn_layer_norm\.", r"\1.norm2."),
    (r"^(encoder\..*)\.final_layer_norm\.", r"\1.norm2."),
    (r"^(decoder\..*)\.final_layer_norm\.", r"\1.norm3."),
)

_JAX_TARGET = "opt/target/"  # the weights of a file that also holds the optimiser's state
_JAX: tuple[_Rule, ...] = (
    (r"^embedding/", "patch_embed.proj."),
    (r"^cls$", "cls_token"),
    (r"^Transformer/posembed_input/pos_embedding$", "pos_embed"),
    (r"^Transformer/encoderblock_(\d+)/", r"blocks.\1."),
    (r"\.LayerNorm_0/", ".norm1."),
    (r"\.LayerNorm_2/", ".norm2."),
    (r"\.MultiHeadDotProductAttention_1/out/", ".attn.proj."),
    (r"\.MultiHeadDotProductAttention_1/(query|key|value)/", r".attn.\1."),
    (r"\.MlpBlock_3/Dense_0/", ".mlp.fc1."),
    (r"\.MlpBlock_3/Dense_1/", ".mlp.fc2."),
    (r"^Transformer/encoder_norm/", "norm."),
    (r"^pre_logits/", "pre_logits.fc."),
    (r"^head/", "head."),
    # the ResNet of a hybrid
    (r"^(conv|gn)_root/", r"patch_embed.backbone.stem.\1_root/"),
    (
        r"^block(\d+)/unit(\d+)/",
        lambda at: f"patch_embed.backbone.stages.{int(at[1]) - 1}.blocks.{int(at[2]) - 1}.",
    ),
    (r"\.conv_root/", ".conv."),
    (r"\.gn_root/", ".norm."),
    (r"\.conv_proj/", ".downsample.conv."),
    (r"\.gn_proj/", ".downsample.norm."),
    (r"\.conv(\d)/", r".conv\1."),
    (r"\.gn(\d)/", r".norm\1."),
    (r"\.(?:kernel|scale)$", ".weight"),
)


def to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `state` under timm's names and in timm's shapes.

    The layout is told from the names: timm, DeiT and MAE (as they are), Hugging Face ViT, DeiT and
    ViTMAE, torchvision's vit_*, the original JAX checkpoints of ViT and hybrids, and DETR's, the
    original and Hugging Face's. Anything else comes back as it is, and so does every tensor no
    layout knows.

    Dropped is what takes no part in classification: Hugging Face's pooler, mask tokens, the
    decoder of MAE's pre-training and JAX's optimiser state. A Hugging Face DeiT with one classifier
    reads the class token only; twice its head and a head of zeros on the distillation token have
    exactly its logits as their mean. A layer between encoder and head (`pre_logits`) stays and fits
    no model: without it the head would read what it was not trained on.
    """
    if "embedding/kernel" in state or _JAX_TARGET + "embedding/kernel" in state:
        return _from_jax(state)
    if "class_token" in state and "encoder.pos_embedding" in state:
        return _renamed(state, _TORCHVISION)
    if "class_labels_classifier.weight" in state and "model.input_projection.weight" in state:
        return _detr(_renamed(state, _DETR_HUGGING_FACE))
    if "transformer.decoder.norm.weight" in state:
        return _detr(_renamed(state, _DETR))
    if any(
        f"{prefix}embeddings.patch_embeddings.projection.weight" in state
        for prefix in ("vit.", "deit.", "")
    ):
        return _from_hugging_face(state)
    if "decoder_embed.weight" in state:  # MAE's pre-training
        state = {
            name: tensor
            for name, tensor in state.items()
            if not name.startswith("decoder_") and name != "mask_token"
        }
    return dict(state)


def _renamed(state: Mapping[str, Tensor], rules: tuple[_Rule, ...]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for original, tensor in state.items():
        name = original
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[original if name in renamed else name] = tensor  # two of a name: show it, lose none
    return renamed


def _from_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = {name: t for name, t in state.items() if not _HUGGING_FACE_DROPPED.match(name)}
    converted = _fused(_renamed(tensors, _HUGGING_FACE))
    if "dist_token" in converted and "head_dist.weight" not in converted:
        for name in ("head.weight", "head.bias"):
            if name in converted:
                converted[name.replace("head", "head_dist")] = torch.zeros_like(converted[name])
                converted[name] = 2 * converted[name]
    return converted


def _from_jax(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if _JAX_TARGET + "embedding/kernel" in state:
        state = {
            name.removeprefix(_JAX_TARGET): tensor
            for name, tensor in state.items()
            if name.startswith(_JAX_TARGET)
        }
    stem_only = not any(name.startswith("block1/") for name in state)
    converted = _fused(_renamed({n: _jax_tensor(n, t) for n, t in state.items()}, _JAX))
    if stem_only:
        return _renamed(converted, ((r"^patch_embed\.backbone\.stem\.", "patch_embed.backbone."),))
    return converted


def _jax_tensor(name: str, tensor: Tensor) -> Tensor:
    """Flax keeps inputs first and outputs last, heads apart, norms as (1, 1, 1, C)."""
    leaf = name.rpartition("/")[2]
    if leaf in ("scale", "bias"):
        return tensor.flatten()
    if leaf != "kernel":
        return tensor
    if tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1)  # (h, w, in, out) -> (out, in, h, w)
    if tensor.ndim == 3:  # out: (heads, D_h, D); query, key, value: (D, heads, D_h)
        tensor = tensor.flatten(0, 1) if name.endswith("/out/kernel") else tensor.flatten(1)
    return tensor.mT if tensor.ndim == 2 else tensor


def _detr(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """With a Linear each for queries, keys and values, and frozen BatchNorms as any others."""
    split: dict[str, Tensor] = {}
    for name, tensor in state.items():
        stem, projects, kind = name.partition(".in_proj_")
        if projects:
            parts = zip("qkv", tensor.chunk(3), strict=True)
            split |= {f"{stem}.{part}_proj.{kind}": own.contiguous() for part, own in parts}
            continue
        split[name] = tensor
        if name.endswith(".running_mean"):
            counter = name.replace(".running_mean", ".num_batches_tracked")
            split.setdefault(counter, state.get(counter, torch.tensor(0)))
    return split


def _fused(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each block's query, key and value as the one matrix timm keeps, in this order."""
    fused = dict(state)
    for name in state:
        match = re.fullmatch(r"(blocks\.\d+\.attn)\.query\.(weight|bias)", name)
        if not match:
            continue
        names = [f"{match[1]}.{part}.{match[2]}" for part in ("query", "key", "value")]
        parts = [state[part] for part in names if part in state]
        if len(parts) == 3 and parts[0].shape == parts[1].shape == parts[2].shape != ():
            for part in names:
                del fused[part]
            fused[f"{match[1]}.qkv.{match[2]}"] = torch.cat(parts)
    return fused
