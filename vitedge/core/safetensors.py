"""The header of a .safetensors file, checked before its library reads it: extents within the file.

Format: 8 bytes of length, that many of JSON, and the tensors' bytes.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from vitedge.core.bounded import TEXT_BYTES, open_regular
from vitedge.core.errors import InputError
from vitedge.core.json_document import parse

TENSORS = 2**16
AXES = 64
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
_AGAIN = "download or save it again"


def check(path: Path) -> None:
    """Raises InputError unless every tensor is of the size it says, and all are in the file."""
    with open_regular(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(TEXT_BYTES, size_bytes - 8):
            raise _not_whole(path, f"a header of {length} bytes in a file of {size_bytes}")
        header = parse(file.read(length), path, _AGAIN)
    if not isinstance(header, dict) or len(header) > TENSORS:
        raise _not_whole(path, f"no object of at most {TENSORS:,} tensors")
    for name, tensor in header.items():
        if name != "__metadata__" and not _fits(tensor, size_bytes - 8 - length):
            raise _not_whole(path, f"tensor {name!r:.200} is not of the size it says")


def _fits(tensor: Any, size_bytes: int) -> bool:
    """Whether a tensor's extent is that of its shape, and within `size_bytes`."""
    match tensor:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]}:
            whole = all(isinstance(size, int) and 0 <= size < 2**63 for size in shape)
            if not whole or len(shape) > AXES or not 0 <= start <= end <= size_bytes:
                return False
            bits = _BITS.get(dtype)  # of a new one, which the library knows or not
            return bits is None or math.prod(shape) * bits == 8 * (end - start)
    return False


def _not_whole(path: Path, reason: str) -> InputError:
    return InputError(f"{path} is not a whole safetensors file: {reason}", fix=_AGAIN)
