"""What every source of models takes and gives."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from vitedge.core.errors import InputError, UnavailableError, VitedgeError
from vitedge.core.spec import Detection, Preprocess, Task

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn


@dataclass(frozen=True)
class ModelRequest:
    """MODEL and the parameters that say how to read it."""

    model: str | nn.Module = ""
    """Empty for the embedded reference, a zoo name, `timm:…`, `hf:…`, `torchvision:…`, a file; or
    a module in memory."""
    arch: str = ""
    weights: Path | None = None
    preprocess: Path | Preprocess | None = None
    random_weights: bool = False
    height: int | None = None
    width: int | None = None
    """Of an input that leaves them open, pixels."""
    task: Task | None = None
    """What to make of the model; None for what its source says."""
    labels: tuple[str, ...] = ()
    """One for each class; empty: what the model's source says, else numbers."""
    classes: tuple[str, ...] = ()
    """Of a model of images and texts, which becomes a classifier of them."""
    prompt: str = ""
    """The text of one of `classes`, `{}` in its place; empty: the usual one."""
    name: str = ""
    """Of a module; empty: its class."""
    model_output: tuple[str, ...] = ()
    """The outputs to keep, the main one first; empty: as `graph.outputs.choose` says."""
    shapes_only: bool = False
    """To be looked at, on torch's meta device: no weights are fetched, read or made, and what is
    missing for an export is no error, but listed."""

    def own_preprocess(self, image_size: tuple[int, int] = (0, 0)) -> Preprocess | None:
        """What `preprocess` says, if it was given. Raises InputError."""
        if self.preprocess is None or isinstance(self.preprocess, Preprocess):
            return self.preprocess
        from vitedge.models.sources.settings import read_preprocess

        return read_preprocess(self.preprocess, image_size)


@dataclass(frozen=True)
class ModelIdentity:
    """What is known of a model besides its weights."""

    name: str
    source: str
    weights_sha256: str
    preprocess: Preprocess
    task: Task
    labels: tuple[str, ...]
    """One for each class, no-object left out; empty for features."""
    trained: bool
    notes: tuple[str, ...] = ()
    """What was assumed, and a user should know."""
    detection: Detection | None = None
    """How a detector's outputs, logits and then boxes, are read; None of any other."""


Missing: TypeAlias = Mapping[Literal["weights", "preprocess"], VitedgeError]
"""What an export would miss, and the error that it would raise."""


@dataclass(frozen=True)
class ReferenceModel:
    """The model every artifact is measured against."""

    identity: ModelIdentity
    content: nn.Module | ir.Model
    """A torch module, (B, 3, H, W) float32 -> a float32 tensor or a tuple of them, or an ONNX
    graph, its large tensors in files."""
    outputs: tuple[str, ...] = ()
    """What a module's are called, the main one first; empty: it gives one, named by its task."""
    missing: Missing = dataclasses.field(default_factory=dict)
    """Of a model that is there by its shapes only."""


def refuse(request: ModelRequest, *fields: str) -> None:
    """Raise InputError for each of `fields` of the request that is set."""
    for field in fields:
        if getattr(request, field):
            name = request.model if isinstance(request.model, str) else "a module"
            raise InputError(f"`{field}` does not apply to '{name or 'digits'}'", fix="drop it")


def bundle_name(text: str) -> str:
    """`text` as part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-") or "model"


def unavailable(source: str, why: str) -> UnavailableError:
    """The error of weights that are not on this machine and cannot be fetched."""
    return UnavailableError(
        f"the weights of '{source}' are not here and cannot be downloaded: {why}",
        fix="connect, pass `weights=FILE`, or `random_weights=True` to measure latency only",
    )


def not_here(source: str) -> UnavailableError:
    """The error of weights that were not looked for beyond this machine."""
    return UnavailableError(
        f"the weights of '{source}' are not on this machine",
        fix="'vitedge export' downloads them; or pass `weights=FILE`, or `random_weights=True` to "
        "measure latency only",
    )


def any_file(place: str, names: Sequence[str]) -> bool:
    """Whether one of the files `names` is in the folder `place`, or in the cache of that hub ID."""
    if Path(place).is_dir():
        return any((Path(place) / name).is_file() for name in names)
    return any(cached(place, name) for name in names)


def cached(hub_id: str, name: str) -> Path | None:
    """Where the file `name` of a hub's ID lies on this machine; None where it is not here."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:  # then nothing is cached
        return None
    repo, _, revision = hub_id.partition("@")
    try:
        path = try_to_load_from_cache(repo, name, revision=revision or None)
    except HFValidationError:  # no ID: its library says so
        return None
    return Path(path) if isinstance(path, str) else None


def downloaded(url: str) -> bool:
    """Whether torch's download folder has the file at `url`."""
    import torch

    return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2]).is_file()


def stay_offline_if_unreachable() -> None:
    """Tell huggingface_hub, before it is imported, not to wait a minute for a missing network."""
    import socket
    import urllib.request
    from urllib.parse import urlsplit

    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    if urllib.request.getproxies() or "HF_HUB_OFFLINE" in os.environ:
        return
    try:
        socket.getaddrinfo(endpoint.hostname, endpoint.port or endpoint.scheme)
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"
