"""The table of docs/measured/lineage.md: every lineage model at full depth, exported and quantized.

python -m benchmarks.lineage [NAME…]     (random weights, real photographs)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks import peers
from tests.support.lineage import ROWS, run

HEADER = """\
| source | model | M params | export, max rel. error | INT8 ONNX Runtime, SQNR dB (worst token) \
| kept in float | INT8 OpenVINO, SQNR dB (worst token) | kept in float |
|---|---|---|---|---|---|---|---|"""


def main():
    library = peers.declare_torchvision_ops()
    print(HEADER, flush=True)
    for row in ROWS:
        if len(sys.argv) == 1 or any(word in row.name for word in sys.argv[1:]):
            with tempfile.TemporaryDirectory() as folder:
                peers.markdown(cells(row, run(row, Path(folder), shallow=False)))
    del library


def cells(row, result):
    """A row of the table."""
    cells = [row.source, row.model, f"{result.params / 1e6:.1f}", f"{result.parity:.0e}"]
    for int8 in result.int8.values():
        cells += [level(int8), kept(int8)]
    return cells


def level(int8):
    """SQNR, in brackets that of the worst token, pixel or query; of a detector its boxes', too."""
    level = f"{int8.sqnr_db:.1f}{worst(int8.worst_db)}"
    if int8.box_iou is None:
        return level
    return f"{level}, boxes {int8.box_iou:.1%}{worst(int8.worst_box_db)}"


def worst(level_db):
    """A level in brackets, where there is one."""
    return "" if level_db is None else f" ({level_db:.1f})"


def kept(int8):
    """Operators with weights that stay in float, of all."""
    total = int8.quantized + sum(int8.kept.values())
    parts = ", ".join(f"{count} {op}" for op, count in sorted(int8.kept.items()))
    return f"{parts} of {total}" if parts else f"none of {total}"


if __name__ == "__main__":
    main()
