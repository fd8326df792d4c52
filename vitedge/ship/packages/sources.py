"""Parts of vitedge's own source, so that what runs without it computes what it does."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import NamedTuple


class Definition(NamedTuple):
    """One function, class or constant of a module, as it is written."""

    lines: list[str]
    names: set[str]
    """Everything that it names."""


def definitions(module: ModuleType, names: Collection[str] = ()) -> str:
    """The functions, classes and constants of a module, all or `names` and what those name there.

    Imports are not among them, nor the annotations of constants, which take some.
    """
    known = _definitions(inspect.getsource(module))
    wanted = _reached(known, names or known.keys())
    return "\n".join(line for name in known if name in wanted for line in known[name].lines).strip(
        "\n"
    )


def _definitions(text: str) -> dict[str, Definition]:
    lines = text.splitlines()
    known = {}
    for node in ast.parse(text).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                start = min([node.lineno, *(n.lineno for n in node.decorator_list)])
                part = ["", "", *lines[start - 1 : node.end_lineno]]
            case ast.Assign(targets=[ast.Name(id=name)]):
                part = lines[node.lineno - 1 : node.end_lineno]
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                part = [f"{name} = {ast.unparse(value)}"]
            case _:
                continue
        named = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
        known[name] = Definition(part, named)
    return known


def _reached(known: Mapping[str, Definition], names: Collection[str]) -> set[str]:
    reached: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name in known and name not in reached:
            reached.add(name)
            pending += known[name].names
    return reached
