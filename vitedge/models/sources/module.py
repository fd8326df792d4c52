"""An `nn.Module` in memory, with what it does not say of itself: preprocessing and task."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from vitedge.core.errors import InputError, error_line
from vitedge.core.spec import Preprocess
from vitedge.graph.outputs import choose
from vitedge.models.sources import checkpoints
from vitedge.models.sources.base import (
    ModelIdentity,
    ModelRequest,
    ReferenceModel,
    bundle_name,
    refuse,
)
from vitedge.models.sources.detectors import guessed
from vitedge.models.sources.labels import class_names
from vitedge.models.sources.outputs import ALONE, ChosenOutputs, named, specs


def load(module: nn.Module, request: ModelRequest) -> ReferenceModel:
    """A copy of `module`, on the CPU, in float32 and for inference. Raises InputError."""
    kind = type(module).__qualname__
    refuse(request, "arch", "weights", "random_weights")
    preprocess = request.own_preprocess()
    if preprocess is None:
        raise InputError(
            f"{kind} does not say how its images are made",
            fix="give `preprocess`: a vitedge.Preprocess(height=…, width=…, …), or a .toml",
        )
    try:
        own = on_meta(module) if request.shapes_only else copy.deepcopy(module).cpu()
        own = own.float().eval()
    except Exception as error:  # whatever the copy of a submodule raises
        fix = "export it to ONNX yourself, and give FILE.onnx"
        raise InputError(f"{kind} cannot be copied: {error_line(error)}", fix=fix) from error
    for layer in own.modules():
        if hasattr(layer, "fused_attn"):  # timm's: its parts, not one operator, get quantized
            setattr(layer, "fused_attn", False)  # noqa: B010 - no attribute that mypy knows
    tensors = _tensors(own, kind, preprocess)
    single = ALONE in tensors
    if single and request.model_output:
        raise InputError(f"{kind} gives one tensor, which has no name", fix="drop `model_output`")
    outputs = choose(specs(tensors), request.model_output, request.task, kind)
    notes, rule = list[str](), None
    if outputs.task == "detection":
        rule = guessed(outputs.classes, len(request.labels), "", notes)
    classes = outputs.classes - (rule.no_object if rule else 0)
    state = own.state_dict()
    checkpoints.require_finite(state, kind)
    identity = ModelIdentity(
        name=bundle_name(request.name or kind),
        source=f"module:{kind}",
        weights_sha256=checkpoints.digest(state),
        preprocess=preprocess,
        task=outputs.task,
        labels=class_names(request.labels, None, classes, kind) if outputs.classes else (),
        trained=True,
        notes=(*notes, *outputs.notes),
        detection=rule,
    )
    if single:
        return ReferenceModel(identity, own)
    return ReferenceModel(identity, ChosenOutputs(own, outputs.names), outputs.names)


def on_meta(module: nn.Module) -> nn.Module:
    """A copy of `module` whose tensors are shapes alone."""
    tensors = [
        value
        for part in module.modules()
        for values in (part._parameters, part._buffers, vars(part))
        for value in values.values()
        if isinstance(value, Tensor)
    ]
    empty: dict[int, object] = {}
    for tensor in tensors:
        empty[id(tensor)] = shape = torch.empty_like(tensor, device="meta")
        if isinstance(tensor, nn.Parameter):
            empty[id(tensor)] = nn.Parameter(shape, requires_grad=False)
    return copy.deepcopy(module, empty)


def _tensors(module: nn.Module, kind: str, preprocess: Preprocess) -> dict[str, Tensor]:
    """What it makes of one black image, by name."""
    size = (preprocess.height, preprocess.width)
    try:
        with torch.no_grad():
            output = module(torch.zeros(1, 3, *size))
    except Exception as error:  # whatever a module raises
        raise InputError(
            f"{kind} does not take (1, 3, {size[0]}, {size[1]}) float32: {error_line(error)}",
            fix="correct height and width of `preprocess`, or wrap what takes anything else",
        ) from error
    tensors = named(output)
    if not tensors:
        raise InputError(
            f"{kind} gives {type(output).__name__}, and no tensor in it",
            fix="wrap it in a module that returns its logits or features",
        )
    return tensors
