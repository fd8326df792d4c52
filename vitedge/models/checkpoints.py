"""Weights files into state dicts, without running anything they contain."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vitedge.errors import InputError, error_line

_WRAPPERS = ("state_dict", "model")  # keys under which training scripts keep the state dict


def read(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors`, `.pt` or `.pth` file as a state dict on the CPU.

    Pickles are read with `weights_only=True`, which refuses everything but tensors and
    plain containers. Raises InputError for anything else, and for NaN or infinite weights.
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
    else:
        state = _read_pickle(path)
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(
                f"{path}: tensor '{name}' holds NaN or infinity",
                fix="these weights are damaged: use an earlier checkpoint",
            )
    return state


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and OS errors alike
        raise InputError(
            f"{path} cannot be read as tensors only: {error_line(error)}",
            fix="save its state_dict() as safetensors; vitedge never unpickles code",
        ) from error
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(
            f"{path} holds no state dict (names to tensors)",
            fix="save model.state_dict() rather than the model",
        )
    return content


def load_into(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy `state` into `model`; names and shapes must match exactly."""
    own = model.state_dict()
    problems = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "misshaped": [
            f"{name} {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
            for name in sorted(own.keys() & state.keys())
            if state[name].shape != own[name].shape
        ],
    }
    if any(problems.values()):
        listing = "; ".join(
            f"{len(names)} {kind} ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
            for kind, names in problems.items()
            if names
        )
        raise InputError(
            f"{path} does not fit the model: {listing}",
            fix="name the architecture these weights belong to; see 'vitedge models list'",
        )
    model.load_state_dict(state)


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, dtypes and bytes in name order: the same for every container."""
    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().contiguous()
        sha.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        sha.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
