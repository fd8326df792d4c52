"""A session in a page: arrays go there and come back, and runs are timed there."""

from __future__ import annotations

import logging
import math
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.bundle import MODEL
from vitedge.core.errors import InputError, UnavailableError
from vitedge.core.runtime import Session, TensorSpec, VerifiedFiles
from vitedge.core.spec import Target
from vitedge.runtimes.onnxruntime_web import install
from vitedge.runtimes.onnxruntime_web.chromium import Page, open_page
from vitedge.runtimes.onnxruntime_web.server import HEADERS, serve

_log = logging.getLogger(__name__)
HERE = Path(__file__).parent
PROVIDER, TIMEOUT = "provider", "timeout_s"
"""Options of a target."""
SCRIPTS = {"wasm": "ort.wasm.min.mjs", "webgpu": "ort.webgpu.min.mjs"}
"""Of each provider, the script in `dist` that has it."""
LIMIT_S = 120.0


@contextmanager
def open_model(verified: VerifiedFiles, target: Target) -> Iterator[Session]:
    """Load `model.onnx` of a bundle in a page. Raises InputError and UnavailableError."""
    options = dict(target.options)
    provider = options.pop(PROVIDER, "wasm")
    limit_s = _seconds(options.pop(TIMEOUT, str(LIMIT_S)), target)
    if provider not in SCRIPTS:
        raise InputError(
            f"target '{target.name}' sets {PROVIDER} '{provider}'",
            fix=f"set it to {' or '.join(SCRIPTS)}",
        )
    program, package = install.browser(), install.ort_web()
    script = package.dist / SCRIPTS[provider]
    if not script.is_file():
        raise UnavailableError(
            f"{package.dist} has no {script.name}", fix=f"npm install {install.PACKAGE} again"
        )
    files = {
        "": HERE / "page.html",
        "page.mjs": HERE / "page.mjs",
        **{f"ort/{path.name}": path for path in package.dist.iterdir()},
        **{name: verified.path(name) for name in verified.names},
    }
    arguments = () if provider == "webgpu" else ("--disable-gpu",)
    with serve(files, HEADERS) as url, open_page(program, url, arguments) as page:
        opened = page.call(
            "argument => vitedge.open(argument)",
            {
                "script": f"./ort/{script.name}",
                "model": MODEL,
                "data": [name for name in verified.names if name != MODEL],
                "threads": target.threads,
                "provider": provider,
                "extra": options,
            },
            limit_s,
        )
        if "absent" in opened:
            raise UnavailableError(
                f"{program} has no {opened['absent']} here, which target '{target.name}' asks for",
                fix="take the target 'web', or a browser and a GPU that have it",
            )
        if opened["threads"] < target.threads:
            _warn_once(f"note: {program} gives this page a single thread")
        yield _PageSession(page, opened, limit_s)


class _PageSession:
    def __init__(self, page: Page, opened: Mapping[str, Any], limit_s: float) -> None:
        self._page, self._limit_s = page, limit_s
        self.inputs, self.outputs = (
            tuple(
                TensorSpec(spec["name"], tuple(spec["shape"]), spec["dtype"])
                for spec in opened[kind]
            )
            for kind in ("inputs", "outputs")
        )

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        outputs = self._page.call("feed => vitedge.run(feed)", _packed(feed), self._limit_s)
        return {spec.name: _unpacked(outputs[spec.name]) for spec in self.outputs}

    def time(self, feed: Mapping[str, NDArray[Any]], runs: int) -> NDArray[np.float64]:
        argument = {"feed": _packed(feed), "runs": runs}
        times = self._page.call("argument => vitedge.time(argument)", argument, self._limit_s)
        return np.array(times, dtype=np.float64)


def _packed(feed: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "data": b64encode(array.tobytes()).decode(),
        }
        for name, array in feed.items()
    }


def _unpacked(output: Mapping[str, Any]) -> NDArray[Any]:
    content = bytearray(b64decode(output["data"]))
    flat: NDArray[Any] = np.frombuffer(content, dtype=output["dtype"])
    shape: list[int] = output["shape"]
    return flat.reshape(shape)


def _seconds(text: str, target: Target) -> float:
    """Raises InputError where `text` is no length of time."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise InputError(
            f"target '{target.name}' sets {TIMEOUT} '{text}'",
            fix="give seconds above 0, as a text",
        )
    return seconds


@cache
def _warn_once(note: str) -> None:
    _log.warning(note)
