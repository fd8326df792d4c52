"""Ways to break an artifact that everything but its numbers hides: the bundle verifies."""

import shutil

import msgspec
import numpy as np
import onnx
from onnx import helper, numpy_helper

from vitedge.core.bundle import EVIDENCE, MODEL, REPORT, Golden, amend, open_bundle, seal
from vitedge.runtimes.onnxruntime import CONTRIB


def scale_of_one_layer(graph, rng):
    """The weights of one layer, half as large again by their scale."""
    names = {each.name for each in graph.initializer}
    scales = [
        node.input[1]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in names
    ]
    chosen = scales[rng.integers(len(scales))]
    _change(graph, chosen, lambda scale: scale * np.float32(1.5))
    return chosen


def logit_of_one_class(graph, rng):
    """One class wins more often than it should."""
    output = graph.output[0]
    shape = [dim.dim_value for dim in output.type.tensor_type.shape.dim]
    shift = np.zeros([1, shape[1], *[1] * (len(shape) - 2)], np.float32)
    chosen = int(rng.integers(shape[1]))
    shift[0, chosen] = 5
    for node in graph.node:
        if output.name in node.output:
            node.output[list(node.output).index(output.name)] = "unshifted"
    graph.initializer.append(numpy_helper.from_array(shift, "shift"))
    graph.node.append(helper.make_node("Add", ["unshifted", "shift"], [output.name]))
    return f"class {chosen}"


def red_for_blue(graph, rng):
    """RGB read as BGR."""
    image = graph.input[0].name
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == image:
                node.input[place] = "swapped"
    graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "bgr"))
    graph.node.insert(0, helper.make_node("Gather", [image, "bgr"], ["swapped"], axis=3))
    return "RGB to BGR"


def classes_swapped(graph, rng):
    """Two classes change places: what a head of other labels does."""
    order = np.arange(_classes(graph))
    order[[2, 5]] = order[[5, 2]]
    _instead_of_output(graph, "Gather", order, axis=1)
    return "classes 2 and 5"


def outputs_times(factor, shift=0.0):
    """A dead head's outputs: all zero, or hardly more than a constant."""

    def change(graph, rng):
        _instead_of_output(graph, "Mul", np.float32(factor))
        if shift:
            _instead_of_output(graph, "Add", np.float32(shift) * np.arange(1, _classes(graph) + 1))

    return change


def logit_raised(index, by):
    """The logit of class `index`, of a classifier, by a constant."""

    def change(graph, rng):
        _instead_of_output(graph, "Add", np.float32(by) * (np.arange(_classes(graph)) == index))

    return change


def no_normalisation(graph, rng):
    """Pixels of 0-1, as if the mean and the deviation had been forgotten."""
    _change(graph, "image.scale", lambda scale: np.full_like(scale, 1 / 255))
    _change(graph, "image.shift", np.zeros_like)
    return "0-1"


def sabotage(bundle, to, how, seed=0):
    """Copy a bundle of ONNX Runtime beside its FP32 one, break its graph, and seal it again."""
    shutil.copytree(bundle, to)
    for measured in (REPORT, EVIDENCE):
        (to / measured).unlink(missing_ok=True)
    model = onnx.load(to / MODEL)
    how(model.graph, np.random.default_rng(seed))
    onnx.checker.check_model(model)
    onnx.save(model, to / MODEL)
    (to / CONTRIB).unlink(missing_ok=True)  # then that graph is the one that is loaded
    return seal(to, open_bundle(bundle).manifest)


def reference(bundles, folder, how, outputs=None):
    """Copy FP32 and INT8 of ONNX Runtime into `folder`, FP32's graph changed; returns INT8.

    With `outputs`, what becomes of golden outputs, both graphs are changed, and what FP32 gives is
    golden in both: they are sound bundles of such a model.
    """
    for precision in ("fp32", "int8"):
        source = bundles["onnxruntime", precision]
        to = folder / source.name
        if precision == "int8" and outputs is None:
            shutil.copytree(source, to)
            sealed = open_bundle(to)
        else:
            sealed = sabotage(source, to, how)
        if outputs:
            golden = sealed.golden()
            changed = outputs(golden.outputs).astype(np.float32)
            Golden(golden.images, changed, golden.labels).write(to)
            sealed = seal(to, sealed.manifest)
        if precision == "fp32":
            fp32 = sealed
    content = msgspec.structs.replace(sealed.manifest.reference, files=fp32.model_files)
    amend(sealed, reference=content)
    return to


def _classes(graph):
    return graph.output[0].type.tensor_type.shape.dim[1].dim_value


def _instead_of_output(graph, operator, constant, **attributes):
    """Put `operator` of the output and a constant in the output's place."""
    output, count = graph.output[0].name, len(graph.node)
    for node in graph.node:
        if output in node.output:
            node.output[list(node.output).index(output)] = f"before{count}"
    kind = np.int64 if operator == "Gather" else np.float32
    graph.initializer.append(numpy_helper.from_array(constant.astype(kind), f"by{count}"))
    words = [f"before{count}", f"by{count}"], [output]
    graph.node.append(helper.make_node(operator, *words, f"changed{count}", **attributes))


def _change(graph, name, change):
    for each in graph.initializer:
        if each.name == name:
            each.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(each)), name))
            return
    raise KeyError(name)
