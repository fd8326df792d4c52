"""`vitedge inspect`: opens what it is given: an artifact, anybody's ONNX file, or a model.

An artifact carries its figures: reading them takes neither torch nor onnx.
"""

from __future__ import annotations

from pathlib import Path

from vitedge.core import catalog, report
from vitedge.core.api import ARTIFACTS
from vitedge.core.bundle import MANIFEST, Bundle, bundles_in, open_bundle
from vitedge.core.errors import InputError, nearest
from vitedge.core.machine import describe_machine
from vitedge.core.manifest import Finding
from vitedge.core.spec import Target
from vitedge.measure.inspection import Inspection, notes, rows_of, summarize
from vitedge.measure.inspection.model import inspect_source
from vitedge.measure.inspection.onnx_file import PARAMETERS, inspect_model, lint_file
from vitedge.models.sources import OTHERS, ModelRequest, ReferenceModel, is_model
from vitedge.models.sources.base import refuse
from vitedge.models.zoo import ZOO


def inspect(asked: ModelRequest | ReferenceModel, target: str) -> Inspection:
    """Inspect the artifact, ONNX file or model of `asked`; an empty `target`: its own, or none.

    Raises InputError, and UnavailableError where a package is needed and missing.
    """
    requested = catalog.find_target(target, describe_machine(threads=0)) if target else None
    if not isinstance(asked, ModelRequest) or not isinstance(asked.model, str):
        return inspect_source(asked, requested)
    path = Path(asked.model)
    prefix, _, name = asked.model.partition(":")
    if prefix == "hf" and name.partition("@")[0].endswith(".onnx"):
        from vitedge.models.sources import hub_file

        if hub_file.is_hub_file(name):
            return inspect_model(hub_file.fetched(name), requested, asked)
    if path.suffix == ".onnx" and not path.is_dir():
        return inspect_model(path, requested, asked)
    if is_model(asked.model) and not (path / MANIFEST).is_file():
        return inspect_source(asked, requested)
    refuse(asked, *PARAMETERS)
    if path.is_file():
        raise InputError(
            f"{path} is neither an artifact's folder nor an ONNX file",
            fix="give the folder that 'vitedge export' wrote, a FILE.onnx, or a file of weights",
        )
    if not path.exists():
        near = nearest(asked.model, [*ZOO, *map(str, bundles_in(ARTIFACTS))])
        what = f"no artifact at {path}, and no model of that name"
        raise InputError(what, fix=f"{near} {OTHERS}")
    if (path / "config.json").is_file():
        raise InputError(
            f"{path} is no artifact: it has no {MANIFEST}",
            fix=f"a folder of transformers is 'hf:{path}', one of timm 'timm:local-dir:{path}'",
        )
    return _inspect_artifact(open_bundle(path), requested)


def _inspect_artifact(bundle: Bundle, requested: Target | None) -> Inspection:
    manifest = bundle.manifest
    record = manifest.quantization
    rows = rows_of(record.layers) if record else ()
    remarks = []
    if record is None:
        remarks.append(
            f"nothing is quantized in {manifest.precision}: export with `precision='int8'`, or "
            "inspect an ONNX file with `target` to see what would be"
        )
    elif record.training:
        remarks.append(notes.trained(record.training))
    remarks += notes.compilation(manifest)
    measured = report.of_bundle(bundle)
    numerics = measured and (
        measured.numerics or (measured.simulation.numerics if measured.simulation else None)
    )
    findings = record.lint if record else None
    if requested and requested.name != manifest.target.name:
        findings = _lint(bundle, requested)
    target = requested or manifest.target
    about = {
        "model": f"{manifest.model.name} ({manifest.model.source})",
        "task": manifest.model.task,
        "outputs": notes.outputs(manifest),
        "precision": manifest.precision,
        "target": f"{manifest.target.name}: {manifest.target.description}",
        "parity": f"FP32 graph against its source: {manifest.parity.max_rel_error:.1e} relative",
    }
    if numerics and manifest.precision != "fp32":
        about["against FP32"] = notes.fidelity(numerics)
        remarks += notes.hidden(numerics)
        remarks += notes.matched(numerics)
    if record:
        used = record.calibration
        about["calibration"] = f"{used.recipe.name}, {used.images} images of {used.source}"
        if record.equalization:
            about["equalized"] = f"{len(record.equalization.pairs)} groups of channels"
    if floats := notes.floats(manifest):
        about["floats"] = floats
    about["tools"] = ", ".join(f"{name} {version}" for name, version in manifest.tools.items())
    about["files"] = ", ".join(f"{name} {sha[:12]}…" for name, sha in bundle.model_files.items())
    return Inspection(
        name=manifest.name,
        kind="artifact",
        number_format="fp8" if manifest.precision == "fp8" else "int8",
        about=about,
        target=target.name,
        notes=tuple(remarks),
        training=record.training if record else None,
        summary=summarize(rows),
        layers=rows,
        quantizers=(),
        lint=findings,
    )


def _lint(bundle: Bundle, target: Target) -> tuple[Finding, ...]:
    if "model.onnx" not in bundle.model_files:
        raise InputError(
            f"{bundle.path} holds no ONNX graph to check against another target",
            fix="drop `target`, or give the artifact of ONNX Runtime or the ONNX file",
        )
    return lint_file(bundle.checked / "model.onnx", target)
