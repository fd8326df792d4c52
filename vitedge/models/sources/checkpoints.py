"""Weights files into state dicts, without running anything they contain."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vitedge.core.errors import InputError, error_line
from vitedge.models.sources.layouts import to_timm
from vitedge.models.zoo import ZOO, ZooModel
from vitedge.models.zoo.build import build
from vitedge.models.zoo.configs import Config, HybridConfig, ViTConfig
from vitedge.models.zoo.vit import VisionTransformer

# keys under which training scripts keep the state dict; averaged weights where there are no others
_WRAPPERS = ("state_dict", "model")
_AVERAGED = ("state_dict_ema", "model_ema", "ema")

_TRAINING_PREFIXES = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile
_HEADS = ("head.", "head_dist.", "fc.", "classifier.")

ConfigT = TypeVar("ConfigT", bound=Config)


def read(path: Path) -> dict[str, Tensor]:
    """Read a weights file as `read_tensors` does, in timm's layout where `to_timm` knows its own.

    This is how the models of the zoo want it.
    """
    return to_timm(read_tensors(path))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors`, `.pt`, `.pth` or (JAX's) `.npz` file as a state dict on the CPU.

    Pickles are read with `weights_only=True`, which refuses everything but tensors and plain
    containers, and arrays without pickles. What training put before every name is gone. Raises
    InputError for anything else, and for NaN or infinite weights.
    """
    if not path.is_file():
        raise InputError(f"no weights file at {path}", fix="check the path")
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{path} is not a whole safetensors file: {error}", fix="download or save it again"
            ) from error
    elif path.suffix == ".npz":
        state = _read_arrays(path)
    else:
        state = _read_pickle(path)
    require_finite(state, path)
    return _without_training_prefixes(state)


