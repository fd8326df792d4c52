"""What each step of an export depends on, as the digest that names it in the cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitedge.core.host import fingerprint
from vitedge.core.machine import describe_machine, usable_cores
from vitedge.core.manifest import Bounds
from vitedge.core.spec import QUANTIZED, Batch, Calibration, Precision, Target
from vitedge.core.step_cache import digest, files_digest
from vitedge.data.open import Arrays, Source
from vitedge.models.sources import ModelRequest, ReferenceModel
from vitedge.runtimes import tool_versions


@dataclass(frozen=True)
class Keys:
    """Of the steps of one export."""

    model: str
    """Digest of the model, `model_digest`."""
    recipe: Calibration | None
    calibration: str
    """Digest of the images it draws from, `data_digest`."""
    evaluation: str
    """Likewise, of those that are evaluated on."""
    bounds: Bounds
    allow_overlap: bool

    def onnx(self, target: Target) -> str:
        """The FP32 graph of the batch size and opset of `target`."""
        return self._onnx(target.batch, target.opset)

    def statistics(self, target: Target) -> str:
        """What the calibration images show: whatever estimates ranges of it."""
        recipe = self.recipe
        assert recipe is not None
        drawn = (recipe.num_samples, recipe.selection, recipe.seed, recipe.equalize != "off")
        read = (target.quantization, target.batch_size)
        return digest("statistics", self.onnx(target), self.calibration, drawn, read)

    def qdq(self, target: Target, precision: Precision) -> str:
        """The quantized graph."""
        tools = tool_versions(target, *([self.recipe.engine] if self.recipe else []))
        parts = (self.onnx(target), self.calibration, self.recipe, target, precision)
        return digest("qdq", *parts, self.bounds, tools)

    def bundle(self, target: Target, precision: Precision) -> str:
        """The artifact: its golden images come from those that are evaluated on."""
        images = self.evaluation or self.calibration
        made = self.onnx(target)
        if precision in QUANTIZED:
            made = self.qdq(target, precision)
        elif precision != "fp32":
            made = digest(made, self.calibration, self.recipe)
        return digest("bundle", made, target, precision, images, tool_versions(target))

    def validation(self, target: Target, precision: Precision) -> str:
        """What it loses, on a machine like this."""
        machine = fingerprint(describe_machine(usable_cores()))
        bundle = self.bundle(target, precision)
        return digest("validation", bundle, self.evaluation, self.allow_overlap, machine)

    def _onnx(self, batch: Batch, opset: int) -> str:
        return digest("onnx", self.model, batch, opset)


def model_digest(asked: ModelRequest, model: ReferenceModel, tools: dict[str, str]) -> str:
    """Of what was asked for, what it came to, and the files and versions of `tools` behind it.

    Raises InputError for a file that cannot be read.
    """
    places = (asked.model, asked.weights, asked.preprocess)
    paths = [Path(place) for place in places if isinstance(place, (str, Path)) and str(place)]
    files = [files_digest(path) for path in paths if path.exists()]
    how = (asked.arch, asked.random_weights, asked.task, asked.classes, asked.prompt)
    shape = (asked.height, asked.width, asked.model_output, str(asked.preprocess), asked.labels)
    return digest(model.identity, files, how, shape, tools, _structure(model))


def _structure(model: ReferenceModel) -> list[str]:
    """What a torch module is made of, and what transformers say of it; an ONNX file is its own."""
    module: Any = model.content
    if not hasattr(module, "named_modules"):
        return []
    configs: list[Any] = [getattr(part, "config", None) for part in module.modules()]
    return [repr(module), *(c.to_json_string() for c in configs if hasattr(c, "to_json_string"))]


def data_digest(source: Source) -> str:
    """Of images, wherever they are. Raises InputError for a file that cannot be read."""
    if isinstance(source, Arrays):
        labels = b"" if source.labels is None else source.labels.tobytes()
        return hashlib.sha256(source.images.tobytes() + labels).hexdigest()
    return files_digest(Path(source)) if source and Path(source).exists() else source
