"""Pixels of every image processor of transformers against ours, on 30 photographs of odd sizes.

    python -m benchmarks.image_processors [--write] [CLASS…]

`--write` puts its rows into the table of docs/preprocessing.md. Both backends run, beside a
torchvision whose native operators do not load, too.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

from benchmarks.peers import declare_torchvision_ops
from tests.support.image_processors import backends, differences, photographs, ways
from vitedge.models.sources.image_processors import NOT_OF_ONE_IMAGE, PROCESSORS

PAGE = Path(__file__).parents[1] / "docs" / "preprocessing.md"
BLOCK = re.compile(r"(?<=<!-- measured -->\n).*(?=<!-- end -->)", re.DOTALL)
PHOTOGRAPHS = 30


def row(kind: str) -> str:
    """Its models, and how far each backend's pixels are from ours, in grey levels."""
    cells = {"pillow": "–", "torchvision": "–"}
    for backend, of_backend in backends(kind).items():
        photos = photographs(PHOTOGRAPHS)
        if kind.endswith("Rec"):  # longer lines become lower here
            photos = [photo for photo in photos if photo.width < 6 * photo.height]
        levels, beyond = 0.0, 0.0
        for settings in ways(kind):
            for _, difference in differences(of_backend(**settings), kind, photos):
                levels = max(levels, float(difference.max()))
                beyond = max(beyond, float(np.mean(difference > 1.001)))
        share = f" ({100 * beyond:.1g}%)" if beyond else ""
        cells[backend] = f"{levels:.1f}{share}" if ways(kind) else "–"
    return f"| {kind} | {PROCESSORS[kind].models} | {cells['pillow']} | {cells['torchvision']} |"


def refused() -> list[str]:
    """A line for all that models need beside an image, and the classes that make it."""
    reasons: dict[str, list[str]] = {}
    for kind, reason in NOT_OF_ONE_IMAGE.items():
        reasons.setdefault(reason, []).append(kind)
    return [f"- {reason}: {', '.join(sorted(kinds))}." for reason, kinds in reasons.items()]


def main() -> None:
    """Print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("classes", nargs="*", default=sorted(PROCESSORS, key=str.lower))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    library = declare_torchvision_ops()  # lives as long as it is bound
    page = PAGE.read_text(encoding="utf-8")
    rows = {line.split()[1]: line for line in page.splitlines() if line.startswith("| ")}
    for kind in arguments.classes:
        rows[kind] = row(kind)
        print(rows[kind], flush=True)
    table = [rows[kind] for kind in sorted(PROCESSORS, key=str.lower) if kind in rows]
    lines = [
        "| image processor | model types | Pillow | torchvision |",
        "|---|---|---|---|",
        *table,
    ]
    lines += [
        "",
        "Refused, as their models do not run on an image alone: they need",
        "",
        *refused(),
    ]
    if arguments.write:
        text = "\n".join(lines) + "\n"
        PAGE.write_text(BLOCK.sub(lambda _: text, page), encoding="utf-8")
    del library


if __name__ == "__main__":
    main()
