"""The support matrix, from the artifacts that tests left behind.

`python -m docs.tools.support FOLDER…`: a folder is pytest's own (`--basetemp`). Every artifact in
it says what it is of, and its report what was done with it.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import vitedge
from docs.tools.pages import DOCS
from vitedge.core import catalog
from vitedge.core.machine import describe_machine
from vitedge.models.zoo import OWN_DATA

PAGE = DOCS / "support.md"
KINDS = ("executed", "compiled", "simulated", "built")
"""From the strongest evidence to the weakest."""
MARKS = {"executed": "●", "compiled": "◐", "simulated": "○", "built": "·"}
PRECISIONS = ("fp32", "bf16", "fp16", "int8", "fp8")
SOURCES = {
    "embedded": "embedded references",
    "zoo": "vitedge's own models",
    "timm": "timm",
    "hf": "transformers",
    "torchvision": "torchvision",
    "onnx": "ONNX files",
    "module": "modules in memory",
}
Cells = dict[tuple[str, str], dict[str, dict[str, str]]]
"""(source, task) -> target -> precision -> kind of evidence."""


def evidence(manifest: dict[str, Any], report: dict[str, Any] | None) -> str:
    """What was done with one artifact."""
    parity = (report or {}).get("parity") or {}
    if report and (report.get("numerics") or report.get("latency") or parity.get("numerics")):
        return "executed"
    if ((manifest.get("build") or {}).get("compiled")) is not None:
        return "compiled"
    return "simulated" if report and report.get("simulation") else "built"


def collected(folders: list[Path]) -> tuple[Cells, int]:
    """The strongest evidence of each cell, and how many artifacts it is of."""
    cells: Cells = defaultdict(lambda: defaultdict(dict))
    shipped = catalog.targets()
    count = 0
    manifests = {path for folder in folders for path in folder.rglob("manifest.json")}
    for path in sorted(
        path for path in manifests if path.is_file() and path.stat().st_size < 2**24
    ):
        try:
            manifest = json.loads(path.read_text())
            file = path.with_name("report.json")
            report = json.loads(file.read_text()) if file.is_file() else None
            model, target = manifest["model"], manifest["target"]["name"]
            precision = manifest["precision"]
        except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
            continue  # broken on purpose
        if target not in shipped or precision not in PRECISIONS:
            continue
        row = cells[source(model["source"]), model["task"]][target]
        kind = evidence(manifest, report)
        row[precision] = min(row.get(precision, KINDS[-1]), kind, key=KINDS.index)
        count += 1
    return cells, count


def source(text: str) -> str:
    """Of which of SOURCES the model is, by what its manifest says."""
    kind, colon, _ = text.partition(":")
    if text in OWN_DATA:
        return "embedded"
    if text.endswith(".onnx"):
        return "onnx"
    return kind if colon and kind in SOURCES else "zoo"


def page(cells: Cells, count: int) -> str:
    """The page's Markdown: a table for each runtime."""
    machine = describe_machine(threads=0)
    isa = ", ".join(machine.isa)
    lines = [HEADER.format(version=vitedge.__version__, count=count, isa=isa)]
    runtimes = defaultdict(list)
    for name, target in catalog.targets().items():
        runtimes[target.runtime].append(name)
    rows = sorted(cells, key=lambda key: (list(SOURCES).index(key[0]), key[1]))
    for runtime, names in runtimes.items():
        lines += [f"## {runtime}", "", f"| models | task | {' | '.join(names)} |"]
        lines.append("|---" * (len(names) + 2) + "|")
        for kind, task in rows:
            row = [cell(cells[kind, task].get(name, {})) for name in names]
            if any(row):
                lines.append(f"| {SOURCES[kind]} | {task} | {' | '.join(row)} |")
        if lines[-1].startswith("|---"):  # no test left any
            lines.append(f"| none | {'| ' * (len(names) + 1)}")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def cell(precisions: dict[str, str]) -> str:
    return " ".join(
        f"{name.upper()}{MARKS[precisions[name]]}" for name in PRECISIONS if name in precisions
    )


HEADER = """# Support matrix

What the tests of vitedge {version} did with each kind of model, on each target, in each precision:
read from the {count:,} artifacts that they left behind (`python -m docs.tools.support FOLDER`) on a
CPU with {isa}.
Where one cell has several kinds of evidence, the strongest is shown.

| mark | evidence |
|---|---|
| ● | executed: run by its own runtime, and compared with FP32 |
| ◐ | compiled: by the target's compiler, whose log was read; never run on the GPU |
| ○ | simulated: the target's graph, run by ONNX Runtime |
| · | built, and no more |
| (empty) | no test has such a one |

Arm's targets are emulated as well: `make arm` runs `digits` in FP32, FP16 and INT8 by QEMU.
**No artifact was ever run on a GPU, a Jetson, an NPU or an Arm CPU.**
"""


def main() -> None:
    PAGE.write_text(page(*collected([Path(name) for name in sys.argv[1:]])), encoding="utf-8")


if __name__ == "__main__":
    main()
