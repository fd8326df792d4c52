"""The commands with which NVIDIA's own tools build and time a model, for who wants their numbers.

Flags as trtexec 10.3, 10.16 and 11.1, tensorrt_rtx 1.7 and Polygraphy 0.53 take them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from vitedge.core import catalog
from vitedge.core.bundle import ENGINE, MODEL, open_bundle
from vitedge.core.errors import InputError, missing
from vitedge.core.machine import describe_machine
from vitedge.core.manifest import Tensor
from vitedge.core.runtime import runtime_of
from vitedge.core.spec import Target
from vitedge.runtimes.tensorrt import TensorRT

SCHEMA = "vitedge.commands/1"
_AS_11 = ("--noDataTransfers", "--useCudaGraph", "--useSpinWait")
"""What trtexec 11 and tensorrt_rtx do by default: without them, latencies of 10 do not compare."""
_OPTIONS = {
    "workspace_mib": ("--memPoolSize=workspace:{}M", "--pool-limit workspace:{}M"),
    "version_compatible": ("--versionCompatible", "--version-compatible"),
    "hardware_compatible": (
        "--hardwareCompatibilityLevel=ampere+",
        "--hardware-compatibility-level ampere_plus",
    ),
    "refittable": ("--refit", "--refittable"),
    "stripped": ("--stripWeights", "--strip-plan"),
}
"""What trtexec and Polygraphy call each setting of `[compile]`, and each kind of `weights`."""


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
    """What `vitedge inspect` prints with `form='trtexec'`."""

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
        model, inputs = path / MODEL, bundle.manifest.inputs
        chosen = chosen or bundle.manifest.target
        if model.name not in bundle.manifest.files:
            raise InputError(
                f"{path} holds no ONNX graph", fix="give a TensorRT artifact or the ONNX file"
            )
    runtime = runtime_of(chosen)
    if not isinstance(runtime, TensorRT):
        raise InputError(
            f"`form='trtexec'` is for TensorRT, and {chosen.name} is of {chosen.runtime}",
            fix="pass `target='tensorrt'`, or another one of 'vitedge targets list'",
        )
    for tensor in inputs:
        if 0 in tensor.shape:
            raise InputError(
                f"{model}: the shape of its input '{tensor.name}' is open beyond the batch",
                fix="export it with height and width fixed",
            )
    return Commands(
        target=chosen.name,
        commands=tuple(_commands(model, inputs, chosen, rtx=runtime.ahead_of_time)),
    )


def show(commands: Commands) -> None:
    """Print the commands on stdout, each with a comment on what takes it."""
    for command in commands.commands:
        print(f"# {command.tool}, {command.versions}\n{command.line()}")


def _commands(
    model: Path, inputs: tuple[Tensor, ...], target: Target, *, rtx: bool
) -> Iterator[Command]:
    build: tuple[str, ...] = (f"--onnx={model}", f"--saveEngine={ENGINE}")
    profile = _shapes(inputs, target, "{}:{}", "x")
    shapes = tuple(f"--{name}Shapes={','.join(shapes)}" for name, shapes in profile.items())
    if rtx:
        versions, environment = "TensorRT-RTX 1.x", {"POLYGRAPHY_USE_TENSORRT_RTX": "1"}
        gpus = ",".join(name.replace(".", "") for name in target.compute_capabilities)
        build += (*shapes, *([f"--computeCapabilities={gpus}"] if gpus else []))
        run = [f"--shapes={','.join(profile['opt'])}"] if profile else []
        for argv in ((*build, "--skipInference"), (f"--loadEngine={ENGINE}", *run)):
            yield Command(tool="tensorrt_rtx", versions=versions, argv=("tensorrt_rtx", *argv))
    else:
        versions, environment = "TensorRT 10.x and 11.x", {}
        first, end = (tuple(int(n) for n in text.split(".") if n) for text in target.versions)
        argv = ("trtexec", *build, "--timingCacheFile=timing.cache", *shapes)
        argv += _options(target, 0)
        if first < (11,):
            flags = ("--stronglyTyped", *_AS_11)
            yield Command(tool="trtexec", versions="TensorRT 10.x", argv=(*argv, *flags))
        if not end or end > (11,):
            yield Command(tool="trtexec", versions="TensorRT 11.x", argv=argv)
    argv = ("polygraphy", "run", str(model), "--trt", "--strongly-typed")
    for name, sizes in _shapes(inputs, target, "{}:[{}]", ",").items():
        argv += (f"--trt-{name}-shapes", *sizes)
    argv += (*_options(target, 1), "--save-engine", ENGINE)
    yield Command(tool="polygraphy", versions=versions, environment=environment, argv=argv)


def _options(target: Target, tool: int) -> tuple[str, ...]:
    """The flags of trtexec (0) or Polygraphy (1) that say what `[compile]` of `target` does."""
    settings = {**msgspec.structs.asdict(target.compile), target.compile.weights: True}
    chosen = {name: value for name, value in settings.items() if name in _OPTIONS and value}
    flags = (_OPTIONS[name][tool].format(value) for name, value in chosen.items())
    return tuple(" ".join(flags).split())


def _shapes(
    inputs: tuple[Tensor, ...], target: Target, form: str, separator: str
) -> dict[str, list[str]]:
    """The shape of each input at the batches of the profile, in a tool's `form` of name and sizes.

    Empty where the batch is fixed: then the model says it all.
    """
    if not any(tensor.shape[:1] == ("batch",) for tensor in inputs):
        return {}

    def sizes(tensor: Tensor, batch: int) -> str:
        return separator.join(str(batch if size == "batch" else size) for size in tensor.shape)

    batches = {"min": 1, "opt": target.compile.opt_batch, "max": target.compile.max_batch}
    return {
        name: [form.format(tensor.name, sizes(tensor, batch)) for tensor in inputs]
        for name, batch in batches.items()
    }


def _inputs_of(path: Path) -> tuple[Tensor, ...]:
    try:
        from vitedge.graph.io import inputs_of
    except ImportError as error:
        raise missing(error.name or "onnx", "export") from error
    return inputs_of(path)
