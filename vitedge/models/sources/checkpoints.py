"""Weights files into state dicts, without running anything they contain."""

from __future__ import annotations

import hashlib
import math
import re
from argparse import Namespace
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vitedge.core import npz, safetensors, torch_file
from vitedge.core.errors import InputError, error_line
from vitedge.core.torch_file import EXPANSION, EXPANSION_FREE
from vitedge.models.sources.layouts import to_timm
from vitedge.models.sources.misfit import problems, refuse_misfit
from vitedge.models.zoo import ZOO
from vitedge.models.zoo.build import build
from vitedge.models.zoo.configs import Config, DABDETRConfig, DETRConfig, SETRConfig, ViTConfig
from vitedge.models.zoo.costs import COSTS

# keys under which training scripts keep the state dict; averaged weights where there are no others
_WRAPPERS = ("state_dict", "model", "state_dict_ema", "model_ema", "ema")
_TRAINING_PREFIXES = re.compile(r"^(?:module\.|_orig_mod\.)*")  # DistributedDataParallel, compile
_HEADS = ("head.", "head_dist.", "fc.", "classifier.")

# suffix: what is wrong with a file that is not read, and what to do about it
_UNREADABLE = {
    ".safetensors": ("is not a whole safetensors file", "download or save it again"),
    ".npz": (
        "is not a whole file of numeric arrays",
        "download it again; vitedge never unpickles code",
    ),
}
_UNREADABLE_PICKLE = (
    "cannot be read as tensors only",
    "save its state_dict() as safetensors; vitedge never unpickles code",
)

ConfigT = TypeVar("ConfigT", bound=Config)


