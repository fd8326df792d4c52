"""A reference model into an FP32 ONNX file that takes uint8 images, with parity checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from vitedge.core import matching
from vitedge.core.detections import check_shapes
from vitedge.core.errors import InputError
from vitedge.core.numerics import EXPORT_PARITY, REWRITE_PARITY, absolute_error, relative_error
from vitedge.core.runtime import TensorSpec
from vitedge.core.spec import WITH_CLASSES, Batch
from vitedge.graph import external, fold, preprocess, selection
from vitedge.graph.foreign.canonical import canonical, name_apart
from vitedge.graph.foreign.dimensions import bind_batch
from vitedge.graph.run import Fp32Graph, Runner, check_finite
from vitedge.graph.structure import sizes
from vitedge.models.sources import ModelIdentity, ReferenceModel
from vitedge.models.torch_graph import explained, name_nodes, output_names, quiet
from vitedge.models.torch_graph import program as torch_program


def export(model: ReferenceModel, folder: Path, batch: Batch, opset: int) -> Fp32Graph:
    """Write `folder/model.onnx`: `image` (B, H, W, 3) uint8 -> float32 logits or features.

    Its weights lie beside it as external data. Raises InputError when an output of the graph
    differs from the source's by more than EXPORT_PARITY, or is NaN or infinite.
    """
    path = folder / "model.onnx"
    spec = model.identity.preprocess
    lower = _from_onnx if isinstance(model.content, ir.Model) else _from_torch
    rng = np.random.default_rng(0)
    count = 3 if batch == "dynamic" else batch
    images = rng.integers(0, 256, (count, spec.height, spec.width, 3), np.uint8)
    with explained(model.identity, batch):
        reference = lower(model, path, batch, opset)
        outputs, wanted = Runner(path)(images), reference(images)
        orders = selection.ordered_by(path, images, outputs)
    _check_output(outputs, model.identity)
    lead = None if batch == "dynamic" else batch
    graph = onnx.load(path, load_external_data=False).graph
    specs, errors = [], []
    names = [value.name for value in graph.output]
    near = matching.in_order(wanted, outputs, [orders.get(name, "") for name in names]).outputs
    for value, got, want in zip(graph.output, near, wanted, strict=True):
        _check_rows(value.name, got, count, model.identity)
        check_finite(got, path, images)
        relative = relative_error(want, got)
        where = f" in its output '{value.name}'" if len(outputs) > 1 else ""
        _check_parity(model.identity.name, relative, where, model)
        specs.append(TensorSpec(value.name, (lead, *got.shape[1:]), str(got.dtype)))
        errors.append((absolute_error(want, got), relative))
    absolutes, relatives = zip(*errors, strict=True)
    return Fp32Graph(
        path=path,
        input=TensorSpec(graph.input[0].name, (lead, spec.height, spec.width, 3), "uint8"),
        output=specs[0],
        max_abs_error=max(absolutes),
        max_rel_error=max(relatives),
        further=tuple(specs[1:]),
        orders=orders,
        detection=model.identity.detection,
    )


def _check_parity(name: str, relative: float, where: str, model: ReferenceModel) -> None:
    """Refuse a graph whose output is `relative` off the source's: of a file, on one runtime."""
    if isinstance(model.content, ir.Model) and not relative <= REWRITE_PARITY:
        raise InputError(
            f"{name}: bringing the file into the target's opset changed what it computes, by "
            f"{relative:.1e} relative{where} (limit {REWRITE_PARITY:.0e})",
            fix="export it again with the target's opset, and report the file",
        )
    if not relative <= EXPORT_PARITY:
        raise InputError(
            f"{name}: the exported graph differs from its source by {relative:.1e} relative{where} "
            f"(limit {EXPORT_PARITY:.0e})",
            fix="the model computes something its export does not; report it with the model",
        )


def _check_rows(name: str, output: NDArray[Any], count: int, model: ModelIdentity) -> None:
    """Refuse an output that is not one float32 row for each of `count` images."""
    if output.dtype != np.float32 or output.shape[:1] != (count,):
        raise InputError(
            f"{model.name} gives {output.dtype} {output.shape} as '{name}' for {count} images, not "
            "a float32 row for each",
            fix="name the outputs to keep with `model_output`",
        )
    if not output.size:
        raise InputError(
            f"{model.name} gives '{name}' of shape {output.shape}: there is nothing in it",
            fix="correct its configuration (its class count?), or name the outputs to keep with "
            "`model_output`",
        )


