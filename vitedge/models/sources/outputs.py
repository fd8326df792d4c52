"""A module that gives several tensors, as one that gives those chosen by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from vitedge.core.runtime import TensorSpec

ALONE = ""
"""The name of what a module gives as one tensor."""


class ChosenOutputs(nn.Module):
    """Some of what `module` gives, in the order of `names`: a tuple, or one tensor alone."""

    def __init__(self, module: Any, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.module, self.names = module, tuple(names)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """All there are for images (B, 3, H, W), by name."""
        return named(self.module(x))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = self.outputs(x)
        chosen = tuple(outputs[name] for name in self.names)
        return chosen if len(chosen) > 1 else chosen[0]


def named(output: Any) -> dict[str, Tensor]:
    """The tensors in what a module gave: by key or field, else by place, `output_0`."""
    return {ALONE: output} if isinstance(output, Tensor) else dict(_tensors(output, ""))


def specs(outputs: Mapping[str, Tensor]) -> list[TensorSpec]:
    """Names, shapes and types of what a module gave for images; the first dimension is theirs."""
    return [
        TensorSpec(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in outputs.items()
    ]


def _tensors(output: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        yield prefix, output
        return
    fields: Mapping[Any, Any] = {}
    if isinstance(output, Mapping):
        fields = output
    elif hasattr(output, "_asdict"):
        fields = output._asdict()
    elif dataclasses.is_dataclass(output):
        fields = vars(output)
    elif isinstance(output, (tuple, list)):
        stem = prefix or "output"
        for place, part in enumerate(output):
            yield from _tensors(part, f"{stem}_{place}")
    for key, part in fields.items():
        yield from _tensors(part, f"{prefix}.{key}" if prefix else str(key))
