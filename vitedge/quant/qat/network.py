"""An ONNX graph as a torch module, with the quantizers that PTQ placed: what is trained here is
what is deployed, whatever the source of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, numpy_helper
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitedge.core.errors import InputError, error_line
from vitedge.core.spec import Floats
from vitedge.quant.placement import Placement
from vitedge.quant.policy import LINEAR_OPS
from vitedge.quant.qat.fake_quantize import ActivationQuantizer, WeightQuantizer
from vitedge.quant.qat.loss import NetworkOutputs
from vitedge.quant.qat.operators import OPERATORS, attributes

Values = dict[str, Tensor]
Array = NDArray[np.float32]
UNTRAINED = "quantize the model with 'vitedge export' and `precision='int8'`"


class Network(nn.Module):
    """Images (B, H, W, 3) uint8 -> the graph's outputs (B, …) float32, and its last LayerNorm's.

    The graph runs at its own batch size under `torch.vmap`, so that one made for a single image
    trains on as many as there are: B is a multiple of that size. `train()` and `eval()` change
    nothing: an exported graph's Dropout and BatchNormalization are those of inference.
    """

    def __init__(
        self,
        path: Path,
        placed: Placement,
        scales: Mapping[str, Tensor],
        floats: Floats,
        *,
        learned: bool,
        checkpointing: bool = False,
    ) -> None:
        """`path`: an FP32 ONNX file. `scales`: of each weight in `placed`, (channels,).

        With `learned` scales are trained, too. `checkpointing` keeps what passes between blocks,
        and computes what is within them again for the gradients.
        Raises InputError where an operator has no counterpart in torch.
        """
        super().__init__()
        graph = onnx.load(path).graph
        for node in graph.node:
            if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
                raise InputError(
                    f"'{node.name}' is an operator that cannot be trained here: {node.op_type}",
                    fix=UNTRAINED,
                )
        self._input = graph.input[0].name
        main, *further = (output.name for output in graph.output)
        self._outputs = [main, last_norm(graph) or main, *further]
        self.batch = graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
        self._reads = placed.reads
        after_preprocessing = graph.node[_first_layer(graph) :]
        read = {name for node in after_preprocessing for name in node.input}
        read -= _statistics(graph)
        self._weights: dict[str, nn.Parameter] = {}
        self._constants: dict[str, str] = {}
        for tensor in graph.initializer:
            value = torch.from_numpy(numpy_helper.to_array(tensor).copy())
            if tensor.name in read and value.dtype == torch.float32 and value.numel() > 1:
                self._weights[tensor.name] = nn.Parameter(value)
            else:
                self._constants[tensor.name] = f"constant_{len(self._constants)}"
                self.register_buffer(self._constants[tensor.name], value, persistent=False)
        # pixels have a range that is known, and nothing to be learned
        computed = {name for node in after_preprocessing for name in node.output}
        self._activation_quantizers = {
            name: ActivationQuantizer(activation, floats, learned=learned and name in computed)
            for name, activation in placed.activations.items()
        }
        self._weight_quantizers = {
            name: WeightQuantizer(weight, scales[name], floats, learned=learned)
            for name, weight in placed.weights.items()
        }
        self.weights = nn.ParameterList(self._weights.values())
        self.activation_quantizers = nn.ModuleList(self._activation_quantizers.values())
        self.weight_quantizers = nn.ModuleList(self._weight_quantizers.values())
        self._nodes = [(node, attributes(node)) for node in graph.node]
        norms = sum(node.op_type == "LayerNormalization" for node in graph.node)
        blocks = max(2, norms // 2) if checkpointing else 1
        self._segments = _cut(list(graph.node), self._input, self._outputs, blocks)

    def forward(self, images: Tensor) -> NetworkOutputs:
        known: Values = dict(self._weights)
        known |= {name: self.get_buffer(place) for name, place in self._constants.items()}
        for name, quantize in self._weight_quantizers.items():
            known[f"{name}.quantized"] = quantize(known[name])
        live = {self._input: images.unflatten(0, (-1, self.batch))}
        for segment in self._segments:
            live = self._run(segment, live, known)
        logits, tokens, *further = (live[name].flatten(0, 1) for name in self._outputs)
        return NetworkOutputs(logits, tokens, tuple(further))

    def _run(self, segment: _Segment, live: Values, known: Values) -> Values:
        """One segment: `live`, of all images, in and out; `known` is of none, and grows."""
        inputs = [live[name] for name in segment.reads]

        def run_item(*inputs: Tensor) -> tuple[Tensor, ...]:
            values = dict(zip(segment.reads, inputs, strict=True))
            self._execute(segment, values, known)
            of_none = {name: known[name] for name in segment.leaves if name not in values}
            return tuple({**values, **of_none}[name] for name in segment.leaves)

        run_batch = torch.vmap(run_item)
        if len(self._segments) > 1 and torch.is_grad_enabled():
            outputs = checkpoint(run_batch, *inputs, use_reentrant=False)
        else:
            outputs = run_batch(*inputs)
        return dict(zip(segment.leaves, outputs, strict=True))

    def _execute(self, segment: _Segment, values: Values, known: Values) -> None:
        """Run the nodes of a segment; what depends on no image goes to `known`."""
        quantized: Values = {}
        for node, settings in self._nodes[segment.start : segment.end]:
            inputs: list[Tensor | None] = []
            reads = self._reads.get(node.name, {})
            for index, name in enumerate(node.input):
                value = values.get(name, known.get(name)) if name else None
                if index in reads and name in self._activation_quantizers:
                    if name not in quantized:
                        quantized[name] = self._activation_quantizers[name](value)
                    value = quantized[name]
                elif index in reads:
                    value = known[f"{name}.quantized"]
                inputs.append(value)
            outputs = _computed(node, settings, inputs)
            depends = any(name in values for name in node.input) and node.op_type != "Shape"
            (values if depends else known).update(zip(node.output, outputs, strict=False))

    def scale_parameters(self) -> Iterator[nn.Parameter]:
        """The logarithms of all scales."""
        for quantizers in (self.activation_quantizers, self.weight_quantizers):
            yield from quantizers.parameters()

    def trained_weights(self) -> dict[str, Array]:
        """The weights by their names in the graph."""
        return {name: _numpy(weight) for name, weight in self._weights.items()}

    def activation_scales(self) -> dict[str, float]:
        """The scale of every quantized activation by its name in the graph."""
        return {n: quantizer.scale().item() for n, quantizer in self._activation_quantizers.items()}

    def weight_scales(self) -> dict[str, Array]:
        """The scales (channels,) of every quantized weight by its name in the graph."""
        return {n: _numpy(quantizer.scale()) for n, quantizer in self._weight_quantizers.items()}


class _Segment(NamedTuple):
    """Nodes `start` to `end`, and the activations that pass into it and out of it."""

    start: int
    end: int
    reads: list[str]
    leaves: list[str]


def _cut(nodes: list[NodeProto], source: str, outputs: list[str], count: int) -> list[_Segment]:
    """The graph in `count` segments of like length, cut where the fewest activations pass."""
    last_use = {name: i for i, node in enumerate(nodes) for name in node.input}
    last_use.update(dict.fromkeys(outputs, len(nodes)))
    varies = {source}
    alive: list[list[str]] = []  # before node i
    current = [source]
    for i, node in enumerate(nodes):
        current = [name for name in current if last_use.get(name, -1) >= i]
        alive.append(current)
        if node.op_type != "Shape" and any(name in varies for name in node.input):
            outputs_of_node = [name for name in node.output if name]
            varies.update(outputs_of_node)
            current = current + outputs_of_node
    cuts = [0]
    for k in range(1, count):
        ideal, reach = k * len(nodes) // count, len(nodes) // (2 * count)
        near = range(max(cuts[-1] + 1, ideal - reach), min(len(nodes), ideal + reach + 1))
        if near:
            cuts.append(min(near, key=lambda i: (len(alive[i]), abs(i - ideal))))
    ends = [*cuts[1:], len(nodes)]
    leaves = [*(alive[i] for i in cuts[1:]), list(dict.fromkeys(outputs))]
    return list(map(_Segment, cuts, ends, (alive[start] for start in cuts), leaves))


def last_norm(graph: GraphProto) -> str:
    """What the last LayerNorm gives: a ViT's tokens; empty where there is none."""
    norms = [node.output[0] for node in graph.node if node.op_type == "LayerNormalization"]
    return norms[-1] if norms else ""


