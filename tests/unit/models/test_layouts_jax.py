"""The original checkpoints, in the layout of the authors' JAX code."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.small_vits import CLASSES, CONFIG, TIMM, assert_parity, load, refusal, trained
from vitedge.models.zoo import ZOO

pytestmark = pytest.mark.usefixtures("peers")


def jax_arrays(model):
    """The weights of a timm ViT as the authors' Flax code keeps them."""
    arrays = {}

    def dense(name, layer):
        arrays[f"{name}/kernel"], arrays[f"{name}/bias"] = layer.weight.T, layer.bias

    def norm(name, layer, shape=(-1,)):
        arrays[f"{name}/scale"] = layer.weight.reshape(shape)
        arrays[f"{name}/bias"] = layer.bias.reshape(shape)

    def conv(name, layer):
        arrays[f"{name}/kernel"] = layer.weight.permute(2, 3, 1, 0)

    arrays["cls"] = model.cls_token
    arrays["Transformer/posembed_input/pos_embedding"] = model.pos_embed
    conv("embedding", model.patch_embed.proj)
    arrays["embedding/bias"] = model.patch_embed.proj.bias
    norm("Transformer/encoder_norm", model.norm)
    dense("head", model.head)
    width, heads = model.embed_dim, model.blocks[0].attn.num_heads
    for index, block in enumerate(model.blocks):
        prefix = f"Transformer/encoderblock_{index}"
        norm(f"{prefix}/LayerNorm_0", block.norm1)
        norm(f"{prefix}/LayerNorm_2", block.norm2)
        dense(f"{prefix}/MlpBlock_3/Dense_0", block.mlp.fc1)
        dense(f"{prefix}/MlpBlock_3/Dense_1", block.mlp.fc2)
        attention = f"{prefix}/MultiHeadDotProductAttention_1"
        weights, biases = block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3)
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            arrays[f"{attention}/{part}/kernel"] = weight.T.reshape(width, heads, -1)
            arrays[f"{attention}/{part}/bias"] = bias.reshape(heads, -1)
        arrays[f"{attention}/out/kernel"] = block.attn.proj.weight.T.reshape(heads, -1, width)
        arrays[f"{attention}/out/bias"] = block.attn.proj.bias
    if hasattr(model.patch_embed, "backbone"):
        backbone = model.patch_embed.backbone
        stem = getattr(backbone, "stem", backbone)
        conv("conv_root", stem.conv)
        norm("gn_root", stem.norm)
        for stage, layers in enumerate(getattr(backbone, "stages", ()), 1):
            for index, unit in enumerate(layers.blocks, 1):
                prefix = f"block{stage}/unit{index}"
                for part in (1, 2, 3):
                    conv(f"{prefix}/conv{part}", getattr(unit, f"conv{part}"))
                    norm(f"{prefix}/gn{part}", getattr(unit, f"norm{part}"), (1, 1, 1, -1))
                if unit.downsample is not None:
                    conv(f"{prefix}/conv_proj", unit.downsample.conv)
                    norm(f"{prefix}/gn_proj", unit.downsample.norm, (1, 1, 1, -1))
    return {name: tensor.detach().numpy() for name, tensor in arrays.items()}


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_the_original_jax_checkpoints_load(tmp_path, prefix):
    from timm.models.vision_transformer import VisionTransformer as Timm

    arrays = jax_arrays(trained(Timm(**TIMM)))
    path = tmp_path / "ViT.npz"
    state = {"opt/state/step": np.array(3)} if prefix else {}
    np.savez(path, **{prefix + name: array for name, array in arrays.items()}, **state)
    peer = Timm(**TIMM).eval()
    peer.load_pretrained(str(path))
    assert_parity(load(path, CONFIG), peer)


@pytest.mark.parametrize("name", ["vit_tiny_r_s16_p8_224", "vit_small_r26_s32_224"])
def test_the_original_jax_hybrids_load(tmp_path, name):
    import timm

    def build_peer():
        with torch.device("meta"):  # filled or loaded below: no start of its own is drawn
            peer = timm.create_model(name, depth=1, img_size=64, num_classes=CLASSES)
        return peer.to_empty(device="cpu").eval()

    path = tmp_path / "hybrid.npz"
    np.savez(path, **jax_arrays(trained(build_peer())))
    peer = build_peer()
    peer.load_pretrained(str(path))
    ours = load(path, replace(ZOO[name].config, depth=1, image_size=(64, 64)))
    assert_parity(ours, peer, (64, 64))


def test_a_head_behind_another_layer_is_refused_rather_than_misread(tmp_path):
    from timm.models.vision_transformer import VisionTransformer as Timm

    path = tmp_path / "in21k.npz"
    pre_logits = {"pre_logits/kernel": np.ones((48, 48), np.float32)}
    np.savez(path, **jax_arrays(Timm(**TIMM)), **pre_logits)
    error = refusal(path)
    assert "unexpected (pre_logits.fc.weight)" in error.what
    assert "pre_logits" in error.fix
