"""The commands with which NVIDIA's own tools build and time a model, for who wants their numbers.

Flags as trtexec 10.3, 10.16 and 11.1, tensorrt_rtx 1.7 and Polygraphy 0.53 take them.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

import msgspec

from vitedge.core import catalog
from vitedge.core.bundle import ENGINE, open_bundle
from vitedge.core.errors import InputError, missing
from vitedge.core.machine import describe_machine
from vitedge.core.manifest import Tensor
from vitedge.core.spec import Target

SCHEMA = "vitedge.commands/1"

TIMING_CACHE = "timing.cache"
_AS_11 = ("--noDataTransfers", "--useCudaGraph", "--useSpinWait")
"""What trtexec 11 and tensorrt_rtx do by default: without them, latencies of 10 do not compare."""
_WEIGHTS: dict[str, dict[str, list[str]]] = {
    "inside": {"trtexec": [], "polygraphy": []},
    "refittable": {"trtexec": ["--refit"], "polygraphy": ["--refittable"]},
    "stripped": {"trtexec": ["--stripWeights"], "polygraphy": ["--strip-plan"]},
}


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One command line."""

    tool: Literal["trtexec", "tensorrt_rtx", "polygraphy"]
    versions: str
    """Of TensorRT or TensorRT-RTX, e.g. `10.x`."""
    environment: dict[str, str] = {}
    argv: tuple[str, ...]

    def line(self) -> str:
        """The command as a shell takes it."""
        before = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*before, shlex.join(self.argv)])


class Commands(msgspec.Struct, frozen=True, kw_only=True):
    """What `vitedge inspect --as trtexec` prints."""

    schema: str = SCHEMA
    target: str
    commands: tuple[Command, ...]


def commands(path: Path, target: str) -> Commands:
    """The commands for the artifact or the ONNX file at `path`.

    An empty `target` means the artifact's own, and `tensorrt` for an ONNX file. Raises InputError
    for a target of another runtime, and where more than the batch of an input is left open.
    """
    chosen = catalog.find_target(target, describe_machine(threads=0)) if target else None
    if path.suffix == ".onnx" and not path.is_dir():
        model, inputs = path, _inputs_of(path)
        chosen = chosen or catalog.targets()["tensorrt"]
    else:
        bundle = open_bundle(path)
        model, inputs = path / "model.onnx", bundle.manifest.inputs
        chosen = chosen or bundle.manifest.target
        if model.name not in bundle.manifest.files:
            raise InputError(
                f"{path} holds no ONNX graph", fix="give a TensorRT artifact or the ONNX file"
            )
    if chosen.runtime not in ("tensorrt", "tensorrt_rtx"):
        raise InputError(
            f"--as trtexec is for TensorRT, and {chosen.name} is of {chosen.runtime}",
            fix="pass --target tensorrt, or another one of 'vitedge targets list'",
        )
    for tensor in inputs:
        if 0 in tensor.shape:
            raise InputError(
                f"{model}: the shape of its input '{tensor.name}' is open beyond the batch",
                fix="export it with height and width fixed",
            )
    make = _rtx if chosen.runtime == "tensorrt_rtx" else _tensorrt
    return Commands(target=chosen.name, commands=make(model, inputs, chosen))


def show(commands: Commands) -> None:
    """Print the commands on stdout, each with a comment on what takes it."""
    for command in commands.commands:
        print(f"# {command.tool}, {command.versions}\n{command.line()}")


def _tensorrt(model: Path, inputs: tuple[Tensor, ...], target: Target) -> tuple[Command, ...]:
    first, end = (tuple(int(n) for n in text.split(".") if n) for text in target.versions)
    common = ["trtexec", f"--onnx={model}", f"--saveEngine={ENGINE}"]
    common += [f"--timingCacheFile={TIMING_CACHE}", *_shapes(inputs, target)]
    common += _engine_flags(target)
    builds = []
    if first < (11,):
        argv = (*common, "--stronglyTyped", *_AS_11)
        builds.append(Command(tool="trtexec", versions="TensorRT 10.x", argv=argv))
    if not end or end > (11,):
        builds.append(Command(tool="trtexec", versions="TensorRT 11.x", argv=tuple(common)))
    return (*builds, _polygraphy(model, inputs, target, "TensorRT 10.x and 11.x", {}))


