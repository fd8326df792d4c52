"""Parts of vitedge's own source, so that what runs without it computes what it does."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Collection
from types import ModuleType


def definitions(module: ModuleType, names: Collection[str] = ()) -> str:
    """The functions, classes and constants of a module, as they are written; of all or of `names`.

    Imports are not among them, nor `TypeAlias` annotations, which take some.
    """
    text = inspect.getsource(module)
    lines = text.splitlines()
    parts = []
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
        if not names or name in names:
            parts += part
    return "\n".join(parts).strip("\n")
