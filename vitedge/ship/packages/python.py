"""A Python file that needs numpy, Pillow and the runtime, beside the model and its labels."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from pprint import pformat

import msgspec

from vitedge.core import detections
from vitedge.core.bundle import Bundle
from vitedge.core.errors import InputError
from vitedge.core.manifest import Manifest
from vitedge.data import decode, geometry, placement, samples
from vitedge.measure.accuracy import metrics
from vitedge.ship.package import copy_labels, copy_model, options
from vitedge.ship.packages.openvino_device import device
from vitedge.ship.packages.sources import definitions

PROGRAM = "predict.py"
_DECODE = ("FORMATS", "MAX_PIXELS", "Skip", "decode", "as_rgb", "_check_header", "_opaque_rgb")
_MASKS = ("class_map", "_bilinear", "_choice")
_BOXES = ("Detections", "detections", "class_scores", "as_corners")
_SESSIONS = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "openvino_gpu": "openvino",
    "openvino_npu": "openvino",
}
"""The template of a runtime, by its name."""
_PACKAGES = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "openvino": ("openvino",)}
"""Distributions that bring it, by template."""
_VERSION = re.compile(r"\d[\w.+!-]*", re.ASCII)
"""Nothing that ends the line or says more to pip."""


class PythonFile:
    """`predict.py`: vitedge's own preprocessing and reading of outputs, and the runtime's API."""

    name = "python"
    title = "Python file"
    runtimes = frozenset(_SESSIONS)

    def write(self, bundle: Bundle, folder: Path) -> tuple[str, ...]:
        """`predict.py`, `requirements.txt`, the model and its labels."""
        model, *_ = copy_model(bundle, folder)
        copy_labels(bundle, folder)
        (folder / PROGRAM).write_text(_program(bundle, model), encoding="utf-8")
        (folder / "requirements.txt").write_text(_requirements(bundle.manifest), encoding="utf-8")
        return "pip install -r requirements.txt", f"python {PROGRAM} IMAGE…"


def _program(bundle: Bundle, model: str) -> str:
    manifest = bundle.manifest
    template = files("vitedge.ship.packages") / "templates"
    runtime = _SESSIONS[manifest.target.runtime]
    parts = {
        "TITLE": _title(manifest),
        "SETTINGS": _settings(bundle, model),
        "SOURCE": "\n\n\n".join(_source(manifest)),
        "READ": (template / f"read_{manifest.model.task}.py.in")
        .read_text(encoding="utf-8")
        .strip(),
        "SESSION": (template / f"session_{runtime}.py.in").read_text(encoding="utf-8").strip(),
    }
    text = (template / "predict.py.in").read_text(encoding="utf-8")
    return re.sub(r"^#@(\w+)@$", lambda mark: parts[mark[1]], text, flags=re.MULTILINE)


def _title(manifest: Manifest) -> str:
    """Of the file, as a comment: whatever a manifest says stays on its line."""
    name = manifest.name.encode("unicode_escape").decode()
    return f"# {name}: {manifest.model.task} on {manifest.target.runtime}, {manifest.precision}"


def _settings(bundle: Bundle, model: str) -> str:
    """What the manifest says, as constants."""
    manifest = bundle.manifest
    rule = manifest.model.detection
    constants = {
        "MODEL": model,
        "OUTPUTS": {output.name: output.shape for output in manifest.outputs},
        "OPTIONS": options(bundle),
        "THREADS": manifest.target.threads,
    }
    if _SESSIONS[manifest.target.runtime] == "openvino":
        constants["DEVICE"] = device(manifest.target.runtime)
    lines = [
        f"{name} = {pformat(value, width=80, sort_dicts=False)}"
        for name, value in constants.items()
    ]
    lines.append(f"PREPROCESS = SimpleNamespace({_keywords(manifest.preprocessing.host)})")
    if rule:
        lines.append(f"DETECTION = SimpleNamespace({_keywords(rule)})")
    return "\n".join(lines)


def _keywords(spec: msgspec.Struct) -> str:
    fields = msgspec.structs.asdict(spec)
    return "".join(f"\n    {name}={value!r}," for name, value in fields.items()) + "\n"


def _source(manifest: Manifest) -> list[str]:
    """Everything between a file and the model's input, and from its outputs to what they say."""
    parts = [
        definitions(decode, _DECODE),
        definitions(samples),
        definitions(geometry),
    ]
    if manifest.model.task == "segmentation":
        parts.append(definitions(metrics, _MASKS))
    if manifest.model.detection:
        parts += [definitions(placement), definitions(detections, _BOXES)]
    return parts


def _requirements(manifest: Manifest) -> str:
    """The versions that the artifact was made with. Raises InputError for what is no version."""
    packages = ("numpy", "pillow", *_PACKAGES[_SESSIONS[manifest.target.runtime]])
    known = [name for name in packages if name in manifest.tools]
    for name in known:
        if not _VERSION.fullmatch(manifest.tools[name]):
            raise InputError(
                f"{manifest.name!r} says that its {name} is {manifest.tools[name]!r:.80}, which is "
                "no version",
                fix="ask who made it, or export it again",
            )
    return "".join(f"{name}=={manifest.tools[name]}\n" for name in known)
