"""The commands that make artifacts: demo, export, qat and build."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitedge.cli.command import Call, command
from vitedge.cli.flags import command_line
from vitedge.cli.output import (
    Json,
    print_json,
    say,
    say_error,
    say_int8_note,
    say_recommendations,
)
from vitedge.core.errors import InputError, VitedgeError
from vitedge.core.progress import steps
from vitedge.export import api

if TYPE_CHECKING:
    from vitedge.export.demo import Demo
    from vitedge.export.request import ExportRequest
    from vitedge.export.result import ExportResult, Exports
    from vitedge.measure.open_bundle import OpenBundle

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]


@command(api.demo)
def demo(call: Call[Demo], as_json: Json = False) -> None:
    from vitedge.show.terminal import tables

    result = call()
    if as_json:
        artifacts = [
            {"path": str(path), "report": report}
            for path, report in zip(result.paths, result.reports, strict=True)
        ]
        torch = {"accuracy": result.torch_accuracy, "latency": result.torch_latency}
        print_json({"torch": torch, "artifacts": artifacts})
        return
    tables.show(tables.demo(result))
    say_recommendations(result.reports)
    say_int8_note()
    typer.echo(tables.next_commands(result.paths))


@command(api.export)
def export(
    call: Call[Exports],
    int8: Annotated[bool, typer.Option("--int8", help="Quantize to INT8.")] = False,
    fp8: Annotated[
        bool, typer.Option("--fp8", help="Quantize to FP8 (E4M3), where the GPU has it.")
    ] = False,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Half precision, guarded against overflow.")
    ] = False,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Floats in BF16, where the target multiplies in it.")
    ] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="Single precision; the default.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    typed = {"int8": int8, "fp8": fp8, "fp16": fp16, "bf16": bf16, "fp32": fp32}
    precisions = [name for name, on in typed.items() if on] or ["fp32"]
    if len(precisions) > 1:
        raise InputError(
            f"--{precisions[0]} and --{precisions[1]} exclude each other",
            fix="pass one precision",
        )
    chosen = {"precision": precisions[0]}
    if dry_run:
        _plan(api.to_export(**{**call.complete(), **chosen}), as_json)
    else:
        _exported(lambda: call(**chosen), as_json=as_json)


@command(api.qat, like=api.export)
def qat(call: Call[list[ExportResult]], dry_run: DryRun = False, as_json: Json = False) -> None:
    if dry_run:
        request = api.to_qat(**call.complete())
        _plan(request.export, as_json, training=request.train_data)
    else:
        _exported(call, as_json=as_json)


@command(api.build, opens=True)
def build(call: Call[OpenBundle], as_json: Json = False) -> None:
    from vitedge.measure.inspection import notes
    from vitedge.show.terminal import tables

    bundle = call(artifact=call.opened(call.arguments["artifact"]))
    record = bundle.manifest.build
    if as_json:
        print_json({"path": str(bundle.path), "build": record})
        return
    typer.echo(f"{bundle.path} has its engine: {bundle.size_bytes / 2**20:.1f} MiB")
    if record and record.compiled:
        typer.echo(notes.compiled(record.compiled, bundle.manifest.precision))
    typer.echo(tables.next_commands([bundle.path]))


def _plan(request: ExportRequest, as_json: bool, training: str | None = None) -> None:
    """What an export would do."""
    from vitedge.export.dry_run import dry_run
    from vitedge.show.terminal import tables

    with steps(wording=command_line) as progress:
        plan = dry_run(request, progress, training)
    if as_json:
        print_json(plan)
        return
    facts = {"model": f"{plan.model} ({plan.source}), {plan.task}"}
    facts |= {f"target {name}": ", ".join(built) for name, built in plan.targets.items()}
    for name, images in (("calibration", plan.calibration), ("evaluation", plan.evaluation)):
        recipe = f", recipe '{images.recipe}'" if images and images.recipe else ""
        facts[name] = f"{images.images} images of {images.data}{recipe}" if images else "none"
    if plan.training:
        facts["training"] = plan.training
    there = "there already: replaced" if plan.force else "there already: refused without --force"
    for artifact in plan.artifacts:
        facts[f"writes {artifact.path}"] = there if artifact.exists else "new"
    tables.show(tables.listing(("what", "would be"), list(facts.items())))


def _exported(export: Callable[[], list[ExportResult]], *, as_json: bool) -> None:
    """Show what an export wrote and what it did not, also where it then fails."""
    from vitedge.export.result import Exports

    try:
        artifacts = export()
    except VitedgeError as error:
        if isinstance(error.exports, Exports):
            _show(error.exports, as_json=as_json)
            for other in _different(error.exports)[1:]:
                say_error(other)
        raise
    if artifacts:  # in a process that only trains along, none
        exports = artifacts if isinstance(artifacts, Exports) else Exports(artifacts)
        _show(exports, as_json=as_json)
        for other in _different(exports):
            say_error(other)


def _different(exports: Exports) -> list[VitedgeError]:
    """What went wrong, once where several targets say the same."""
    errors: dict[tuple[str, str], VitedgeError] = {}
    for failure in exports.failures:
        error = failure.error
        errors.setdefault((error.what.removeprefix(f"{failure.artifact}: "), error.fix), error)
    return list(errors.values())


def _show(exports: Exports, *, as_json: bool) -> None:
    """What has been made, and what could not be."""
    from vitedge.measure.inspection import notes
    from vitedge.runtimes import runs_here
    from vitedge.show.terminal import tables

    if as_json:
        documents: list[dict[str, Any]] = [
            {
                "path": str(artifact.bundle.path),
                "parity": artifact.bundle.manifest.parity,
                "report": artifact.report,
            }
            for artifact in exports
        ]
        failures = [
            {
                **{"artifact": f.artifact, "target": f.target, "precision": f.precision},
                **{"what": command_line(f.error.what), "fix": command_line(f.error.fix)},
                "exit_code": f.error.exit_code,
            }
            for f in exports.failures
        ]
        print_json({"artifacts": documents, "failures": failures})
        return
    reasons = {failure.artifact: command_line(failure.error.what) for failure in exports.failures}
    if not exports:
        if len(reasons) > 1:  # else its error says it all
            tables.show(tables.exports(exports, "nothing was written", reasons))
        return
    parity = exports[0].bundle.manifest.parity
    typer.echo(
        f"FP32 ONNX agrees with its source: max abs error {parity.max_abs_error:.1e} "
        f"({parity.max_rel_error:.1e} relative)"
    )
    tables.show(tables.exports(exports, f"artifacts in {exports[0].bundle.path.parent}", reasons))
    tables.show_outputs([artifact.report for artifact in exports])
    for manifest in (artifact.bundle.manifest for artifact in exports):
        for fact in notes.facts(manifest):
            say(f"{manifest.name}: {fact}")
    say_recommendations([artifact.report for artifact in exports])
    for note in (note for artifact in exports for note in artifact.notes()):
        say(f"note: {note}", err=True)
    bundles = [artifact.bundle for artifact in exports]
    runnable = [bundle for bundle in bundles if runs_here(bundle)]
    typer.echo(tables.next_commands([bundle.path for bundle in runnable or bundles]))