def _rtx(model: Path, inputs: tuple[Tensor, ...], target: Target) -> tuple[Command, ...]:
    gpus = ",".join(capability.replace(".", "") for capability in target.compute_capabilities)
    build = ["tensorrt_rtx", f"--onnx={model}", f"--saveEngine={ENGINE}", *_shapes(inputs, target)]
    build += [f"--computeCapabilities={gpus}"] if gpus else []
    run = ("tensorrt_rtx", f"--loadEngine={ENGINE}", *_run_shapes(inputs, target))
    versions = "TensorRT-RTX 1.x"
    return (
        Command(tool="tensorrt_rtx", versions=versions, argv=(*build, "--skipInference")),
        Command(tool="tensorrt_rtx", versions=versions, argv=run),
        _polygraphy(model, inputs, target, versions, {"POLYGRAPHY_USE_TENSORRT_RTX": "1"}),
    )


def _polygraphy(
    model: Path,
    inputs: tuple[Tensor, ...],
    target: Target,
    versions: str,
    environment: dict[str, str],
) -> Command:
    """Build, run and save; Polygraphy's own flags are the same for all versions."""
    argv = ["polygraphy", "run", str(model), "--trt", "--strongly-typed"]
    for name, batch in _profile(target).items() if _is_dynamic(inputs) else ():
        argv.append(f"--trt-{name}-shapes")
        argv += [f"{t.name}:[{','.join(map(str, _sizes(t, batch)))}]" for t in inputs]
    options = target.compile
    if options.workspace_mib:
        argv += ["--pool-limit", f"workspace:{options.workspace_mib}M"]
    argv += ["--version-compatible"] * options.version_compatible
    if options.hardware_compatible:
        argv += ["--hardware-compatibility-level", "ampere_plus"]
    argv += [*_WEIGHTS[options.weights]["polygraphy"], "--save-engine", ENGINE]
    return Command(tool="polygraphy", versions=versions, environment=environment, argv=tuple(argv))


def _engine_flags(target: Target) -> list[str]:
    options = target.compile
    flags = []
    if options.workspace_mib:
        flags.append(f"--memPoolSize=workspace:{options.workspace_mib}M")
    if options.version_compatible:
        flags.append("--versionCompatible")
    if options.hardware_compatible:
        flags.append("--hardwareCompatibilityLevel=ampere+")
    return [*flags, *_WEIGHTS[options.weights]["trtexec"]]


def _shapes(inputs: tuple[Tensor, ...], target: Target) -> list[str]:
    """The optimisation profile, where the batch is dynamic; else the model says it all."""
    if not _is_dynamic(inputs):
        return []
    return [f"--{name}Shapes={_spec(inputs, b)}" for name, b in _profile(target).items()]


def _run_shapes(inputs: tuple[Tensor, ...], target: Target) -> list[str]:
    return [f"--shapes={_spec(inputs, target.compile.opt_batch)}"] * _is_dynamic(inputs)


def _spec(inputs: tuple[Tensor, ...], batch: int) -> str:
    return ",".join(f"{t.name}:{'x'.join(map(str, _sizes(t, batch)))}" for t in inputs)


def _sizes(tensor: Tensor, batch: int) -> tuple[int | str, ...]:
    return tuple(batch if size == "batch" else size for size in tensor.shape)


def _is_dynamic(inputs: tuple[Tensor, ...]) -> bool:
    return any(tensor.shape[:1] == ("batch",) for tensor in inputs)


def _profile(target: Target) -> dict[str, int]:
    return {"min": 1, "opt": target.compile.opt_batch, "max": target.compile.max_batch}


def _inputs_of(path: Path) -> tuple[Tensor, ...]:
    try:
        from vitedge.graph.io import inputs_of
    except ImportError as error:
        raise missing(error.name or "onnx", "export") from error
    return inputs_of(path)
