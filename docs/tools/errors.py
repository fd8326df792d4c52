"""Every error that vitedge can end with, read from the code that raises it."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from vitedge.core import errors

ROOT = Path(__file__).parents[2] / "vitedge"
KINDS = {
    kind.__name__: kind.exit_code
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.VitedgeError)
}
ROOMS = {
    "core": "Files, bundles, reports and settings",
    "data": "Images and labels",
    "graph": "ONNX graphs",
    "models": "Models and checkpoints",
    "quant": "Quantization",
    "runtimes": "Runtimes, targets and compilers",
    "measure": "Validation, benchmarks and devices",
    "export": "Export, QAT and builds",
    "gate": "The gate",
    "ship": "Signatures and what is shipped",
    "show": "Tables and pages",
    "cli": "The command line",
}
HEADER = "| what it says | what to do | exit code |\n|---|---|---|\n"


def pages() -> dict[str, str]:
    """Name of each page in docs/, and its Markdown."""
    rows = defaultdict(set)
    for file in sorted(ROOT.rglob("*.py")):
        room = file.relative_to(ROOT).parts[0]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            row = _row(node)
            if row and room in ROOMS:
                rows[room].add(row)
    markdown = {}
    lines = []
    for room, title in ROOMS.items():
        if not rows[room]:
            continue
        body = "\n".join(sorted(rows[room], key=str.lower))
        markdown[f"errors/{room}.md"] = f"# {title}: what errors say\n\n{HEADER}{body}\n"
        lines.append(f"- [{title}]({room}.md): {len(rows[room])} messages")
    markdown["errors/index.md"] = _INDEX.format(listed="\n".join(lines))
    return markdown


_INDEX = """# Errors

An error says what is wrong, where, and what to do, in one message; `vitedge --debug COMMAND`
adds the traceback. In Python it is a `vitedge.VitedgeError` with `what`, `fix` and `exit_code`;
`fix` names parameters there, flags on the command line.

| exit code | is |
|---|---|
| 0 | done, or passed |
| 1 | a limit is broken |
| 2 | a mistake in what was given |
| 3 | a package, a device or hardware is missing |
| 4 | inconclusive: what was measured cannot tell |
| 130 | stopped by Ctrl-C |

Messages of this version, read from the code; ‹…› stands for what is filled in:

{listed}

Where one of them does not help, [troubleshooting](../troubleshooting.md) has the usual causes.
"""


def _row(node: ast.AST) -> str:
    """The row of an error that is made here; empty where its text is not."""
    if not isinstance(node, ast.Call) or not node.args:
        return ""
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    what = _text(node.args[0])
    if name not in KINDS or not what:
        return ""
    fix = next((_text(word.value) for word in node.keywords if word.arg == "fix"), "")
    return f"| {_cell(what)} | {_cell(fix)} | {KINDS[name]} |"


def _text(node: ast.expr) -> str:
    """A literal text with ‹expression› where one is filled in; empty where it is no literal."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if not isinstance(node, ast.JoinedStr):
        return ""
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else f"‹{_name(part)}›"
        for part in node.values
    )


def _name(node: ast.expr) -> str:
    """What is filled in, where the code has a word for it."""
    if isinstance(node, ast.FormattedValue):
        return _name(node.value)
    if isinstance(node, ast.Call) and len(node.args) == 1:
        return _name(node.args[0])
    name = getattr(node, "id", getattr(node, "attr", "…"))
    return name.strip("_").replace("_", " ") or "…"


def _cell(text: str) -> str:
    words = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return words.replace("*", "\\*").replace("[", "\\[")
