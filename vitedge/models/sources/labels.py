"""What classes are called: each output by its own name or by number, never by another's name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from vitedge.core import bounded
from vitedge.core.api import AnyPath
from vitedge.core.errors import InputError, first_few
from vitedge.models.zoo import numbered


def class_names(labels: Sequence[str], names: object, classes: int, source: str) -> tuple[str, ...]:
    """The names of `classes` outputs: a user's `labels`, or else the `names` of `source`.

    Those are a sequence or a mapping from their indices. Numbers where there are none, or they are
    LABEL_0 and the like. Raises InputError, naming the class, unless there is one name for each
    output and none for any other.
    """
    if labels and len(labels) != classes:
        raise InputError(
            f"`labels` names {len(labels)} classes, and the model has {classes} outputs",
            fix="give one name for each output, in their order",
        )
    named = by_index(labels or names, source)
    if all(name == f"LABEL_{index}" for index, name in named.items()):
        return numbered(classes)
    beyond = [f"{index} ('{name}')" for index, name in named.items() if index not in range(classes)]
    unnamed = [str(index) for index in range(classes) if index not in named]
    if beyond or unnamed:
        extra = f"; class {first_few(beyond)} is none of 0 to {classes - 1}" if beyond else ""
        gaps = f"; no name for output {first_few(unnamed)}" if unnamed else ""
        raise InputError(
            f"{source} names {len(named)} classes, and its head has {classes} outputs{extra}{gaps}",
            fix=f"number them from 0 to {classes - 1}, or give weights of that many classes",
        )
    return tuple(named[index] for index in range(classes))


def read_classes(source: AnyPath | Sequence[str]) -> tuple[str, ...]:
    """Names of a text file, one a line, or those given; blanks in them single.

    Raises InputError, naming the line, for an empty name and for one that is there twice.
    """
    if isinstance(source, (str, os.PathLike)):
        where, place = f"{os.fspath(source)}: line", Path(source)
        fix = "give a text file with one class a line, in UTF-8"
        try:
            lines = bounded.read_lines(place, fix=fix)
        except InputError as error:
            raise InputError(f"`classes`: {error.what}", fix=fix) from error
    else:
        where, lines = "`classes`: name", [str(name) for name in source]
    names: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name = " ".join(line.split())
        if not name:
            raise InputError(f"{where} {number} is empty", fix="drop it: a class has a name")
        if name in names:
            raise InputError(
                f"{where} {number} is '{name}', as {names[name]} is", fix="drop one of the two"
            )
        names[name] = number
    if not names:
        raise InputError(f"{where.rpartition(':')[0]} names no class", fix="give one a line")
    return tuple(names)


def check_counts(config: Mapping[str, object], source: str) -> None:
    """Raise InputError where a config's count of classes is not that of its names."""
    count, names = config.get("num_labels"), config.get("id2label")
    if isinstance(count, int) and isinstance(names, Mapping) and len(names) != count:
        raise InputError(
            f"{source} says `num_labels` {count}, and its `id2label` names {len(names)}",
            fix="correct the one that is wrong: the head of its weights tells",
        )


def numbers_note(weights: Path, classes: int, usual: int) -> str:
    """That weights have other classes than the architecture's own."""
    return f"{weights.name} has {classes} classes, not {usual}: they are called by number"


def by_index(names: object, source: str) -> dict[int, str]:
    """Names by index, blanks in them single. Raises InputError for an index that is no number."""
    if isinstance(names, Sequence) and not isinstance(names, str):
        names = dict(enumerate(names))
    named: dict[int, str] = {}
    for index, name in names.items() if isinstance(names, Mapping) else ():
        try:
            named[int(index)] = " ".join(str(name).split())
        except (ValueError, TypeError):
            raise InputError(
                f"{source} names class '{name}' for '{index}', which is no number of an output",
                fix="number its classes from 0",
            ) from None
    return dict(sorted(named.items()))
