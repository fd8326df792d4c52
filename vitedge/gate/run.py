"""One run of the gate: from paths and limits to a verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from vitedge import files
from vitedge.errors import InputError
from vitedge.gate import baseline, config, regression
from vitedge.gate.judge import judge
from vitedge.gate.limits import Limits, override
from vitedge.gate.subject import load
from vitedge.progress import Steps
from vitedge.verdict import SCHEMA, Answer, Judged, Verdict, worst

EXIT_CODES: dict[Answer, int] = {"passed": 0, "failed": 1, "inconclusive": 4}


@dataclass(frozen=True)
class Request:
    """What the command line asks for; what is empty or None is the configuration's to say."""

    sources: tuple[Path, ...]
    limits: Limits
    confidence: float | None
    baseline: Path | None
    accept: bool
    data: str
    """Validate on these images first."""
    duration_s: float
    """Time for so long first; 0: do not."""
    config: Path | None


@dataclass(frozen=True)
class _Task:
    path: Path
    limits: Limits
    data: str


def run(request: Request, steps: Steps) -> Verdict:
    """Judge artifacts by limits, and accept them into the baseline where that is asked for.

    Raises InputError before anything is measured where the request cannot be met.
    """
    settings = config.load(request.config)
    tasks = _tasks(request, settings)
    confidence = settings.gate.confidence if request.confidence is None else request.confidence
    config.check_confidence(confidence)
    path = request.baseline or settings.baseline()
    if request.accept:
        if path is None:
            raise InputError("nowhere to accept artifacts to", fix="pass --baseline FILE")
        files.check_writable(path, "--baseline")
        tasks = [replace(task, limits=_alone(task.limits)) for task in tasks]
    config.check_some([task.limits for task in tasks])
    accepted = baseline.read(path) if path and (path.exists() or not request.accept) else None
    slowdown = any(task.limits.max_slowdown is not None for task in tasks)
    if slowdown and path is None:
        raise InputError("--max-slowdown is over a baseline", fix="pass --baseline FILE")
    wanted = [(task.path, task.data) for task in tasks if task.data or request.duration_s]
    if wanted:
        from vitedge.gate import measure  # brings the runtimes' side, which a report needs not

        measure.measure(wanted, request.duration_s, steps)
    subjects = [load(task.path) for task in tasks]  # msgspec's first look at a type: no threads
    found: list[Judged] = []
    for subject, task in zip(subjects, tasks, strict=True):
        found.append(judge(subject, task.limits, confidence))
        if accepted and not request.accept:
            found.append(regression.against_baseline(subject, task.limits, accepted, confidence))
    found = [each for each in found if each.checks]
    answer = worst(tuple(each.answer for each in found))
    if request.accept and path and answer == "passed":
        baseline.accept(path, subjects)
    return Verdict(schema=SCHEMA, answer=answer, confidence=confidence, judged=tuple(found))


def _tasks(request: Request, settings: config.Config) -> list[_Task]:
    named = settings.artifacts() if not request.sources else []
    tasks = [
        _Task(
            path,
            override(settings.limits(path), request.limits),
            request.data or settings.data(entry),
        )
        for path, entry in named
    ]
    tasks += [
        _Task(path, override(settings.limits(path), request.limits), request.data)
        for path in request.sources
    ]
    if not tasks:
        raise InputError(
            "nothing to judge", fix=f"name artifacts or reports, or list them in {config.FILE}"
        )
    return tasks


def _alone(limits: Limits) -> Limits:
    """Those that need no baseline: what is accepted is not compared with what it replaces."""
    return msgspec.structs.replace(limits, max_slowdown=None)
