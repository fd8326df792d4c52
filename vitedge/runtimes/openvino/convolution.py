"""INT8 convolutions that OpenVINO computes rightly where the size of a batch is open."""

from __future__ import annotations

from typing import Any

import numpy as np

RESHAPED = ("Reshape", "Squeeze", "Unsqueeze")
LARGEST = float(np.finfo(np.float32).max)


def keep_scales(model: Any, ov: Any) -> None:
    """Keep the channels' scales of an INT8 convolution that several read, reshaped, at it.

    With an open batch OpenVINO 2026.4 moves them behind the reshaping of one reader in the wrong
    order of axes (2 to 4 dB are left). A Clamp that changes nothing holds them back: it goes into
    the convolution.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convolution" or not _in_int8(node):
            continue
        output = _with_bias(node).output(0)
        readers = list(output.get_target_inputs())
        kinds = {reader.get_node().get_type_name() for reader in readers}
        if len(readers) < 2 or kinds.isdisjoint(RESHAPED):
            continue
        if output.get_partial_shape()[0].is_static:
            continue
        held = ov.opset13.clamp(output, -LARGEST, LARGEST)
        for reader in readers:
            reader.replace_source_output(held.output(0))


def _in_int8(convolution: Any) -> bool:
    """Whether its weights are."""
    return bool(convolution.input_value(1).get_node().get_type_name() != "Constant")


def _with_bias(convolution: Any) -> Any:
    """What adds a constant to it and alone reads it, or itself."""
    readers = list(convolution.output(0).get_target_inputs())
    if len(readers) != 1 or readers[0].get_node().get_type_name() != "Add":
        return convolution
    add = readers[0].get_node()
    kinds = {add.input_value(i).get_node().get_type_name() for i in range(2)}
    return add if kinds & {"Constant", "Reshape"} else convolution
