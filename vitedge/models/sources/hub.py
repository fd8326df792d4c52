"""Weights that may be on a hub: fetched where there is a network, from the cache where not."""

from __future__ import annotations

import os
import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from torch import nn

from vitedge.models.sources import checkpoints
from vitedge.models.sources.layouts import without_training_prefixes


def stay_offline_if_unreachable() -> None:
    """Tell huggingface_hub, before it is imported, not to wait a minute for a missing network."""
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    if urllib.request.getproxies() or "HF_HUB_OFFLINE" in os.environ:
        return
    try:
        socket.getaddrinfo(endpoint.hostname, endpoint.port or endpoint.scheme)
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"


HEADS = ("head.", "head_dist.", "fc.", "classifier.")


def load_weights(module: nn.Module, path: Path, *, headless: bool = False) -> None:
    """Fill a library's own module from a weights file in its layout. Raises InputError.

    Of a `headless` module, a classifier's head in the file is left out.
    """
    state = dict(without_training_prefixes(checkpoints.read_tensors(path)))
    if headless:
        own = module.state_dict().keys()
        state = {k: v for k, v in state.items() if k in own or not k.startswith(HEADS)}
    checkpoints.refuse_misfit(
        checkpoints.problems(module, state),
        path,
        fix="give weights of this very architecture, in its library's layout, with as many classes",
    )
    module.load_state_dict(state)
