"""hf:USER/REPO/path/to/model.onnx: an ONNX file in a repository of the Hub."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

from vitedge.core import hub
from vitedge.core.errors import InputError, nearest
from vitedge.models.sources import onnx_file
from vitedge.models.sources.base import ModelRequest, ReferenceModel, refuse
from vitedge.models.sources.settings import CONFIG, NESTED, PROCESSOR

_NAME = re.compile(r"([\w.-]+/[\w.-]+)/((?:[\w.+-]+/)*[\w.+-]+\.onnx)(@[\w./-]+)?")


def is_hub_file(name: str) -> bool:
    """Whether `name`, what stands after `hf:`, is a file in a repository, and none here."""
    return _NAME.fullmatch(name) is not None and not Path(name).exists()


def load(name: str, request: ModelRequest) -> ReferenceModel:
    """Fetch the file, its data and what says how images are made; then it is as any other.

    Raises InputError, and UnavailableError where the Hub cannot be reached.
    """
    refuse(request, "arch", "weights", "random_weights", "classes")
    model = onnx_file.load(fetched(name), request)
    return replace(model, identity=replace(model.identity, source=f"hf:{name}"))


def fetched(name: str) -> Path:
    """Where it lies now: below the repository in the Hub's cache, as files and not links.

    Raises as `load` does.
    """
    match = _NAME.fullmatch(name)
    assert match
    repository, file, revision = match[1], match[2], match[3] or ""
    if ".." in PurePosixPath(file).parts:
        raise InputError(f"'hf:{name}' leads out of its repository", fix="check the path")
    source = hub.repository(repository + revision)
    if file not in source.sizes:
        graphs = [path for path in source.sizes if path.endswith(".onnx")]
        fix = nearest(file, graphs) if graphs else "it holds no ONNX file"
        raise InputError(f"{repository} has no {file}", fix=fix)
    folder = hub.folder(source)
    for path in (*_beside(file, source), file):
        hub.fetch(source, path, folder)
    return folder / file


def _beside(file: str, source: hub.Repository) -> list[str]:
    """Data files of the graph by the names that exporters give them, and settings."""
    path = PurePosixPath(file)
    data = [f"{file}.data", f"{file}_data", str(path.with_suffix(".data"))]
    above = [path.parent, *([path.parent.parent] if path.parent.name == "onnx" else [])]
    settings = [str(folder / name) for folder in above for name in (PROCESSOR, NESTED, CONFIG)]
    return [wanted for wanted in (*data, *settings) if wanted in source.sizes]
