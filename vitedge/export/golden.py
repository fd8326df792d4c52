"""Golden images: the few inputs and FP32 outputs in every bundle, for parity without a dataset."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from vitedge.core.bundle import Golden
from vitedge.data.open import open_images
from vitedge.export.request import Job

if TYPE_CHECKING:
    from vitedge.graph.run import Fp32Graph

GOLDEN_IMAGES = 8
GOLDEN_BYTES = 2**24
"""Of outputs: a segmentation model's are large."""


def golden_images(job: Job, exported: Fp32Graph) -> Golden:
    """A few images, evaluation's if there are any, and FP32's outputs on ONNX Runtime.

    Raises InputError, naming the layer, where an output is NaN or infinite.
    """
    model = job.model
    images = job.evaluation or (job.calibration and job.calibration.images)
    if not images:
        images = open_images("random", "calibration", model.preprocess, model.labels, model.task)
    output_bytes = 4 * math.prod(size or 1 for size in exported.output.shape[1:])
    count = min(GOLDEN_IMAGES, max(1, GOLDEN_BYTES // output_bytes))
    batches = list(images.sample(count, seed=0))
    pixels = np.concatenate([batch.images for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches])
    return Golden(pixels, exported.outputs(pixels), labels)