def read(path: Path) -> dict[str, Tensor]:
    """Read a weights file as `read_tensors` does, in timm's layout where `to_timm` knows its own.

    This is how the models of the zoo want it.
    """
    return to_timm(read_tensors(path))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors`, `.pt`, `.pth` or (JAX's) `.npz` file as a state dict.

    It is on torch's default device: on the CPU or, of shapes alone, on `meta`.

    Pickles are read with `weights_only=True`, which refuses everything but tensors and plain
    containers, and arrays without pickles. What training put before every name is gone. Raises
    InputError for anything else, and for NaN or infinite weights.
    """
    if not path.is_file():
        raise InputError(f"no weights file at {path}", fix="check the path")
    try:
        check_file(path)
        state = _content(path)
    except InputError:
        raise
    except Exception as error:  # pickle, zip, value, type, memory, safetensors and OS errors alike
        what, fix = _UNREADABLE.get(path.suffix, _UNREADABLE_PICKLE)
        raise InputError(f"{path} {what}: {error_line(error)}", fix=fix) from error
    for key in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided
        for name, value in state.items()
    ):
        raise InputError(
            f"{path} holds no state dict (names to dense tensors)",
            fix="save model.state_dict() rather than the model",
        )
    _check_size(state, path)
    require_finite(state, path)
    prefix = min((_TRAINING_PREFIXES.findall(name)[0] for name in state), key=len, default="")
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def check_file(path: Path) -> None:
    """Raises InputError where a weights file would be far larger in memory than it is.

    Any but .safetensors and .npz is one of torch's.
    """
    if path.suffix == ".safetensors":
        safetensors.check(path)
    elif path.suffix != ".npz":  # whose reader looks itself
        torch_file.check(path)


def _content(path: Path) -> Any:
    """What the library for files of that suffix reads, running nothing."""
    device = torch.get_default_device()
    if path.suffix == ".safetensors":
        return {name: tensor.to(device) for name, tensor in load_file(path).items()}
    if path.suffix == ".npz":
        with npz.arrays(path, _UNREADABLE[".npz"][1]) as arrays:
            return {name: torch.from_numpy(arrays[name]).to(device) for name in arrays}
    with torch.serialization.safe_globals([Namespace]):  # timm's and torchvision's training `args`
        return torch.load(path, map_location=device, weights_only=True)


def _check_size(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise InputError where tensors repeat the bytes of `path` far more often than ties do."""
    stated = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if stated > EXPANSION * path.stat().st_size + EXPANSION_FREE:
        raise InputError(
            f"{path} says that its tensors are {stated / 2**20:.0f} MiB, of a file of "
            f"{path.stat().st_size / 2**20:.1f}",
            fix="save its state_dict() as safetensors",
        )


def load_weights(
    module: nn.Module, classes: int, path: Path, make: Callable[[int], nn.Module]
) -> tuple[nn.Module, int]:
    """Fill a library's own module of so many classes from a weights file in its layout.

    Where the file's head has other classes it is `make(count)`, and that count, that come back; of
    a module without a head, that in the file is left out. Raises InputError.
    """
    state = read_tensors(path)
    if not classes:
        state = without_head(state, module.state_dict().keys())
    elif (count := _class_count(module, state, classes)) != classes:
        module, classes = make(count), count
    refuse_misfit(
        problems(module, state),
        path,
        fix="give weights of this very architecture, in its library's layout",
    )
    module.load_state_dict(state)
    return module, classes


def _class_count(module: nn.Module, state: Mapping[str, Tensor], classes: int) -> int:
    """Of how many classes `state` is, by the tensors that alone differ from those of `module`.

    `classes`, those of the module, where they do not agree on any other.
    """
    counts = set()
    for name, tensor in module.state_dict().items():
        theirs = state[name].shape if name in state else tensor.shape
        if theirs != tensor.shape:
            head = theirs and tensor.shape == (classes, *theirs[1:])
            counts.add(theirs[0] if head else classes)
    return counts.pop() if len(counts) == 1 else classes


def without_head(
    state: Mapping[str, Tensor], kept: Collection[str] = frozenset()
) -> dict[str, Tensor]:
    """`state` without the tensors of a classifier's head, but for those of the names `kept`."""
    return {k: v for k, v in state.items() if k in kept or not k.startswith(_HEADS)}


def require_finite(state: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise InputError, naming `source` and the tensor, for NaN or infinite weights.

    A number by itself may be infinite: a bound that bounds nothing (Gemma 4's clamps).
    """
    for name, tensor in state.items():
        if tensor.is_meta or not tensor.is_floating_point():
            continue
        if not (torch.isfinite(tensor).all() if tensor.ndim else not tensor.isnan()):
            raise InputError(
                f"{source}: tensor '{name}' holds NaN or infinity",
                fix="these weights are damaged: use an earlier checkpoint",
            )


def adapt(config: ConfigT, state: Mapping[str, Tensor]) -> ConfigT:
    """`config` with as many classes as the head of `state` (timm's layout) has.

    A ViT without a head has 0 classes; such an encoder may end in its norm where a classifier of
    its family pools first (MAE), and is pooled by its class token then.
    """
    if isinstance(config, ViTConfig) and "head.weight" not in state:
        pool = "token" if "norm.weight" in state else config.pool
        return replace(config, num_classes=0, pool=pool)
    if isinstance(config, DETRConfig | DABDETRConfig) and "class_embed.bias" in state:
        no_object = int(isinstance(config, DETRConfig))
        return replace(config, num_classes=len(state["class_embed.bias"]) - no_object)
    # ViT, ResNet, FPN, SETR
    for name in ("head.weight", "fc.weight", "classifier.weight", "decoder.classifier.weight"):
        if name in state and state[name].ndim > 1:
            return replace(config, num_classes=len(state[name]))
    return config


def load_into(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy `state`, which comes from `path`, into `model`; names and shapes must match exactly.

    Raises InputError with what does not fit, and leaves `model` as it was.
    """
    if misfits := problems(model, state):
        refuse_misfit(misfits, path, fix=_advice(state))
    model.load_state_dict(state)


def _advice(state: Mapping[str, Tensor]) -> str:
    """What to do about a `state` that does not fit the model it was meant for."""
    if any(name.startswith("pre_logits.") for name in state):
        return (
            "they have a layer between encoder and head (pre_logits) that these models lack, and "
            "without which the head is wrong: use fine-tuned weights, or drop both"
        )
    return nearest_arch(state)


def nearest_arch(state: Mapping[str, Tensor]) -> str:
    """Return a fix hint for weights of an unknown architecture: the models of the zoo they fit."""
    names = fitting_archs(state)
    if not names:
        return "see 'vitedge models list' for the architecture these weights belong to"
    hint = f"these tensors have the shapes of {' and '.join(repr(name) for name in names)}"
    if len(names) == 1:
        return f"{hint}; pass `arch={names[0]!r}`"
    return (
        f"{hint}, of different preprocessing; pass `arch={names[0]!r}`, "
        "or what they were trained as"
    )


def fitting_archs(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the models of the zoo that `state` (timm's layout) loads into, in its order.

    Those of the resolution of `state`, or else those that only its position embeddings must be
    interpolated for.
    """
    exact, other_resolution = [], []
    size = sum(tensor.numel() for tensor in without_head(state).values())
    for name, (params, _) in COSTS.items():
        if not size / 2 < params < size * 2:
            continue  # building takes longer; positions, buffers and heads never make up the half
        config = adapt(ZOO[name].config, state)
        with torch.device("meta"):  # shapes only
            model = build(config)
        if not problems(model, state):
            exact.append(name)
        elif not problems(model, at_resolution(config, state)):
            other_resolution.append(name)
    return exact or other_resolution


def at_resolution(config: Config, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`state`; its position embeddings interpolated where those of `config`, a ViT, are others."""
    positions = state.get("pos_embed")
    if not isinstance(config, ViTConfig | SETRConfig) or positions is None:
        return state
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
    """SHA-256 over names, shapes, dtypes and bytes in name order: the same for every container.

    Empty of tensors on `meta`, which have no bytes.
    """
    if any(tensor.is_meta for tensor in state.values()):
        return ""
    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().contiguous()
        sha.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        sha.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
