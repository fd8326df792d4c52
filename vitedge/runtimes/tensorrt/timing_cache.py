"""TensorRT's timings of kernels, kept per device and version: the next build is a lot faster."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

from vitedge.core import bounded
from vitedge.core.errors import InputError
from vitedge.core.gpu import gpus

_log = logging.getLogger(__name__)
LIMIT_BYTES = 256 * 2**20


def folder() -> Path:
    """Where this user's caches belong on this system: TensorRT is for Linux and Windows."""
    variable, default = "XDG_CACHE_HOME", ".cache"
    if sys.platform == "win32":
        variable, default = "LOCALAPPDATA", "AppData/Local"
    return Path(os.environ.get(variable) or Path.home() / default) / "vitedge" / "tensorrt"


def file(version: str) -> Path:
    """The cache of TensorRT `version` on this process's first GPU."""
    gpu = gpus()[0]
    name = f"{gpu.name} {gpu.compute_capability} {version}"
    return folder() / (re.sub(r"[^A-Za-z0-9.]+", "-", name) + ".timings")


def read(file: Path, config: Any, log: Any) -> None:
    """Let the builder's `config` start from `file`; one that does not load is ignored, and said."""
    content = b""
    with contextlib.suppress(InputError):
        content = bounded.read(file, LIMIT_BYTES)
    earlier = len(log.warnings)
    cache = config.create_timing_cache(content)
    accepted = cache is not None and config.set_timing_cache(cache, False)
    if not accepted:
        config.set_timing_cache(config.create_timing_cache(b""), False)
    if content and (not accepted or "timing cache" in " ".join(log.warnings[earlier:])):
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
