"""What an export would do and write, every name resolved and nothing done."""

from __future__ import annotations

import msgspec

from vitedge.core.progress import Steps
from vitedge.core.spec import Precision, Task
from vitedge.export.job import artifact_paths
from vitedge.export.request import ExportRequest, open_image_sets, plan_export, precisions
from vitedge.models.api import loaded

SCHEMA = "vitedge.plan/1"


class PlannedImages(msgspec.Struct, frozen=True, kw_only=True):
    """Images that would be used."""

    data: str
    images: int
    recipe: str | None = None
    """Of calibration."""


class PlannedArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that would be written."""

    path: str
    exists: bool
    """Then it is replaced with `force`, and refused without."""


class ExportPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What an export would do."""

    schema: str = SCHEMA
    model: str
    source: str
    task: Task
    targets: dict[str, tuple[Precision, ...]]
    """What is built for each."""
    calibration: PlannedImages | None
    evaluation: PlannedImages | None
    training: str | None
    """The images to train on."""
    artifacts: tuple[PlannedArtifact, ...]
    force: bool


def dry_run(request: ExportRequest, steps: Steps, training: str | None = None) -> ExportPlan:
    """Check `request` as an export does, up to the images; nothing is written.

    Raises what an export raises before it begins, but for artifacts that are there already.
    """
    plan = plan_export(request)
    steps.say("loading the model")
    model = loaded(request.model).identity
    chosen, evaluation = open_image_sets(plan, model, steps)
    calibrating = evaluating = None
    if chosen:
        count = min(len(chosen.images), chosen.recipe.num_samples)
        name = chosen.recipe.name
        calibrating = PlannedImages(data=chosen.images.name, images=count, recipe=name)
    if evaluation:
        evaluating = PlannedImages(data=evaluation.name, images=len(evaluation))
    return ExportPlan(
        model=model.name,
        source=model.source,
        task=model.task,
        targets={t.name: precisions(t, request) for t in plan.targets},
        calibration=calibrating,
        evaluation=evaluating,
        training=training,
        artifacts=tuple(
            PlannedArtifact(path=str(path), exists=path.exists())
            for path in artifact_paths(plan, model)
        ),
        force=request.force,
    )
