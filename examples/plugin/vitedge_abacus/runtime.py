"""A runtime: it keeps its graph reversed, as an abacus is read, and computes with ONNX Runtime."""

from __future__ import annotations

from contextlib import contextmanager

from vitedge.core.runtime import Rule, TensorSpec

FILE = "model.abacus"
DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


def _gelus(graph, target):
    """Complaints of the lint rule below: the node, and what is wrong with it."""
    for node in graph.nodes:
        if node.op_type == "Gelu":
            yield node.name, "a Gelu is counted by hand"


class Abacus:
    name = "abacus"
    title = "Abacus"
    packages = ("vitedge-abacus",)
    extra = ""
    processor = "npu"
    options = frozenset({"beads"})

    def probe(self, host):
        return ""

    def accelerator(self, host):
        return self.title

    def rules(self):
        return (Rule("gelu", "slower", "take ReLU", _gelus),)

    def files(self, manifest):
        return (FILE,)

    def lower(self, model, target, out, progress):
        import onnx

        graph = onnx.load(model)  # with its data, which may lie in a file beside it
        (out / FILE).write_bytes(graph.SerializeToString()[::-1])

    @contextmanager
    def open(self, verified, target):
        import onnxruntime

        graph = verified.path(FILE).read_bytes()[::-1]
        yield _Session(onnxruntime.InferenceSession(graph))


class _Session:
    def __init__(self, session):
        self._session = session
        self.inputs, self.outputs = (
            tuple(TensorSpec(v.name, tuple(v.shape), DTYPES[v.type]) for v in values)
            for values in (session.get_inputs(), session.get_outputs())
        )

    def run(self, feed):
        names = [spec.name for spec in self.outputs]
        return dict(zip(names, self._session.run(names, dict(feed)), strict=True))
