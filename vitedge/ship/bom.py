"""A bill of materials: what an artifact was made of, as a CycloneDX ML-BOM.

https://cyclonedx.org/docs/1.6/json: of one artifact it is always the same, byte by byte.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from vitedge import __version__
from vitedge.core.bundle import digests
from vitedge.core.manifest import Manifest, Tensor
from vitedge.core.runtime import runtime_of

SPEC = "1.6"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/schema/bom-1.6")
Part = dict[str, Any]


def bom(path: Path) -> Part:
    """Of the artifact at `path`, whose files are checked. Raises InputError.

    What licences there are is known of packages that are installed here in the version that had a
    hand in it; nothing is guessed.
    """
    manifest, sha256 = digests(path)
    files = [_file(name, sha256[name], manifest.sizes.get(name)) for name in sorted(sha256)]
    data = list(_data(manifest))
    packages = [_package(name, version, manifest) for name, version in manifest.tools.items()]
    model = _model(manifest, data)
    parts = [*files, *data, *packages]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": uuid.uuid5(NAMESPACE, sha256["manifest.json"]).urn,
        "version": 1,
        "metadata": {
            "tools": {
                "components": [{"type": "application", "name": "vitedge", "version": __version__}]
            },
            "component": model,
        },
        "components": parts,
        "dependencies": [
            {"ref": model["bom-ref"], "dependsOn": [part["bom-ref"] for part in parts]}
        ],
    }


def _model(manifest: Manifest, data: list[Part]) -> Part:
    source = manifest.model
    origin = {"type": "machine-learning-model", "name": source.source or source.name}
    record = manifest.quantization
    facts = {
        "precision": manifest.precision,
        "target": manifest.target.name,
        "runtime": manifest.target.runtime,
        **({"quantization": record.scheme} if record else {}),
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": manifest.name,
        "pedigree": {"ancestors": [{**origin, **_hashes(source.weights_sha256)}]},
        "modelCard": {
            "modelParameters": {
                "task": source.task,
                "modelArchitecture": source.name,
                "datasets": [{"ref": part["bom-ref"]} for part in data],
                "inputs": [{"format": _format(tensor)} for tensor in manifest.inputs],
                "outputs": [{"format": _format(tensor)} for tensor in manifest.outputs],
            }
        },
        "properties": _properties(facts),
    }


def _file(name: str, sha256: str, size_bytes: int | None) -> Part:
    facts = {} if size_bytes is None else {"properties": _properties({"size_bytes": size_bytes})}
    return {"type": "file", "bom-ref": f"file:{name}", "name": name, **_hashes(sha256), **facts}


def _data(manifest: Manifest) -> Iterator[Part]:
    """What it was calibrated and trained on, by the digest over the images."""
    record = manifest.quantization
    if record is None:
        return
    sets = {"calibration": record.calibration, "training": record.training}
    for use, images in sets.items():
        if images is not None:
            yield {
                "type": "data",
                "bom-ref": f"data:{use}",
                "name": images.source,
                **_hashes(images.digest),
                "data": [{"type": "dataset", "name": f"{use} images"}],
                "properties": _properties({"images": images.images}),
            }


def _package(name: str, version: str, manifest: Manifest) -> Part:
    """`required` is what runs it; `excluded`, what had a hand in making it."""
    runs = name in runtime_of(manifest.target).packages
    licence = _licence(name, version)
    return {
        "type": "library",
        "bom-ref": f"package:{name}",
        "name": name,
        "version": version,
        "scope": "required" if runs else "excluded",
        "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version.replace('+', '%2B')}",
        **({"licenses": [{"expression": licence}]} if licence else {}),
    }


def _licence(name: str, version: str) -> str:
    """The SPDX expression that the package states, where it is here; empty where none is known."""
    try:
        package = metadata.metadata(name).json
    except metadata.PackageNotFoundError:
        return ""
    return str(package.get("license_expression", "")) if package["version"] == version else ""


def _format(tensor: Tensor) -> str:
    return f"{tensor.dtype} {'×'.join(map(str, tensor.shape))}, {tensor.layout}"


def _hashes(sha256: str) -> Part:
    known = re.fullmatch("[0-9a-f]{64}", sha256)
    return {"hashes": [{"alg": "SHA-256", "content": sha256}]} if known else {}


def _properties(facts: Mapping[str, object]) -> list[dict[str, str]]:
    return [{"name": f"vitedge:{name}", "value": str(value)} for name, value in facts.items()]
