"""The tables of docs/measured, from the files that the sweeps write.

`python -m benchmarks.models_table [transformers.jsonl] [timm.jsonl]`: between the markers of the
page of the same name.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.sweep import read
from tests.support.sweep import NEEDS, TARGETS, excluded, figures, shortfall, summary

PAGES = Path(__file__).parents[1] / "docs" / "measured"
_LONGEST = 140
"""Characters of a reason."""


def table(rows: list[dict[str, Any]]) -> str:
    """Counts; what counts; what does not, and why; what needs more than an image."""
    taken = [row for row in rows if not excluded(row)]
    reasons = {row["row"]: [shortfall(row, target) for target in TARGETS] for row in taken}
    good = [row for row in taken if not any(reasons[row["row"]])]
    poor = [row for row in taken if row not in good]
    more = [row for row in rows if excluded(row)]
    lines = [f"{summary(rows)}.", "", f"| model | {' | '.join(TARGETS)} |", "|---|---|---|"]
    for row in good:
        lines.append(f"| {row['row']} | {' | '.join(figures(row, t) for t in TARGETS)} |")
    if poor:
        lines += ["", f"| not on both | {' | '.join(TARGETS)} |", "|---|---|---|"]
    for row in poor:
        cells = [
            _short(why, row) if why else figures(row, target)
            for why, target in zip(reasons[row["row"]], TARGETS, strict=True)
        ]
        lines.append(f"| {row['row']} | {' | '.join(cells)} |")
    if more:
        lines += ["", "| of more than an image | it needs |", "|---|---|"]
    for row in more:
        needs = NEEDS.split(row["error"]["what"])[-1]
        lines.append(f"| {row['row']} | {needs} |")
    return "\n".join(lines)


def _short(why: str, row: dict[str, Any]) -> str:
    """A reason without the name of the bundle, which the row has."""
    name = row["row"].replace("/", "-")
    why = re.sub(rf"(hf:)?{re.escape(name)}[\w-]*: ", "", why).replace("|", "/")
    return why if len(why) <= _LONGEST else f"{why[:_LONGEST]}…"


def main() -> None:
    for name in sys.argv[1:] or ("transformers.jsonl", "timm.jsonl"):
        file = Path(name)
        path = PAGES / f"{file.stem}.md"
        rows = sorted(read(file).values(), key=lambda row: row["row"])
        start, end = (f"<!-- {word} {file.stem} -->" for word in ("begin", "end"))
        before, found, rest = path.read_text().partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            sys.exit(f"{path}: no markers for {file.stem}")
        path.write_text(f"{before}{start}\n{table(rows)}\n{end}{after}")


if __name__ == "__main__":
    main()
