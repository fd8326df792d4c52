"""TensorRT's timings of kernels, kept per device and version: the next build is a lot faster."""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

from vitedge.core.gpu import gpus

_log = logging.getLogger(__name__)


def folder() -> Path:
    """Where this user's caches belong on this system."""
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "vitedge" / "tensorrt"


def file(version: str) -> Path:
    """The cache of TensorRT `version` on this process's first GPU."""
    gpu = gpus()[0]
    name = f"{gpu.name} {gpu.compute_capability} {version}"
    return folder() / (re.sub(r"[^A-Za-z0-9.]+", "-", name) + ".timings")


def read(file: Path, config: Any, log: Any) -> None:
    """Let the builder's `config` start from `file`; one that does not load is ignored, and said."""
    try:
        content = file.read_bytes()
    except OSError:
        content = b""
    earlier = len(log.warnings)
    cache = config.create_timing_cache(content)
    accepted = cache is not None and config.set_timing_cache(cache, False)
    if not accepted:
        config.set_timing_cache(config.create_timing_cache(b""), False)
    warnings = log.warnings[earlier:]
    if content and (not accepted or any("timing cache" in line for line in warnings)):
        _log.warning("note: the timing cache %s does not fit this TensorRT: ignored", file)


def write(file: Path, config: Any) -> None:
    """Keep what was timed. A cache that cannot be written is no reason to fail."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.{os.getpid()}")
        partial.write_bytes(bytes(config.get_timing_cache().serialize()))
        partial.replace(file)
    except OSError as error:
        _log.warning("note: the timing cache was not kept: %s", error)