def _check_output(outputs: Sequence[NDArray[Any]], model: ModelIdentity) -> None:
    """Refuse what is not one float32 row for each image, with one column for each class."""
    output, rule, classes = outputs[0], model.detection, len(model.labels)
    if rule:
        check_shapes(outputs, rule, classes, model.name)
        return
    if output.dtype != np.float32 or output.ndim < 2:
        raise InputError(
            f"{model.name} gives {output.dtype} {output.shape}, not a float32 row for each image",
            fix="export it without what follows its logits",
        )
    if model.task in WITH_CLASSES and output.shape[1] != classes:
        raise InputError(
            f"{model.name} gives {output.shape[1]} logits for {classes} classes",
            fix="correct its labels, or the class count its graph states",
        )


def release(model: ReferenceModel) -> None:
    """Empty the weights of an exported torch model: hundreds of MB that are on disk by now.

    Dropping the module is not enough: onnxscript's rewrite rules remember the last graph.
    """
    if not isinstance(model.content, ir.Model):
        for parameter in model.content.parameters():
            parameter.data = parameter.data.new_empty(0)


def _from_torch(
    model: ReferenceModel, path: Path, batch: Batch, opset: int
) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
    import torch

    spec, module = model.identity.preprocess, model.content
    assert isinstance(module, torch.nn.Module)
    example = torch.zeros(2 if batch == "dynamic" else batch, 3, spec.height, spec.width)
    dynamic = ({0: torch.export.Dim("batch")},) if batch == "dynamic" else None
    with quiet():
        program = torch_program(module, example, opset, output_names(model), dynamic)
        fold.constants(program.model)
    program.save(path, external_data=True)
    for value in program.model.graph.initializers.values():
        value.const_value = None  # views of the weights that would outlive `release`
    proto = onnx.load(path, load_external_data=False)
    name_nodes(proto)
    preprocess.prepend(proto, spec)
    onnx.save(proto, path)

    def reference(images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        with torch.inference_mode():
            pixels = torch.from_numpy(preprocess.apply_numpy(images, spec))
            outputs = module(pixels)
        return [x.numpy() for x in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return reference


def _from_onnx(
    model: ReferenceModel, path: Path, batch: Batch, opset: int
) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
    assert isinstance(model.content, ir.Model)
    graph = model.content.clone()  # its tensors are shared
    _set_batch(graph.graph, batch, model.identity.source)
    name_apart(graph.graph)
    source = path.with_name("source.onnx")
    external.write(graph, source)  # what it is compared with; its weights stay in that file
    spec = model.identity.preprocess
    embedded = graph.graph.inputs[0].dtype == ir.DataType.UINT8
    count = 2 if batch == "dynamic" else batch
    images = np.random.default_rng(0).integers(
        0, 256, (count, spec.height, spec.width, 3), np.uint8
    )
    pixels = images if embedded else preprocess.apply_numpy(images, spec)
    with quiet():
        canonical(source, path, opset, pixels, model.identity.source)
    if not embedded:
        proto = onnx.load(path, load_external_data=False)
        preprocess.prepend(proto, spec)
        onnx.save(proto, path)
    onnx.shape_inference.infer_shapes_path(path, path)

    def reference(images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        pixels = images if embedded else preprocess.apply_numpy(images, model.identity.preprocess)
        return Runner(source)(pixels)

    return reference


def _set_batch(graph: ir.Graph, batch: Batch, path: str) -> None:
    """Give a foreign model the batch asked for, where its graph allows it."""
    fixed = sizes(graph.inputs[0])[0]
    if fixed and fixed != batch:
        raise InputError(
            f"{path} is fixed at batch {fixed}, not {batch}",
            fix=f"pass `batch={fixed}`, or export it with a dynamic batch",
        )
    if not fixed and batch != "dynamic":
        bind_batch(graph, batch)
