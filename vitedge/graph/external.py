"""New constants of a graph that is rewritten: large ones in a data file beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

INLINE_BYTES = 1024
"""Where readers look for shapes and axes: in the graph."""


class DataFile:
    """The external data of one ONNX file that is being written."""

    def __init__(self, model: Path, inline_bytes: int = INLINE_BYTES) -> None:
        """Constants smaller than `inline_bytes` stay in the graph."""
        self._path = model.with_name(f"{model.name}.data")
        self._path.write_bytes(b"")
        self._inline_bytes = inline_bytes
        self.tensors: list[TensorProto] = []

    def add(self, name: str, value: NDArray[Any]) -> str:
        """Store `value` as the constant `name`; returns the name."""
        if value.nbytes < self._inline_bytes:
            self.tensors.append(numpy_helper.from_array(value, name))
            return name
        tensor = TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(value.dtype),
            dims=value.shape,
            data_location=TensorProto.EXTERNAL,
        )
        with self._path.open("ab") as data:
            places = {"location": self._path.name, "offset": data.tell(), "length": value.nbytes}
            data.write(np.ascontiguousarray(value).tobytes())
        for key, place in places.items():
            tensor.external_data.add(key=key, value=str(place))
        self.tensors.append(tensor)
        return name


def with_constants(source: Path, values: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write the ONNX file `source` to `path`, beside it, with other values of some constants.

    The external data of `source` is shared.
    """
    model = onnx.load(source, load_external_data=False)
    data = DataFile(path)
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in values]
    for name, value in values.items():
        data.add(name, value)
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *data.tensors])
    onnx.save(model, path)
