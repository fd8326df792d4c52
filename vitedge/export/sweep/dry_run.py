"""What a sweep would do: its trials, what each may cost, and which of its steps are kept."""

from __future__ import annotations

from statistics import mean

import msgspec

from vitedge.core.errors import VitedgeError
from vitedge.core.pinned import pinned
from vitedge.core.progress import SILENT, Steps
from vitedge.core.spec import Precision
from vitedge.core.step_cache import StepCache
from vitedge.export.job import keys_of, load_model
from vitedge.export.request import plan_export, precisions
from vitedge.export.sweep.job import Request, chosen
from vitedge.export.sweep.row import Row, Rows
from vitedge.export.sweep.spec import SweepModel, Trial, Value
from vitedge.export.sweep.trial import key_of, request_of
from vitedge.models.sources import ReferenceModel

SCHEMA = "vitedge.sweep-plan/1"


class PlannedTrial(msgspec.Struct, frozen=True, kw_only=True):
    """A trial that would be run."""

    trial: str
    model: str
    target: str
    precision: Precision
    calibration: str
    parameters: dict[str, Value]
    state: str
    """`done`, `cached` where only what is kept is put together, `to do`, or why it cannot be."""
    seconds: float | None
    """That it may take: as the like of it took in this sweep; None where none was run."""


class SweepPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a sweep would do."""

    schema: str = SCHEMA
    trials: tuple[PlannedTrial, ...]
    seconds: float | None
    """Of all that is to do, one after the other; None where that is not known."""


def dry_run(request: Request, steps: Steps) -> SweepPlan:
    """The plan of a sweep; nothing is written but its folder. Raises InputError as a sweep does."""
    sweep, trials = chosen(request)
    rows = Rows(request.output)
    cache = StepCache(request.place.cache)
    models: dict[SweepModel, ReferenceModel] = {}
    known = [row for trial in trials if (row := rows.read(trial.name))]
    planned: list[PlannedTrial] = []
    for count, trial in enumerate(trials, 1):
        steps("planning", count, len(trials))
        row, key = rows.read(trial.name), key_of(trial, sweep.duration_s)
        state = "done"
        seconds: float | None = 0.0
        if not row or row.state != "done" or row.key != key:
            with pinned(sweep.trial.cores):  # which keys of what was measured name
                state = _state(trial, request, cache, models)
            seconds = _estimate(trial, known)
            if state == "cached":
                seconds = sweep.duration_s
        planned.append(
            PlannedTrial(
                trial=trial.name,
                model=trial.model.model or "digits",
                target=trial.target,
                precision=trial.precision,
                calibration=trial.recipe.name,
                parameters=trial.parameters,
                state=state,
                seconds=seconds,
            )
        )
    costs = [trial.seconds for trial in planned]
    total = None if None in costs else sum(cost or 0.0 for cost in costs)
    return SweepPlan(trials=tuple(planned), seconds=total)


def _state(
    trial: Trial, request: Request, cache: StepCache, models: dict[SweepModel, ReferenceModel]
) -> str:
    """`cached`, `to do`, or what is wrong with a trial."""
    try:
        plan = plan_export(request_of(trial, request.place, cache))
        if trial.model not in models:
            models[trial.model] = load_model(plan, SILENT)
        keys = keys_of(plan, models[trial.model])
    except VitedgeError as error:
        return error.what
    assert keys is not None
    (target,) = plan.targets
    kept = all(
        cache.has("bundle", keys.bundle(target, name))
        and cache.has("validation", keys.validation(target, name))
        for name in precisions(target, plan.request)
    )
    return "cached" if kept else "to do"


def _estimate(trial: Trial, known: list[Row]) -> float | None:
    """The mean of what trials of its model took, on its target if there are any."""
    model = trial.model.model or "digits"
    of_model = [row for row in known if row.model == model and row.state == "done"]
    likest = [row.seconds for row in of_model if row.target == trial.target]
    seconds = likest or [row.seconds for row in of_model]
    return mean(seconds) if seconds else None
