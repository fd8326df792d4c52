"""Random weights that measure something: no head of zeros, no branch scaled away, no signal lost.

Training begins gently, from heads of zeros and layer scales of 1e-5. Untrained, all images have one
output then, and an SQNR of 120 dB is the stem's alone.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from vitedge.core.spec import Preprocess

TINY = 0.01
"""A constant up to this is a layer scale that has not grown yet."""
SCALES = (0.1, 1.0)
IMAGES = 4
_SCALE = re.compile(r"(weight|scale|gamma|gain|alpha|lambda)[^.]*$")
"""Names of vectors that multiply a branch: zeros silence it, as those of a bias do not."""


def spread(module: nn.Module, preprocess: Preprocess) -> None:
    """Draw anew, in place, what begins at or next to zero; the same on every machine.

    Matrices and kernels of zeros become normal with variance 1 / fan-in, scales of branches
    uniform between 0.1 and 1; BatchNorm gets the statistics of blurred noise, (B, 3, H, W) as
    `preprocess` says, or a signal dies on its way through many. All else is as its library drew it.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if _is_scale(name, parameter):
                parameter.uniform_(*SCALES, generator=generator)
            elif parameter.ndim > 1 and not parameter.any():
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        size = (preprocess.height, preprocess.width)
        coarse = torch.randn(IMAGES, 3, 8, 8, generator=generator)
        noise = torch.randn(IMAGES, 3, *size, generator=generator)
        # what a module raises over its input, its export will say
        with _learning_statistics(module) as norms, contextlib.suppress(Exception):
            if norms:
                module(F.interpolate(coarse, size, mode="bilinear") + noise / 2)


def _is_scale(name: str, parameter: Tensor) -> bool:
    """Whether it is constant and tiny, or a vector of zeros that multiplies."""
    constant = float(parameter.flatten()[0])
    if abs(constant) > TINY or not bool((parameter == constant).all()):
        return False
    return constant != 0 or (parameter.ndim < 2 and _SCALE.search(name) is not None)


@contextlib.contextmanager
def _learning_statistics(module: nn.Module) -> Iterator[list[_BatchNorm]]:
    """The BatchNorms of a module, which remember the statistics of the next batch."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    yield norms
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
