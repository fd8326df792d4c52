"""sweep.toml: what is searched, and its trials, counted and made without a list of them all."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from vitedge.core import catalog
from vitedge.core.errors import InputError
from vitedge.core.spec import QUANTIZED, Calibration, Positive, Precision, Spec
from vitedge.core.step_cache import digest
from vitedge.core.toml import convert, load_toml
from vitedge.models.sources.base import bundle_name

MOST_TRIALS = 300
"""That are begun without being asked for by number."""
Gigabytes = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]
Points = Annotated[float, msgspec.Meta(ge=0, le=100)]
Value = str | float | int | bool


class SweepModel(Spec, frozen=True, kw_only=True):
    """`[[models]]`: a model as `vitedge export` takes it, and its images."""

    model: str = ""
    """Empty: the embedded reference."""
    weights: str = ""
    arch: str = ""
    calib_data: str = ""
    """Empty: its own, where it is an embedded reference."""
    eval_data: str = ""


class Resources(Spec, frozen=True, kw_only=True):
    """`[trial]`: what one of them takes of a host."""

    cores: Positive = 1
    """It runs on so many, and no more: alone or beside others it gives the same figures."""
    memory_gb: Gigabytes = 2.0


class Trial(Spec, frozen=True, kw_only=True):
    """One export to prove and to time."""

    name: str
    """Of its folder: what it is, and a digest of that."""
    model: SweepModel
    target: str
    precision: Precision
    recipe: Calibration
    parameters: dict[str, Value]
    """Those of the recipe that the sweep sets, and their values."""


class Sweep(Spec, frozen=True, kw_only=True):
    """sweep.toml."""

    models: tuple[SweepModel, ...]
    targets: tuple[str, ...]
    precisions: tuple[Precision, ...] = ("int8",)
    calibrations: tuple[str, ...] = ("default",)
    """Recipes by name, or .toml files."""
    grid: dict[str, list[Value]] = msgspec.field(default_factory=dict)
    """Fields of a recipe, and the values that each takes in turn."""
    duration_s: Seconds = 2.0
    """Of timing, each trial; 0: none is timed."""
    max_drop_pp: Points = 0.5
    """Points of accuracy that what is shipped may lose."""
    keep: Literal["pareto", "all"] = "pareto"
    """Whose artifacts stay: those that none beats in accuracy and latency, or everyone's."""
    trial: Resources = Resources()
    cache_gb: Gigabytes = 20.0
    """Of the steps that are kept; the least recently used go first."""


class Trials:
    """Those of a sweep by number: a million of them take no memory."""

    def __init__(self, sweep: Sweep, where: str) -> None:
        """Raises InputError for a name that nothing goes by, and a value that no recipe takes."""
        self._sweep = sweep
        for name in ("models", "targets", "precisions", "calibrations"):
            if not getattr(sweep, name):
                raise InputError(f"{where}: `{name}` is empty", fix="name at least one")
        for field, values in sweep.grid.items():
            if not values:
                raise InputError(f"{where}: grid.{field} is empty", fix="give it values")
        self._bases = [catalog.find_calibration(name) for name in sweep.calibrations]
        for base in self._bases:
            for field, values in sweep.grid.items():
                for value in values:
                    _changed(base, {field: value}, f"{where}, [grid]")

    def __len__(self) -> int:
        floats, quantized = self._precisions
        pairs = len(self._sweep.models) * len(self._sweep.targets)
        return pairs * (len(floats) + len(quantized) * len(self._bases) * self._variants)

    def __getitem__(self, index: int) -> Trial:
        """Targets change fastest: neighbours share a recipe, and no step of a target."""
        sweep, (floats, quantized) = self._sweep, self._precisions
        index, target = divmod(index, len(sweep.targets))
        index, model = divmod(index, len(sweep.models))
        if index < len(floats):
            return self._trial(model, target, floats[index], self._bases[0], {})
        index, precision = divmod(index - len(floats), len(quantized))
        variant, base = divmod(index, len(self._bases))
        values: dict[str, Value] = {}
        for field, choices in sweep.grid.items():
            variant, place = divmod(variant, len(choices))
            values[field] = choices[place]
        return self._trial(model, target, quantized[precision], self._bases[base], values)

    def __iter__(self) -> Iterator[Trial]:
        return (self[index] for index in range(len(self)))

    def spread(self, limit: int | None) -> list[Trial]:
        """All, or `limit` of them from everywhere in the grid.

        Raises InputError where there are many and no `limit` is given.
        """
        count = len(self)
        if limit is None and count > MOST_TRIALS:
            raise InputError(
                f"the sweep has {count:,} trials",
                fix=f"pass `limit={MOST_TRIALS}` to run so many of them, or name fewer values",
            )
        chosen = min(count, limit or count)
        spread = (self[place * count // chosen] for place in range(chosen))
        return list({trial.name: trial for trial in spread}.values())  # a name may be there twice

    @cached_property
    def _precisions(self) -> tuple[list[Precision], list[Precision]]:
        """Floats, to which no recipe makes a difference, and those that are quantized."""
        names = list(dict.fromkeys(self._sweep.precisions))
        floats = [name for name in names if name not in QUANTIZED]
        return floats, [name for name in names if name in QUANTIZED]

    @cached_property
    def _variants(self) -> int:
        """Of a recipe."""
        return math.prod(len(values) for values in self._sweep.grid.values())

    def _trial(
        self,
        model: int,
        target: int,
        precision: Precision,
        base: Calibration,
        values: dict[str, Value],
    ) -> Trial:
        asked, name = self._sweep.models[model], self._sweep.targets[target]
        recipe = _changed(base, values, "[grid]")
        what = (asked.model or "digits", name.removesuffix(".toml"), precision, base.name)
        content = msgspec.json.encode((asked, name, precision, recipe), order="deterministic")
        label = bundle_name("-".join(what[: 4 if precision in QUANTIZED else 3]))
        return Trial(
            name=f"{label[-80:]}-{_short(content)}",
            model=asked,
            target=name,
            precision=precision,
            recipe=recipe,
            parameters=values,
        )


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]


def _changed(base: Calibration, values: dict[str, Value], where: str) -> Calibration:
    """`base` with other `values`. Raises InputError for one that it does not take."""
    plain: dict[str, Any] = {**msgspec.structs.asdict(base), **values}
    return convert(plain, Calibration, where)


def read(path: Path) -> Sweep:
    """The file `path`, its relative paths those from its folder.

    Raises InputError, naming the file and the key, when it is not exactly that.
    """
    sweep = load_toml(path, Sweep)

    def placed(text: str) -> str:
        beside = path.parent / text
        return str(beside) if text and beside.exists() else text

    models = tuple(
        msgspec.structs.replace(
            model,
            model=placed(model.model) if Path(model.model).suffix else model.model,
            weights=placed(model.weights),
            calib_data=placed(model.calib_data),
            eval_data=placed(model.eval_data),
        )
        for model in sweep.models
    )
    targets, recipes = (
        tuple(placed(n) if n.endswith(".toml") else n for n in names)
        for names in (sweep.targets, sweep.calibrations)
    )
    return msgspec.structs.replace(sweep, models=models, targets=targets, calibrations=recipes)


def trial_digest(trial: Trial, *parts: object) -> str:
    """Of all that decides what comes of a trial, with what only its files say in `parts`."""
    return digest("trial", trial, *parts)
