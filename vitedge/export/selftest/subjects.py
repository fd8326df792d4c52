"""What a selftest measures: artifacts by model and precision, and where each lies."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitedge.core.bundle import Bundle
from vitedge.core.publication import publish, workspace
from vitedge.core.spec import QUANTIZED, Precision, Target
from vitedge.export.request import ExportRequest, precisions
from vitedge.models.sources import ModelRequest

DIGITS, VIT = "digits", "vit_tiny_patch16_224"
MODELS = (DIGITS, VIT)


@dataclass(frozen=True)
class Subject:
    """One artifact."""

    model: str
    precision: Precision
    place: str
    """Its folder within the artifacts of the evidence."""
    build: str
    """The export that makes it, by its precision: `int8` makes floats, too."""

    @property
    def title(self) -> str:
        """`digits int8`."""
        return f"{self.model} {self.precision}"


def planned(target: Target, models: Sequence[str]) -> list[Subject]:
    """The artifacts of `models` in every precision of `target`, FP32 first, grouped by export."""
    subjects = []
    for model in models:
        for build, made in exports(target):
            for precision in made:
                place = f"{build}/{model}-{target.name}-{precision}"
                subjects.append(Subject(model, precision, place, build))
    return subjects


def exports(target: Target) -> list[tuple[Precision, list[Precision]]]:
    """The exports that give every precision of `target`, and what each adds to those before."""
    best: Precision = "int8" if "int8" in target.precisions else target.precisions[-1]
    pairs: list[tuple[Precision, list[Precision]]] = []
    done: set[Precision] = set()
    for precision in (best, *target.precisions):
        if precision in done:
            continue
        request = request_of(DIGITS, target.name, precision, Path(), only=bool(pairs))
        added = [made for made in precisions(target, request) if made not in done]
        done.update(added)
        pairs.append((precision, added))
    return pairs


def request_of(
    model: str, target: str, precision: Precision, output: Path, *, only: bool
) -> ExportRequest:
    """The export of `model` in `precision`: digits with its own images, any other with random
    weights and images. `target`: its name or its file."""
    untrained = model != DIGITS
    return ExportRequest(
        ModelRequest(model, random_weights=untrained),
        (target,),
        precision,
        only=only and precision in QUANTIZED,
        calib_data="random" if untrained and precision != "fp32" else "",
        calibration="fast" if untrained else "default",
        duration_s=0.0,
        output=output,
        force=True,
    )


def given(bundles: Sequence[Bundle]) -> list[Subject]:
    """The artifacts a user has, each in a folder called as the one that holds it."""
    return [
        Subject(
            bundle.manifest.model.name,
            bundle.manifest.precision,
            f"{bundle.path.resolve().parent.name}/{bundle.manifest.name}",
            "",
        )
        for bundle in bundles
    ]


def copy(bundles: Sequence[Bundle], artifacts: Path) -> None:
    """Put artifacts, as they were checked, and the FP32 ones beside them into `artifacts`.

    What is there of the same content stays, with its engine and what was measured of it.
    """
    for subject, bundle in zip(given(bundles), bundles, strict=True):
        place = artifacts / subject.place
        for source in (bundle, bundle.reference() or bundle):
            _copy(source, place.with_name(source.manifest.name))


def _copy(bundle: Bundle, final: Path) -> None:
    if final.exists():
        return
    with workspace(final.parent) as work:
        staged = work / final.name
        shutil.copytree(bundle.checked, staged)
        publish(staged, final)
