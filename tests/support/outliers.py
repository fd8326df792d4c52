"""A trained ViT given outliers that do not change what it computes in FP32, at any strength.

LayerNorm, value and query channels are scaled up, and what reads them down by as much; or the
residual stream is: what public checkpoints have by nature (|x| up to 1418 in a ViT-B).
"""

from pathlib import Path
from typing import Literal

import numpy as np
from safetensors.numpy import load_file, save_file

import vitedge.models.zoo

Site = Literal["norm", "value", "query", "all"]
DIGITS_WEIGHTS = Path(vitedge.models.zoo.__file__).with_name("digits.safetensors")
SHARE = 0.05
"""Of the channels of every layer; at least one."""


def write_digits(path, site, strength, seed):
    """Save `digits` with random channels of `site` scaled by `strength` or its inverse."""
    state = load_file(DIGITS_WEIGHTS)
    width = len(state["norm.weight"])
    rng = np.random.default_rng(seed)

    def factors():
        values = np.ones(width, np.float32)
        chosen = rng.choice(width, max(1, int(SHARE * width)), replace=False)
        values[chosen] = strength ** rng.choice([-1.0, 1.0], len(chosen), p=[0.25, 0.75])
        return values

    def scale_norm(norm, linear):
        grown = factors()
        state[f"{norm}.weight"] = state[f"{norm}.weight"] * grown
        state[f"{norm}.bias"] = state[f"{norm}.bias"] * grown
        state[f"{linear}.weight"] = state[f"{linear}.weight"] / grown

    blocks = sorted({int(name.split(".")[1]) for name in state if name.startswith("blocks.")})
    for block in (f"blocks.{index}" for index in blocks):
        if site in ("norm", "all"):
            scale_norm(f"{block}.norm1", f"{block}.attn.qkv")
            scale_norm(f"{block}.norm2", f"{block}.mlp.fc1")
        ones = np.ones(width, np.float32)
        query = factors() if site in ("query", "all") else ones
        value = factors() if site in ("value", "all") else ones
        rows = np.concatenate([query, 1 / query, value])
        state[f"{block}.attn.qkv.weight"] = state[f"{block}.attn.qkv.weight"] * rows[:, None]
        state[f"{block}.attn.qkv.bias"] = state[f"{block}.attn.qkv.bias"] * rows
        state[f"{block}.attn.proj.weight"] = state[f"{block}.attn.proj.weight"] / value
    if site in ("norm", "all"):
        scale_norm("norm", "head")
    save_file({name: np.ascontiguousarray(v, np.float32) for name, v in state.items()}, path)
    return path


def write_scaled(path, factor):
    """Save `digits` with its residual stream `factor` times larger, which every LayerNorm undoes.

    What writes into the stream is scaled: patches, positions, class token, and each block's two
    last linear layers. LN(a·x) = LN(x) but for ε, so that the function is the same.
    """
    state = load_file(DIGITS_WEIGHTS)
    into = ("patch_embed.proj", "attn.proj", "mlp.fc2", "pos_embed", "cls_token")
    for name in state:
        if any(part in name for part in into):
            state[name] = np.ascontiguousarray(state[name] * np.float32(factor))
    save_file(state, path)
    return path
