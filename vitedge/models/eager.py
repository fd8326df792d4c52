"""The reference model in PyTorch eager mode, behind the same seam as every runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from vitedge.core.runtime import TensorSpec
from vitedge.models.sources import ReferenceModel


class EagerSession:
    """Takes the artifact's own input, `image` (B, H, W, 3) uint8; preprocesses in torch.

    Its outputs are the module's: `logits`, or those that it names.
    """

    def __init__(self, model: ReferenceModel, threads: int) -> None:
        assert isinstance(model.content, nn.Module)
        torch.set_num_threads(threads)
        self._module = model.content.eval()
        spec = model.identity.preprocess
        self.inputs = (TensorSpec("image", (None, spec.height, spec.width, 3), "uint8"),)
        with torch.inference_mode():
            tensors = _tuple(self._module(torch.zeros(1, 3, spec.height, spec.width)))
        self.outputs = tuple(
            TensorSpec(name, (None, *tensor.shape[1:]), "float32")
            for name, tensor in zip(model.outputs or ("logits",), tensors, strict=True)
        )
        self._scale = 1 / (255 * torch.tensor(spec.std))
        self._shift = -torch.tensor(spec.mean) / torch.tensor(spec.std)
        self._bgr = spec.channels == "BGR"

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            pixels = torch.from_numpy(feed["image"]) * self._scale + self._shift
            if self._bgr:
                pixels = pixels.flip(-1)
            tensors = _tuple(self._module(pixels.permute(0, 3, 1, 2)))
        return {
            spec.name: tensor.numpy() for spec, tensor in zip(self.outputs, tensors, strict=True)
        }


def _tuple(outputs: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)
