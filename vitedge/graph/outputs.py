"""Which of a model's outputs are kept, and which is the main one: the one its task is about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vitedge.core.errors import InputError, nearest
from vitedge.core.runtime import TensorSpec
from vitedge.core.spec import ONE_CLASS, WITH_CLASSES, Task

_BY_RANK: dict[int, Task] = {2: "classification", 4: "segmentation"}
_RANKS: dict[Task, tuple[int, ...]] = {
    "classification": (2,),
    "segmentation": (4,),
    "detection": (3,),
    "dense": (3, 4),
    "features": tuple(range(2, 9)),
}


class Outputs(NamedTuple):
    """The outputs that are kept, and what the main one is."""

    names: tuple[str, ...]
    """The main one first."""
    task: Task
    classes: int
    """Of the main one, a detector's no-object with them; 0 of what has none."""
    notes: tuple[str, ...]
    """What is kept beside the main one, and what is left out."""


def choose(
    available: Sequence[TensorSpec], requested: Sequence[str], task: Task | None, source: str
) -> Outputs:
    """The `requested` outputs, the first of them the main one.

    Without a request every float32 output with a row for each image, and the first that fits
    `task` is the main one. Raises InputError for a name there is not, for what is not float32, and
    where no output fits.
    """
    if not available:
        raise InputError(f"{source} has no output", fix="export it again")
    by_name = {spec.name: spec for spec in available}
    for name in requested:
        if name not in by_name:
            raise InputError(
                f"{source} has no output '{name}'",
                fix=f"{nearest(name, by_name)} (its outputs: {_listing(available)})",
            )
        if by_name[name].dtype != "float32":
            raise InputError(
                f"{source}: its output '{name}' is {by_name[name].dtype}, not float32",
                fix="drop it from `model_output`: only float32 can be compared",
            )
    floats = [spec for spec in available if spec.dtype == "float32"]
    candidates = [by_name[requested[0]]] if requested else floats
    fits = [spec for spec in candidates if _task(spec, task)]
    if task == "detection" and not requested:
        fits.sort(key=_named_as_boxes)
    main = next(iter(fits), None)
    if main is None:
        raise _unfit(candidates or available, task, source)
    kept = requested or [spec.name for spec in floats if spec is main or _per_image(spec, main)]
    first: tuple[str, ...] = (main.name,)
    if task == "detection":
        among = [by_name[name] for name in kept if name != main.name]
        first = (main.name, _boxes(main, among, source))
    names = tuple(dict.fromkeys((*first, *kept)))
    fitting = _task(main, task)
    assert fitting is not None
    axis = 2 if fitting == "detection" else 1
    classes = main.shape[axis] or 0 if fitting in WITH_CLASSES else 0
    return Outputs(names, fitting, classes, tuple(_notes(names, len(first), available)))


def _task(spec: TensorSpec, requested: Task | None) -> Task | None:
    """What an output is good for, by its rank; None where that is not what was requested."""
    task = requested or _BY_RANK.get(len(spec.shape))
    if task is None or len(spec.shape) not in _RANKS[task]:
        return None
    if task in ONE_CLASS and not spec.shape[1]:
        return None
    if not requested and task == "segmentation" and spec.shape[1] == 1:
        return "dense"  # one map: depth, or a probability
    return task


def _boxes(logits: TensorSpec, others: Sequence[TensorSpec], source: str) -> str:
    """The name of the boxes (B, queries, 4) that go with `logits`. Raises InputError."""
    queries = logits.shape[1]
    fits = [spec for spec in others if len(spec.shape) == 3 and spec.shape[1:] == (queries, 4)]
    if not fits:
        raise InputError(
            f"{source}: beside '{logits.name}' no output is boxes (B, {queries or 'queries'}, 4): "
            f"{_listing(others) or 'there is no other'}",
            fix="name logits and boxes with `model_output`, or pass `task='features'`",
        )
    return min(fits, key=lambda spec: not _named_as_boxes(spec)).name


def _named_as_boxes(spec: TensorSpec) -> bool:
    return "box" in spec.name.lower()


def _per_image(spec: TensorSpec, main: TensorSpec) -> bool:
    """Whether an output has a row for each image, as the main one has."""
    return bool(spec.shape) and spec.shape[0] in (None, main.shape[0])


def _unfit(candidates: Sequence[TensorSpec], task: Task | None, source: str) -> InputError:
    which = "its output is" if len(candidates) == 1 else "its outputs are"
    return InputError(
        f"{source}: {which} neither float32 (B, classes) logits nor (B, classes, h, w): "
        f"{_listing(candidates)}",
        fix="export it with its head and a fixed number of classes, or pass `task='detection'` "
        "for queries' logits and boxes, `task='dense'` for maps of values, `task='features'` for "
        "anything else"
        if task is None
        else f"name an output for {task} with `model_output`, or pass another `task`",
    )


def _notes(names: Sequence[str], count: int, available: Sequence[TensorSpec]) -> Iterator[str]:
    """`count`: the outputs that the task is about."""
    main, others = names[:count], names[count:]
    which = "accuracy, limits and predictions are of"
    if len(main) > 1:
        beside = f"; beside them: {', '.join(others)}" if others else ""
        yield f"'{main[0]}' and '{main[1]}' are what {which}{beside}"
    elif others:
        yield f"'{main[0]}' is its main output, which {which}; beside it: {', '.join(others)}"
    if left := [spec for spec in available if spec.name not in names]:
        yield f"outputs left out: {_listing(left)}"


def _listing(outputs: Sequence[TensorSpec]) -> str:
    """`logits (?, 10), boxes int64 (?, 4)`; ? is any size."""
    parts = []
    for spec in outputs:
        sizes = ", ".join("?" if size is None else str(size) for size in spec.shape)
        kind = "" if spec.dtype == "float32" else f"{spec.dtype} "
        parts.append(f"{spec.name or 'one tensor'} {kind}({sizes})")
    return ", ".join(parts)
