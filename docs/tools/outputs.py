"""What commands print, as the manual shows it: the lines of a block after theirs.

A fence `text` with the title "prints" shows lines of what the block of commands before it
prints, in order, some of them. Figures differ from machine to machine, so lines are compared with
these masked. `python -m docs.tools.outputs docs/PAGE.md OUTPUT.txt` writes the lines of OUTPUT.txt,
what the page's blocks printed, into the page.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

SHOWN = re.compile(r'^```text title="prints"\n(.*?)^```', re.M | re.S)
_TARGET = re.compile(r"(onnxruntime|openvino)-(cpu|vnni|arm|bf16)")
_FIGURE = re.compile(r"[+-]?\d[\d,.]*(e[+-]?\d+)?%?|(?<= )–(?= |$)")


def masked(line: str) -> str:
    """`line` without what differs from machine to machine: figures, the target, spacing."""
    line = _FIGURE.sub("0", _TARGET.sub(r"\1-*", line))
    return " ".join(re.sub("[─━●┃·]+", "─", line).split())


def shown(page: str) -> list[str]:
    """The lines that a page says are printed; … stands for any that are left out."""
    lines = [line for block in SHOWN.findall(page) for line in block.splitlines()]
    return [line for line in lines if line.strip() not in ("", "…")]


def missing(page: str, output: str) -> list[str]:
    """Lines of the page that `output` has not, or not in that order."""
    printed = iter([masked(line) for line in output.splitlines()])
    return [line for line in shown(page) if masked(line) not in printed]


def renewed(page: str, output: str) -> str:
    """The page with its lines as `output` has them."""
    rest = output.splitlines()
    for line in shown(page):
        place = next(i for i, new in enumerate(rest) if masked(new) == masked(line))
        page = page.replace(line, rest[place].rstrip(), 1)
        rest = rest[place + 1 :]
    return page


def main() -> None:
    path, output = Path(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8")
    path.write_text(renewed(path.read_text(encoding="utf-8"), output), encoding="utf-8")


if __name__ == "__main__":
    main()
