"""What TensorRT-RTX makes of a graph, with no GPU: its errors, or the layers of its build log."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

LAYER = re.compile(r"^Name: (.*?), LayerType: (\w+), Inputs: (.*), Outputs: ")


@dataclass(frozen=True)
class Layer:
    """One compiled layer."""

    name: str
    kind: str
    reads: tuple[str, ...]
    """Types of the inputs and constants of more than one dimension."""
    nodes: tuple[str, ...]
    """The ONNX nodes it came from."""


@dataclass(frozen=True)
class Compiled:
    """An engine, or why there is none."""

    errors: tuple[str, ...]
    layers: tuple[Layer, ...]

    def int8(self, node):
        """Whether `node` multiplies two INT8 tensors as they are.

        A layer of kind `runtime_fusion` reads INT8, too, and computes in float.
        """
        made = [x for x in self.layers if node in x.nodes and x.kind != "runtime_fusion"]
        return any(x.reads.count("Int8") > 1 for x in made)

    def fused(self, *nodes):
        """Whether one layer computes all of `nodes`."""
        return any(set(nodes) <= set(x.nodes) for x in self.layers)


def compiled(model, capability="SM86"):
    """Compile `model` ahead of time; a first dimension left open becomes 1 to 8."""
    trt = pytest.importorskip("tensorrt_rtx")

    class Log(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.lines = []

        def log(self, severity, message):
            self.lines.append((severity, message))

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model.SerializeToString()):
        whys = [parser.get_error(i) for i in range(parser.num_errors)]
        return Compiled(tuple(why.desc() for why in whys), ())
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    source = network.get_input(0)
    if source.shape[0] == -1:
        profile = builder.create_optimization_profile()
        profile.set_shape(source.name, *((batch, *source.shape[1:]) for batch in (1, 4, 8)))
        config.add_optimization_profile(profile)
    if builder.build_serialized_network(network, config) is None:
        bad = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)
        return Compiled(tuple(text for severity, text in log.lines if severity in bad), ())
    whole = "\n".join(text for _, text in log.lines)
    return Compiled((), tuple(_layers(whole)))


def _layers(log):
    found = []
    for line in log.splitlines():
        if match := LAYER.match(line):
            name, kind, read = match.groups()
            tensors = re.findall(r"Dimensions: \[(.*?)\].*?Datatype: (\w+)", read)
            found.append(
                Layer(
                    name=name,
                    kind=kind,
                    reads=tuple(dtype for dims, dtype in tensors if "," in dims),
                    nodes=tuple(re.findall(r"\[ONNX Layer: (.*?)\]", line)),
                )
            )
    return found