def _first_layer(graph: GraphProto) -> int:
    """Where the first operator with weights is: what comes before is preprocessing."""
    stored = {tensor.name for tensor in graph.initializer}
    layers = (
        index
        for index, node in enumerate(graph.node)
        if node.op_type in ("Conv", *LINEAR_OPS) and node.input[1] in stored
    )
    return next(layers, len(graph.node))


def _statistics(graph: GraphProto) -> set[str]:
    """Means and variances that a BatchNormalization divides by: measured, not learned."""
    norms = (node for node in graph.node if node.op_type == "BatchNormalization")
    return {name for node in norms for name in node.input[3:5]}


def _computed(node: NodeProto, settings: Mapping[str, Any], inputs: list[Tensor | None]) -> Any:
    try:
        outputs = OPERATORS[node.op_type](*inputs, **settings)
    except NotImplementedError as error:
        raise InputError(
            f"'{node.name}' ({node.op_type}) has settings that cannot be trained here: {error}",
            fix=UNTRAINED,
        ) from error
    except (TypeError, ValueError, IndexError, RuntimeError) as error:  # torch's own
        raise InputError(
            f"'{node.name}' ({node.op_type}) cannot be computed in training: {error_line(error)}",
            fix=f"{UNTRAINED}, or lower `batch_size` if memory ran out",
        ) from error
    return (outputs,) if isinstance(outputs, Tensor) else outputs


def _numpy(tensor: Tensor) -> Array:
    return tensor.detach().float().cpu().numpy()
