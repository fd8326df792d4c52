"""What an exporter left open in a graph's input is bound: nothing here computes with unknowns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from vitedge.core.errors import InputError, error_line
from vitedge.graph.external import write
from vitedge.graph.run import Runner
from vitedge.graph.structure import sizes

_DTYPES = {ir.DataType.FLOAT: np.float32, ir.DataType.UINT8: np.uint8}


@dataclass(frozen=True)
class ImageInput:
    """The one image that a graph takes, (B, 3, H, W) or (B, H, W, 3)."""

    value: ir.Value
    channels_last: bool

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels; 0 where open."""
        dims = sizes(self.value)
        return (dims[1], dims[2]) if self.channels_last else (dims[2], dims[3])


def image_input(graph: ir.Graph) -> ImageInput | None:
    """None where there is not one input of four axes, float32 or uint8."""
    inputs = [value for value in graph.inputs if value.const_value is None]
    dims = sizes(inputs[0]) if len(inputs) == 1 else ()
    if len(dims) != 4 or inputs[0].dtype not in _DTYPES:
        return None
    channels_last = dims[1] != 3 and (dims[3] == 3 or inputs[0].dtype == ir.DataType.UINT8)
    if inputs[0].dtype == ir.DataType.UINT8 and not channels_last:
        return None
    return ImageInput(inputs[0], channels_last)


def bind(model: ir.Model, path: Path, height: int | None, width: int | None) -> None:
    """Give the image that `model`, read from `path`, takes its size, in place; its batch stays.

    Float pixels in (B, H, W, 3) become (B, 3, H, W), and outputs get the sizes that follow.
    Raises InputError where the size is open and not given, or does not run.
    """
    image = image_input(model.graph)
    if image is None:
        return
    size = tuple(fixed or given for fixed, given in zip(image.size, (height, width), strict=True))
    if None in size:
        raise InputError(
            f"{path} leaves the size of its images open: {image.value.name} is {_stated(image)}",
            fix="pass `height` and `width`, or a `preprocess` that says them",
        )
    batch = (image.value.shape or ir.Shape(["batch"]))[0]
    if not isinstance(batch, int) and batch.value is None:
        batch = ir.SymbolicDim("batch")
    dims = sizes(image.value)
    channels = dims[3 if image.channels_last else 1] or 3
    if image.channels_last:
        image.value.shape = ir.Shape([batch, *size, channels])
    else:
        image.value.shape = ir.Shape([batch, channels, *size])
    if image.channels_last and image.value.dtype == ir.DataType.FLOAT:
        _planes_first(model.graph, image.value)
    if not all(map(_is_known, model.graph.outputs)):
        _infer_outputs(model)
    if not all(map(_is_known, model.graph.outputs)):
        _bind_outputs(model, path)


def _is_known(output: ir.Value) -> bool:
    """Whether all of its sizes but the batch are stated."""
    return bool(output.shape) and 0 not in sizes(output)[1:]


def _infer_outputs(model: ir.Model) -> None:
    """Give every output the sizes that follow from the operators alone, where they do."""
    inferred = model.clone()
    for value in inferred.graph.outputs:
        value.shape = None
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(inferred)
    for value, output in zip(model.graph.outputs, inferred.graph.outputs, strict=True):
        if _is_known(output) and output.shape is not None:
            lead = (value.shape or output.shape)[0]
            value.shape = ir.Shape([lead, *output.shape[1:]])


def bind_batch(graph: ir.Graph, batch: int) -> None:
    """Let `graph`, which leaves it open, take so many images a run, in place."""
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None  # may be of another batch
    for value in (*graph.inputs, *graph.outputs):
        if value.shape:
            value.shape = ir.Shape([batch, *list(value.shape)[1:]])


def _stated(image: ImageInput) -> str:
    dims = [getattr(dim, "value", dim) or "?" for dim in image.value.shape or ()]
    return " × ".join(map(str, dims))


def _planes_first(graph: ir.Graph, pixels: ir.Value) -> None:
    """Let `graph` take (B, 3, H, W) for its `pixels` (B, H, W, 3)."""
    assert pixels.shape is not None
    batch, height, width, channels = pixels.shape
    planes = ir.Value(
        name=f"{pixels.name}.planes",
        shape=ir.Shape([batch, channels, height, width]),
        type=pixels.type,
    )
    turned = ir.node("Transpose", [planes], {"perm": [0, 2, 3, 1]}, name=f"{pixels.name}/Transpose")
    pixels.replace_all_uses_with(turned.outputs[0])
    turned.outputs[0].name = f"{pixels.name}.pixels"
    graph.inputs[graph.inputs.index(pixels)] = planes
    first = next(iter(graph))
    graph.insert_before(first, turned)


def _bind_outputs(model: ir.Model, path: Path) -> None:
    """Give every output the sizes that it has for an image; its batch stays as it is."""
    image = next(value for value in model.graph.inputs if value.const_value is None)
    dims = [size or 1 for size in sizes(image)]
    assert image.dtype is not None and image.shape is not None
    with TemporaryDirectory() as folder:
        trial = Path(folder) / "model.onnx"
        try:
            write(model.clone(), trial)
            outputs = Runner(trial)(np.zeros(dims, _DTYPES[image.dtype]))
        except OSError as error:
            raise InputError(
                f"cannot write to {folder}: {error.strerror}",
                fix="free some space there, or export the file with the sizes of its outputs",
            ) from error
        except Exception as error:  # whatever ONNX Runtime raises
            raise InputError(
                f"{path} does not run on an image of {'×'.join(map(str, dims[1:]))}: "
                f"{error_line(error)}",
                fix="pass another `height` and `width`",
            ) from error
    for value, output in zip(model.graph.outputs, outputs, strict=True):
        if isinstance(output, np.ndarray) and output.ndim:
            batch = (value.shape or image.shape)[0]
            value.shape = ir.Shape([batch, *output.shape[1:]])
