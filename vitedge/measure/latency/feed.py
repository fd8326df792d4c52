"""What a benchmark feeds: the golden images, so that no dataset is needed on a device."""

from __future__ import annotations

import numpy as np

from vitedge.core.bundle import Bundle
from vitedge.core.errors import InputError
from vitedge.core.runtime import Session
from vitedge.measure.latency.clock import Feed


def golden_feed(bundle: Bundle, session: Session, batch: int | None) -> Feed:
    """The golden images, as many as one run takes. Raises InputError where it takes no `batch`."""
    fixed = session.inputs[0].shape[0]
    if fixed and batch not in (None, fixed):
        raise InputError(
            f"{bundle.path} is fixed at batch {fixed}, not {batch}",
            fix=f"drop --batch, or export with --batch {batch} or --batch dynamic",
        )
    return images_feed(bundle, session, fixed or batch or 1)


def images_feed(bundle: Bundle, session: Session, count: int) -> Feed:
    """`count` images: the golden ones, over and over."""
    images = bundle.golden().images
    repeats = -(-count // len(images))
    return {session.inputs[0].name: np.concatenate([images] * repeats)[:count]}
