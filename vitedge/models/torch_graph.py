"""A torch module as an ONNX graph: how it is exported, and what it will be, by its shapes alone."""

from __future__ import annotations

import ast
import contextlib
import gc
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from onnx import ModelProto, TensorProto

from vitedge.core.complaints import RuntimeFailure
from vitedge.core.errors import InputError, VitedgeError, error_line
from vitedge.core.spec import MEANING, Batch
from vitedge.graph import fold
from vitedge.models.sources import ModelIdentity, ReferenceModel

if TYPE_CHECKING:
    import torch


def output_names(model: ReferenceModel) -> Sequence[str]:
    """What the outputs of a module are called in its graph."""
    return model.outputs or (MEANING[model.identity.task],)


def program(
    module: torch.nn.Module,
    example: torch.Tensor,
    opset: int,
    names: Sequence[str],
    dynamic_shapes: Any = None,
) -> torch.onnx.ONNXProgram:
    """`module` exported, which takes one tensor like `example`: `pixels` -> outputs of `names`."""
    import torch

    with _unchecked():
        exported = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=opset,
            input_names=["pixels"],
            output_names=names,
            dynamic_shapes=dynamic_shapes,
            optimize=False,  # `fold` does all of that, and with no limit on sizes
            verbose=False,
        )
    assert exported is not None
    return exported


def shapes_graph(model: ReferenceModel, opset: int) -> ModelProto:
    """The graph, at batch 1, that the export of a module on the meta device would be.

    Weights, and what is computed of them alone, are tensors without data; preprocessing is not in
    it. Raises InputError for a module that cannot be exported.
    """
    import torch

    spec, module = model.identity.preprocess, model.content
    assert isinstance(module, torch.nn.Module)
    with explained(model.identity, 1), quiet(), _uncollected(), torch.device("meta"):
        example = torch.zeros(1, 3, spec.height, spec.width)
        exported = program(module, example, opset, output_names(model))
        graph = exported.model.graph
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.Tensor) and value.const_value.raw.is_meta:
                value.const_value = None
        fold.constants(exported.model)
        fold.by_shape(graph)
        proto = ir.to_proto(exported.model)
    stored = {tensor.name for tensor in proto.graph.initializer}
    for name, value in graph.initializers.items():
        if name not in stored and value.shape is not None and value.dtype is not None:
            dims = value.shape.numpy()
            proto.graph.initializer.append(TensorProto(name=name, dims=dims, data_type=value.dtype))
    name_nodes(proto)
    return proto


def name_nodes(proto: ModelProto) -> None:
    """Name nodes after their module (`blocks.0.attn.qkv/MatMul`); drop the exporter's notes.

    The notes hold the paths and stack traces of the machine that exported.
    """
    seen: dict[str, int] = {}
    for node in proto.graph.node:
        notes = {entry.key: entry.value for entry in node.metadata_props}
        scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))
        module = next((s for s in reversed(scopes[:-1]) if s), "model")
        name = f"{module}/{node.op_type}"
        seen[name] = seen.get(name, -1) + 1
        node.name = f"{name}_{seen[name]}" if seen[name] else name
        del node.metadata_props[:]
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
    for tensor in proto.graph.initializer:
        del tensor.metadata_props[:]


@contextlib.contextmanager
def explained(model: ModelIdentity, batch: Batch) -> Iterator[None]:
    """One message for whatever an exporter or a runtime raises over a model it cannot take."""
    try:
        yield
    except Exception as error:
        root: BaseException = error
        if not isinstance(error, RuntimeFailure):
            if isinstance(error, (VitedgeError, OSError)):  # a full disk is not the model's fault
                raise
            while root.__cause__ is not None:
                root = root.__cause__
            if isinstance(root, VitedgeError):
                raise root from None
        spec = model.preprocess
        raise InputError(
            f"{model.source or model.name} cannot be exported at {spec.height}×{spec.width}, "
            f"batch {batch}: {error_line(root)}",
            fix="try another `batch` or `preprocess`, or export it to ONNX yourself and give that",
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's own progress, warnings and graphs off the user's terminal.

    Where it fails, it prints the graph it has got so far; its exception says what there is to say.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _unchecked() -> Iterator[None]:
    """Without transformers' checks of shapes: they become `aten._is_all_true`, which has no ONNX.

    The module has run on such an image, with its checks, before it is exported.
    """
    name = "TRANSFORMERS_DISABLE_TORCH_CHECK"  # read at each check
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Put garbage collection off: a fifth of the time of tracing, which makes little garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
