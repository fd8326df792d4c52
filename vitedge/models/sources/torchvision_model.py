"""torchvision:NAME or NAME.WEIGHTS, with that entry's weights, transforms and categories."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitedge.core.errors import InputError, error_line, nearest
from vitedge.core.runtime import TensorSpec
from vitedge.core.spec import Task
from vitedge.graph.outputs import Outputs, choose
from vitedge.models.preprocessing import from_torchvision
from vitedge.models.sources import checkpoints, random_weights, sizes
from vitedge.models.sources.base import (
    Missing,
    ModelIdentity,
    ModelRequest,
    ReferenceModel,
    bundle_name,
    downloaded,
    not_here,
    refuse,
    unavailable,
)
from vitedge.models.sources.imports import unimportable
from vitedge.models.sources.labels import class_names, numbers_note
from vitedge.models.sources.outputs import ChosenOutputs

SEGMENTATION_SIZE = (520, 520)
"""What torchvision's segmentation weights were trained at, pixels."""


def load(name: str, request: ModelRequest) -> ReferenceModel:
    """Build NAME by torchvision. Raises InputError and UnavailableError."""
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:
        raise unimportable("torchvision", "torchvision", error) from error

    arch, _, tag = name.partition(".")
    segmenters = models.list_models(models.segmentation)
    known = [*models.list_models(models), *segmenters]
    if arch not in known:
        raise InputError(f"torchvision has no model '{arch}'", fix=nearest(arch, known))
    entry = _entry(models.get_model_weights(arch), name, tag)
    task: Task = "segmentation" if arch in segmenters else "classification"
    if request.task not in (None, task):
        raise InputError(f"torchvision's {arch} does {task}, not {request.task}", fix="drop `task`")
    transforms = entry.transforms()
    preprocess = request.own_preprocess() or from_torchvision(transforms, SEGMENTATION_SIZE)
    torch.manual_seed(0)
    names, notes = entry.meta["categories"], list[str]()
    classes, size = len(names), (preprocess.height, preprocess.width)

    def make(classes: int, size: sizes.Size = size) -> nn.Module:
        options = _options(arch, task, size)
        module: nn.Module = models.get_model(arch, weights=None, num_classes=classes, **options)
        return module.eval()

    source = f"torchvision:{name}"
    with sizes.told(lambda size: make(classes, size)(sizes.black(size)), size, source):
        module = make(classes)
        if request.preprocess:
            with torch.no_grad():
                module(sizes.black(size))
    missing: Missing = {}
    if request.weights:
        module, classes = checkpoints.load_weights(module, classes, request.weights, make)
        if classes != len(names) and not request.labels:
            notes.append(numbers_note(request.weights, classes, len(names)))
            names = ()
    elif request.shapes_only:
        missing = {} if downloaded(entry.url) else {"weights": not_here(source)}
    elif request.random_weights:
        random_weights.spread(module, preprocess)
    else:
        module.load_state_dict(_resampled(_fetched(entry.url, source), module))
    state = module.state_dict()
    checkpoints.require_finite(state, source)
    outputs: Outputs | None = None
    if task == "segmentation":
        outputs = _outputs(module, classes, request.model_output, source)
    else:
        refuse(request, "model_output")
    identity = ModelIdentity(
        name=bundle_name(name),
        source=source,
        weights_sha256=checkpoints.digest(state),
        preprocess=preprocess,
        task=task,
        labels=class_names(request.labels, names, classes, source),
        trained=not request.random_weights,
        notes=(*notes, *(outputs.notes if outputs else ())),
    )
    if outputs is None:
        return ReferenceModel(identity, module, missing=missing)
    content = ChosenOutputs(module, outputs.names)
    return ReferenceModel(identity, content, outputs.names, missing)


def _outputs(module: nn.Module, classes: int, requested: Sequence[str], source: str) -> Outputs:
    """Those to keep of a segmentation model: `out`; its second head is there to train with."""
    auxiliary = ["aux"] if getattr(module, "aux_classifier", None) else []
    shape = (None, classes, None, None)
    available = [TensorSpec(name, shape, "float32") for name in ("out", *auxiliary)]
    return choose(available, requested or ["out"], "segmentation", source)


def _fetched(url: str, source: str) -> dict[str, Tensor]:
    """The state dict at `url`, downloaded once. Raises UnavailableError and InputError."""
    try:
        state = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
        assert isinstance(state, dict)
    except OSError as error:
        raise unavailable(source, error_line(error)) from error
    except Exception as error:  # pickle, zip and hash errors alike
        raise InputError(
            f"{source}: its weights cannot be read as tensors only: {error_line(error)}",
            fix=f"delete {url.rpartition('/')[2]} from torch's download folder: it is damaged",
        ) from error
    return state


def _entry(weights: Any, name: str, tag: str) -> Any:
    """The weights called `tag` of the enumeration `weights`; its default where that is empty."""
    if not tag:
        return weights.DEFAULT
    if tag not in weights.__members__:
        raise InputError(
            f"torchvision has no weights '{name}'", fix=nearest(tag, list(weights.__members__))
        )
    return weights[tag]


def _options(arch: str, task: Task, size: sizes.Size) -> dict[str, Any]:
    """What the builder would set itself if it were given the weights, and fetch nothing."""
    options: dict[str, Any] = {}
    if task == "segmentation":
        options["weights_backbone"] = None
        if not arch.startswith("lraspp"):
            options["aux_loss"] = True
    if arch in ("googlenet", "inception_v3"):
        options |= {"transform_input": True, "init_weights": False}
    if arch.startswith("vit_"):
        if size[0] != size[1]:
            raise InputError(
                f"torchvision's {arch} takes square images only, not {size[0]}×{size[1]}",
                fix="set one height and width in `preprocess`",
            )
        options["image_size"] = size[0]
    return options


def _resampled(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """`state` with its position embeddings interpolated to the module's resolution, of a ViT."""
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    if not isinstance(module, VisionTransformer):
        return state
    resampled: dict[str, Tensor] = interpolate_embeddings(
        module.image_size, module.patch_size, OrderedDict(state)
    )
    return resampled
