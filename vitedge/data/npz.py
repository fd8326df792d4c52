"""Images in an .npz: read without unpickling, and checked before they are believed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import InputError


def read_images(path: str, target: str) -> tuple[NDArray[np.uint8], NDArray[Any] | None]:
    """The arrays `images`, (n, H, W, 3) uint8, and `target` of an .npz; None where that is absent.

    Raises InputError for a file that cannot be read, and images of any other kind.
    """
    fix = f"save it as numpy.savez(path, images=..., {target}=...)"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("images", target) if key in file}
    except MemoryError as error:
        raise InputError(f"'{path}' does not fit in memory", fix="give an image folder") from error
    except Exception as error:  # zip, zlib and npy readers raise anything
        raise InputError(f"cannot read '{path}': {error}", fix=fix) from error

    if "images" not in arrays:
        raise InputError(f"'{path}' has no array 'images'", fix=fix)
    images = arrays["images"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        hint = "transpose it from NCHW, " if images.ndim == 4 and images.shape[1] == 3 else ""
        raise InputError(
            f"'images' of '{path}' is {images.dtype} {images.shape}, not uint8 (n, H, W, 3)",
            fix=f"{hint}save RGB images of 0..255, not normalised, channels last",
        )
    return images, arrays.get(target)
