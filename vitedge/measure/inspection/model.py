"""What a model is before it is exported: read from its graph, whose weights may be shapes alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from vitedge.core import catalog
from vitedge.core.errors import InputError, VitedgeError, error_line, missing
from vitedge.core.host import Host
from vitedge.core.machine import describe_machine
from vitedge.core.manifest import Tensor
from vitedge.core.runtime import requirement, runtime_of
from vitedge.core.spec import Quantization, Target
from vitedge.measure.inspection import (
    Inspection,
    Lack,
    ModelFacts,
    Row,
    Summary,
    TargetShare,
    summarize,
    total_macs,
)

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import ModelProto

    from vitedge.graph.structure import Structure
    from vitedge.models.sources import ModelRequest, ReferenceModel

OPSET = 20
"""Of the graph that is looked at where no target names another."""
NO_DIALECT = Quantization(activations="int8", weights="full", attention=(), operators=())


def inspect_source(asked: ModelRequest | ReferenceModel, target: Target | None) -> Inspection:
    """Inspect what `vitedge.load` takes, or has loaded; no weights are fetched, read or made.

    Raises InputError and UnavailableError as its export would, but for what is `missing`.
    """
    from vitedge.models.api import shapes_of

    reference = shapes_of(asked)
    try:
        import onnx_ir as ir

        from vitedge.graph.structure import Structure
        from vitedge.models.torch_graph import shapes_graph
    except ImportError as error:
        raise missing(error.name or "onnx", "export") from error

    content, identity = reference.content, reference.identity
    notes = identity.notes
    if isinstance(content, ir.Model):
        graph = Structure(content, infer=True)
        plan = plan_of_file(content, reference, target)
        notes += (plan.note,) if plan.note else ()
    else:
        model = shapes_graph(reference, target.opset if target else OPSET)
        graph = Structure(model)
        plan = Plan(graph, model)
    rows = tuple(plan.rows(target.quantization if target else NO_DIALECT))
    return Inspection(
        name=identity.name,
        kind="model",
        about={"model": f"{identity.name} ({identity.source})"},
        target=target.name if target else None,
        notes=notes,
        planned=target is not None,
        summary=summarize(rows),
        layers=rows,
        quantizers=(),
        lint=None,
        model=facts(graph, plan, target, reference, [*reference.missing.values()]),
    )


@dataclass(frozen=True)
class Plan:
    """The float graph that a target would quantize, in the two forms it is read in."""

    graph: Structure
    model: ModelProto
    note: str = ""
    """Why it is not the one that an export quantizes."""

    def rows(self, dialect: Quantization) -> Iterator[Row]:
        """What a target of that `dialect` would do with each operator."""
        from vitedge.graph.macs import macs
        from vitedge.quant.policy import decide

        counts = {node.name: macs(node) for node in self.graph.nodes}
        unsaid = "float graph; `target` says what would be quantized"
        for depth, decision in enumerate(decide(self.model, dialect), start=1):
            yield Row(
                depth=depth,
                node=decision.node,
                op=decision.op,
                role=decision.role,
                quantized=decision.quantized,
                stored=decision.stored,
                why=unsaid if dialect is NO_DIALECT else decision.why,
                macs=counts.get(decision.node),
            )


def plan_of_file(model: ir.Model, reference: ReferenceModel | None, target: Target | None) -> Plan:
    """What is planned on of the ONNX file that `model` was read from.

    That is what an export makes of `reference`; where there is none, or that fails, `model`.
    """
    import onnx_ir as ir

    from vitedge.graph.structure import Structure

    note = ""
    if reference is not None:
        try:
            from vitedge.measure.inspection.export_form import export_form
        except ImportError as error:
            raise missing(error.name or "onnx", "export") from error
        try:
            model = export_form(reference, target.opset if target else OPSET)
        except (InputError, OSError) as error:
            note = f"the plan is that of the file as it is: {error_line(error)}"
    return Plan(Structure(model, infer=True), ir.to_proto(model), note)


def facts(
    graph: Structure,
    plan: Plan,
    target: Target | None,
    reference: ReferenceModel | None,
    errors: Sequence[VitedgeError],
) -> ModelFacts:
    """What `graph` is, and its `reference`, where there is one, says of it.

    `errors` are what an export would raise; shares are of `plan` and `target`, or of every one.
    """
    identity = reference.identity if reference else None
    unknown = reference is None or "preprocess" in reference.missing
    labels = identity.labels if identity else ()
    machine = describe_machine(threads=0)
    targets = [target] if target else catalog.targets().values()

    @cache
    def totals(dialect: Quantization) -> Summary:
        return summarize(tuple(plan.rows(dialect)))

    return ModelFacts(
        source=identity.source if identity else "",
        task=identity.task if identity else None,
        parameters=_parameters(graph, reference),
        macs=total_macs(tuple(plan.rows(NO_DIALECT))),
        preprocess=None if unknown or identity is None else identity.preprocess,
        classes=len(labels),
        labels=() if all(label.isdecimal() for label in labels) else labels,
        inputs=tuple(map(_tensor, _real_inputs(graph))),
        outputs=tuple(map(_tensor, graph.model.graph.outputs)),
        operators=dict(Counter(node.op_type for node in graph.nodes).most_common()),
        targets=tuple(_share(totals(t.quantization), t, machine) for t in targets),
        missing=tuple(Lack(what=error.what, fix=error.fix) for error in errors),
    )


def _share(total: Summary, target: Target, machine: Host) -> TargetShare:
    """The `total` that `target` would run in INT8, and what `machine` lacks for it."""
    runtime = runtime_of(target)
    needs = catalog.lacks(target, machine)
    if not needs and runtime.packages and runtime.name not in machine.runtimes:
        needs = f"pip install '{requirement(runtime)}'"
    return TargetShare(
        target=target.name,
        operators=total.operators,
        quantized=total.quantized,
        macs_share=total.quantized_macs_share,
        needs=needs,
    )


def _parameters(graph: Structure, reference: ReferenceModel | None) -> int:
    """Of a module its own; of an ONNX file the values of its stored float tensors."""
    content: Any = reference.content if reference else None
    if hasattr(content, "parameters"):
        return sum(parameter.numel() for parameter in content.parameters())
    stored = graph.model.graph.initializers.values()
    shapes = (value.shape for value in stored if value.dtype and value.dtype.is_floating_point())
    return sum(math.prod(shape.numpy()) for shape in shapes if shape is not None)


def _real_inputs(graph: Structure) -> list[ir.Value]:
    """Those that are not stored tensors, too."""
    return [v for v in graph.model.graph.inputs if v.name not in graph.model.graph.initializers]


def _tensor(value: ir.Value) -> Tensor:
    from vitedge.graph.structure import sizes

    shape: list[Any] = list(sizes(value))
    if shape[:1] == [0]:
        shape[0] = "batch"
    kind = value.dtype.name.lower() if value.dtype is not None else ""
    return Tensor(name=value.name or "", shape=tuple(shape), dtype=kind, layout="")
