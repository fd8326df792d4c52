"""An FP32 export and a few images into a float16 ONNX file, and the manifest's record of how."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vitedge import manifest
from vitedge.progress import Steps
from vitedge.spec import Target

if TYPE_CHECKING:
    from vitedge.graph.export import Exported


@dataclass(frozen=True)
class Fp16:
    """The float16 ONNX file, and the manifest's record of what it keeps in float32."""

    path: Path
    record: manifest.Half


def write(
    exported: Exported,
    target: Target,
    folder: Path,
    images: Iterable[NDArray[np.uint8]],
    count: int,
    source: str,
    steps: Steps,
) -> Fp16:
    """Write `folder/model.onnx`, guarded against overflow on images of `source`.

    Every pass over `images` gives the same ones, (1, H, W, 3), at most `count`.
    """
    from vitedge.graph.half import halve

    size = 1 if target.batch == "dynamic" else target.batch
    seen = 0

    def batches() -> Iterator[NDArray[np.uint8]]:
        nonlocal seen
        stream, drawn = iter(images), 0
        while some := list(islice(stream, size)):
            drawn += len(some)
            seen = max(seen, drawn)
            yield np.concatenate(some + some[-1:] * (size - len(some)))

    folder.mkdir()
    half = halve(exported.path, folder, batches, count, steps)
    record = manifest.Half(
        kept=tuple(manifest.Kept(**vars(kept)) for kept in half.kept),
        layer_norm=half.layer_norm,
        largest=half.largest,
        largest_node=half.largest_node,
        limit=half.limit,
        sqnr_db=half.sqnr_db,
        source=source,
        images=seen,
    )
    return Fp16(half.path, record)
