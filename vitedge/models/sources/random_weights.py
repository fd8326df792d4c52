"""Random weights that measure something: no head of zeros, no branch scaled away, no signal lost.

Training begins gently, from heads of zeros and layer scales of 1e-5. Untrained, all images have one
output then, and an SQNR of 120 dB is the stem's alone.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitedge.core.spec import Preprocess
from vitedge.data import shapes
from vitedge.graph.preprocess import apply_numpy

TINY = 0.01
"""A constant up to this is a layer scale that has not grown yet."""
SCALES = (0.1, 1.0)
SHIFT = 0.75
"""Standard deviations that such a norm adds: a ReLU after it keeps Φ(s) of a difference's variance
and (by the moments of a rectified normal) less of the signal's, 1.47 times less at 0 and 1.18 at
this. Deep untrained nets would amplify what INT8 rounds, which trained ones do not."""
IMAGES = 8
COARSE = ((1, 16), (1, 5), (3, 2))
"""Of those that BatchNorm sees: how many are of so many blobs along each side."""
DRAWN = 2
_SCALE = re.compile(r"(weight|scale|gamma|gain|alpha|lambda)[^.]*$")
"""Names of vectors that multiply a branch: zeros silence it, as those of a bias do not."""


def spread(module: nn.Module, preprocess: Preprocess) -> None:
    """Draw anew, in place, what begins at or next to zero; the same on every machine.

    Matrices and kernels of zeros become normal with variance 1 / fan-in, scales of branches
    uniform between 0.1 and 1; BatchNorm gets the statistics of random images as `preprocess`
    makes them, or a signal dies on its way through many, and as GroupNorm `SHIFT` for a bias and
    1 for gains next to zero. All else is as its library drew it. On the meta device there is
    nothing to draw.
    """
    if any(parameter.is_meta for parameter in module.parameters()):
        return
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if _is_scale(name, parameter):
                parameter.uniform_(*SCALES, generator=generator)
            elif parameter.ndim > 1 and not parameter.any():
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        groups = [part for part in module.modules() if isinstance(part, nn.GroupNorm)]
        for norm in (*_batch_norms(module), *groups):
            if norm.weight is not None and norm.weight.abs().mean() < SCALES[0]:
                norm.weight.fill_(1)  # transformers draws some as it draws a Linear's weights
            if norm.bias is not None and not norm.bias.any():
                norm.bias.copy_(SHIFT * norm.weight.abs())
    # what a module raises over its input, its export will say
    with torch.no_grad(), _taking_statistics(module) as norms, contextlib.suppress(Exception):
        if norms:
            module(torch.from_numpy(apply_numpy(_images(preprocess), preprocess)))


def _images(preprocess: Preprocess) -> NDArray[np.uint8]:
    """Pictures, and noise of every fineness that photographs have, (IMAGES, H, W, 3).

    What attention averages in all of these, and does not in a photograph, would grow there from
    block to block; and so would one strong colour.
    """
    rng = np.random.default_rng(0)
    size = (preprocess.height, preprocess.width)
    images = [
        _enlarged(rng.integers(0, 256, (n, side, side, 3), np.uint8), size) for n, side in COARSE
    ]
    images.append(_enlarged(np.stack([shapes.draw(index)[0] for index in range(DRAWN)]), size))
    fine = IMAGES - sum(map(len, images))
    return np.concatenate([rng.integers(0, 256, (fine, *size, 3), np.uint8), *images])


def _enlarged(images: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    rows, columns = (
        np.arange(side) * old // side for side, old in zip(size, images.shape[1:3], strict=True)
    )
    return images[:, rows][:, :, columns]


def _is_scale(name: str, parameter: Tensor) -> bool:
    """Whether it is constant and tiny, or a vector of zeros that multiplies."""
    if not parameter.numel():
        return False
    constant = float(parameter.flatten()[0])
    if abs(constant) > TINY or not bool((parameter == constant).all()):
        return False
    return constant != 0 or (parameter.ndim < 2 and _SCALE.search(name) is not None)


def _batch_norms(module: nn.Module) -> list[Any]:
    return [part for part in module.modules() if getattr(part, "running_var", None) is not None]


@contextlib.contextmanager
def _taking_statistics(module: nn.Module) -> Iterator[list[nn.Module]]:
    """The BatchNorms of a module, each of which takes the statistics of what comes to it."""
    norms = _batch_norms(module)
    hooks = [norm.register_forward_pre_hook(_take) for norm in norms]
    yield norms
    for hook in hooks:
        hook.remove()


def _take(norm: Any, arguments: tuple[Tensor, ...]) -> None:
    """Remember each channel's mean, and its variance in the image where it is loudest.

    The variance of all images would amplify the loud ones, a little more in each layer. A channel
    that is silent now would be the loudest on other images, so that none is below their mean.
    """
    values = arguments[0].movedim(1, -1)  # (B, …, C), or (B·N, C)
    mean = values.flatten(0, -2).mean(0)
    squares = (values - mean).square().unflatten(0, (IMAGES, -1)).flatten(1, -2)  # (B, …, C)
    variance = squares.mean(1).amax(0)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance.clamp_min(float(variance.mean())))
