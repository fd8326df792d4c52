"""Weights that may be on a hub: fetched where there is a network, from the cache where not."""

from __future__ import annotations

import os
import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from torch import nn

from vitedge.models import checkpoints


def stay_offline_if_unreachable() -> None:
    """Tell huggingface_hub, before it is imported, not to wait a minute for a missing network."""
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    if urllib.request.getproxies() or "HF_HUB_OFFLINE" in os.environ:
        return
    try:
        socket.getaddrinfo(endpoint.hostname, endpoint.port or endpoint.scheme)
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill a library's own module from a weights file in its layout. Raises InputError."""
    checkpoints.load_into(module, checkpoints.read_tensors(path), path)
