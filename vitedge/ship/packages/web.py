"""A static page that runs the model in the visitor's browser, from any server of files."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import msgspec

from vitedge.core.bundle import MODEL, Bundle
from vitedge.core.errors import InputError
from vitedge.core.manifest import Manifest
from vitedge.core.spec import Preprocess
from vitedge.runtimes.onnxruntime_web import install
from vitedge.runtimes.onnxruntime_web.session import PROVIDER, SCRIPTS, TIMEOUT
from vitedge.ship.package import copy_labels, copy_model, options

PAGE = ("index.html", "app.mjs", "resize.mjs")
TASKS = ("classification", "segmentation")
_SCRIPT_PARTS = re.compile(r"ort-wasm-[\w.-]+\.(?:mjs|wasm)")
"""What a script of onnxruntime-web loads in its turn."""


class WebPage:
    """`index.html`, its scripts, onnxruntime-web's own, the model, its labels and `config.json`."""

    name = "web"
    title = "Web page"
    runtimes = frozenset((install.PACKAGE,))

    def write(self, bundle: Bundle, folder: Path) -> tuple[str, ...]:
        """Raises UnavailableError where onnxruntime-web is not here."""
        manifest = bundle.manifest
        _check(bundle)
        package = install.ort_web()
        names = copy_model(bundle, folder)
        copy_labels(bundle, folder)
        template = files("vitedge.ship.packages") / "templates" / "web"
        for name in PAGE:
            (folder / name).write_bytes((template / name).read_bytes())
        settings = options(bundle)
        settings.pop(TIMEOUT, None)
        provider = settings.pop(PROVIDER, "wasm")
        script = SCRIPTS[provider]
        _copy_scripts(package.dist / script, folder / "ort")
        further = {
            "provider": provider,
            "script": script,
            "options": settings,
            "data": [name for name in names if name != MODEL],
        }
        config = msgspec.json.encode(_config(manifest) | further)
        (folder / "config.json").write_bytes(msgspec.json.format(config))
        return ("python -m http.server --bind 127.0.0.1 8000",)


def _check(bundle: Bundle) -> None:
    """Raise InputError for what the page does not show, or does not do with an image."""
    manifest = bundle.manifest
    if manifest.model.task not in TASKS:
        raise InputError(
            f"{bundle.path} is of the task {manifest.model.task}, and a page shows "
            f"{' or '.join(TASKS)}",
            fix="package it with `form='python'`, for another target",
        )
    inputs = manifest.inputs
    image = len(inputs) == 1 and inputs[0].dtype == "uint8" and len(inputs[0].shape) == 4
    if not image or inputs[0].shape[3] != 3:
        raise InputError(
            f"{bundle.path} takes no uint8 images (n, height, width, 3)",
            fix="export it with its preprocessing inside",
        )
    for name, taken in _RESIZES.items():
        value = getattr(manifest.preprocessing.host, name)
        if value not in taken:
            raise InputError(
                f"{bundle.path} has the preprocessing {name} '{value}', which a page does not do",
                fix=f"it does {', '.join(taken)}; package it with `form='python'`",
            )


_RESIZES = {
    "resize": ("exact", "shorter_side", "inside"),
    "sampling": ("filter", "points", "corners"),
    "pad": ("none", "end", "center", "square"),
}
"""Of the preprocessing, what `resize.mjs` does."""


def _config(manifest: Manifest) -> dict[str, object]:
    """What the page reads of a manifest."""
    (image,) = manifest.inputs
    host: Preprocess = manifest.preprocessing.host
    return {
        "name": manifest.name,
        "task": manifest.model.task,
        "classes": manifest.model.num_classes,
        "input": {
            "name": image.name,
            "shape": [1 if size == "batch" else size for size in image.shape],
        },
        "output": manifest.outputs[0].name,
        "preprocess": msgspec.to_builtins(host),
        "threads": manifest.target.threads,
    }


def _copy_scripts(script: Path, folder: Path) -> None:
    """Copy a script of onnxruntime-web, and what it loads."""
    folder.mkdir()
    pending = [script.name]
    while pending:
        name = pending.pop()
        source, copy = script.parent / name, folder / name
        if copy.exists() or not source.is_file():
            continue
        copy.write_bytes(source.read_bytes())
        if source.suffix == ".mjs":
            pending += _SCRIPT_PARTS.findall(source.read_text(encoding="utf-8"))