def _without_training_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` without what DistributedDataParallel and torch.compile put before every name."""
    for prefix in _TRAINING_PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            return _without_training_prefixes(
                {name.removeprefix(prefix): tensor for name, tensor in state.items()}
            )
    return state


def load_weights(module: nn.Module, path: Path, *, headless: bool = False) -> None:
    """Fill a library's own module from a weights file in its layout. Raises InputError.

    Of a `headless` module, a classifier's head in the file is left out.
    """
    state = read_tensors(path)
    if headless:
        own = module.state_dict().keys()
        state = {k: v for k, v in state.items() if k in own or not k.startswith(_HEADS)}
    refuse_misfit(
        problems(module, state),
        path,
        fix="give weights of this very architecture, in its library's layout, with as many classes",
    )
    module.load_state_dict(state)


def require_finite(state: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise InputError, naming `source` and the tensor, for NaN or infinite weights."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(
                f"{source}: tensor '{name}' holds NaN or infinity",
                fix="these weights are damaged: use an earlier checkpoint",
            )


def _read_arrays(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except Exception as error:  # numpy raises zip, zlib, value, type, memory and OS errors alike
        raise InputError(
            f"{path} is not a whole file of numeric arrays: {error_line(error)}",
            fix="download it again; vitedge never unpickles code",
        ) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and OS errors alike
        raise InputError(
            f"{path} cannot be read as tensors only: {error_line(error)}",
            fix="save its state_dict() as safetensors; vitedge never unpickles code",
        ) from error
    for keys in (_WRAPPERS, _AVERAGED):
        for key in keys:
            if isinstance(content, dict) and isinstance(content.get(key), dict):
                content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided
        for name, value in content.items()
    ):
        raise InputError(
            f"{path} holds no state dict (names to dense tensors)",
            fix="save model.state_dict() rather than the model",
        )
    return content


def adapt(config: ConfigT, state: Mapping[str, Tensor]) -> ConfigT:
    """`config` with as many classes as the head of `state` (timm's layout) has.

    A ViT without a head has 0 classes; such an encoder may end in its norm where a classifier of
    its family pools first (MAE), and is pooled by its class token then.
    """
    if isinstance(config, HybridConfig):
        return dataclasses.replace(config, vit=adapt(config.vit, state))
    if isinstance(config, ViTConfig) and "head.weight" not in state:
        pool = "token" if "norm.weight" in state else config.pool
        return dataclasses.replace(config, num_classes=0, pool=pool)
    for name in ("head.weight", "fc.weight", "classifier.weight"):  # ViT, ResNet, FPN
        if name in state and state[name].ndim > 1:
            return dataclasses.replace(config, num_classes=len(state[name]))
    return config


def load_into(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy `state`, which comes from `path`, into `model`; names and shapes must match exactly.

    Except for the position embeddings of our ViTs: those of another resolution are interpolated.
    Raises InputError with what does not fit, and leaves `model` as it was.
    """
    state = _at_resolution_of(model, state)
    if misfits := problems(model, state):
        refuse_misfit(misfits, path, fix=_advice(state))
    model.load_state_dict(state)


def refuse_misfit(problems: Mapping[str, list[str]], source: str | Path, fix: str) -> None:
    """Raise InputError if there are `problems`: lists of tensors by kind ("missing", ...)."""
    listing = "; ".join(
        f"{len(names)} {kind} ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
        for kind, names in problems.items()
        if names
    )
    if listing:
        raise InputError(f"{source} does not fit the model: {listing}", fix=fix)


def misfit(error: Exception) -> dict[str, list[str]]:
    """What torch's `load_state_dict` says does not fit, by kind; empty for any other error."""
    said = str(error)
    quoted = {
        kind: re.findall(r'"([^"]+)"', match[1])
        for kind, title in (("missing", "Missing"), ("unexpected", "Unexpected"))
        if (match := re.search(rf"{title} key\(s\) in state_dict: (.*)", said))
    }
    shapes = re.findall(
        r"size mismatch for (\S+): .*?torch\.Size\(\[(.*?)\]\).*?torch\.Size\(\[(.*?)\]\)", said
    )
    misshaped = [f"{name} ({theirs}), not ({ours})" for name, theirs, ours in shapes]
    return quoted | ({"misshaped": misshaped} if misshaped else {})


def problems(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """What of `state` does not fit `model`, by kind; empty where all does."""
    own = model.state_dict()
    misfits = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "misshaped": [
            f"{name} {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
            for name in sorted(own.keys() & state.keys())
            if state[name].shape != own[name].shape
        ],
    }
    return {kind: names for kind, names in misfits.items() if names}


def _advice(state: Mapping[str, Tensor]) -> str:
    """What to do about a `state` that does not fit the model it was meant for."""
    if any(name.startswith("pre_logits.") for name in state):
        return (
            "they have a layer between encoder and head (pre_logits) that these models lack, and "
            "without which the head is wrong: use fine-tuned weights, or drop both"
        )
    return nearest_arch(state, ZOO)


def nearest_arch(state: Mapping[str, Tensor], zoo: Mapping[str, ZooModel]) -> str:
    """Return a fix hint for weights of an unknown architecture: the models of `zoo` they fit."""
    names = fitting_archs(state, zoo)
    if not names:
        return "see 'vitedge models list' for the architecture these weights belong to"
    hint = f"these tensors have the shapes of {' and '.join(repr(name) for name in names)}"
    if len(names) == 1:
        return f"{hint}; pass --arch {names[0]}"
    return (
        f"{hint}, of different preprocessing; pass --arch {names[0]}, or what they were trained as"
    )


def fitting_archs(state: Mapping[str, Tensor], zoo: Mapping[str, ZooModel]) -> list[str]:
    """Names of the models of `zoo` that `state` (timm's layout) loads into, in the zoo's order.

    Those of the resolution of `state`, or else those that only its position embeddings must be
    interpolated for.
    """
    exact, other_resolution = [], []
    size = sum(tensor.numel() for tensor in state.values())
    for name, known in zoo.items():
        config = adapt(known.config, state)
        if not size / 2 < config.params < size * 2:
            continue  # building takes longer; positions and buffers never make up the half
        with torch.device("meta"):  # shapes only
            model = build(config)
        if not problems(model, state):
            exact.append(name)
        elif not problems(model, _at_resolution_of(model, state)):
            other_resolution.append(name)
    return exact or other_resolution


def _at_resolution_of(model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`state` with its position embeddings interpolated to the grid of `model`, a ViT."""
    positions = state.get("pos_embed")
    if not isinstance(model, VisionTransformer) or positions is None:
        return state
    config = model.config
    tokens, width = config.tokens, config.width
    if positions.ndim != 3 or positions.shape[::2] != (1, width) or positions.shape[1] == tokens:
        return state
    patches = positions.shape[1] - config.prefix_tokens
    if patches < 1 or math.isqrt(patches) ** 2 != patches:
        return state
    resampled = resample_positions(positions, config.prefix_tokens, config.grid)
    return {**state, "pos_embed": resampled}


def resample_positions(positions: Tensor, prefix_tokens: int, grid: tuple[int, int]) -> Tensor:
    """Position embeddings (1, prefix_tokens + n², D) of a square image for patches down × across.

    Bicubic and antialiased in float32; the class and distillation tokens' stay. As timm's
    `resample_abs_pos_embed`; section 3.2 of the ViT paper. Returns the dtype of `positions`.
    """
    prefix, patches = positions[:, :prefix_tokens], positions[:, prefix_tokens:]
    side = math.isqrt(patches.shape[1])
    image = patches.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, D, n, n)
    image = nn.functional.interpolate(image, size=grid, mode="bicubic", antialias=True)
    return torch.cat([prefix, image.flatten(2).mT.to(positions.dtype)], dim=1)


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, dtypes and bytes in name order: the same for every container."""
    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().contiguous()
        sha.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        sha.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
