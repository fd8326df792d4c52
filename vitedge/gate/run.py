"""One run of the gate: from paths and limits to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vitedge.core import files
from vitedge.core.errors import InputError
from vitedge.core.progress import Steps
from vitedge.gate import baseline, config, regression
from vitedge.gate.baseline import Baseline
from vitedge.gate.judge import judge
from vitedge.gate.limits import Limits, override
from vitedge.gate.subject import load
from vitedge.gate.verdict import SCHEMA, Answer, Judged, Verdict, worst

EXIT_CODES: dict[Answer, int] = {"passed": 0, "failed": 1, "inconclusive": 4}


@dataclass(frozen=True)
class GateRequest:
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


def run(request: GateRequest, steps: Steps) -> Verdict:
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
    own_limits = [_own_limits(task.limits) for task in tasks]
    config.check_some(own_limits if request.accept else [task.limits for task in tasks])
    accepted = baseline.read(path) if path and (path.exists() or not request.accept) else None
    _check_baseline(request, [task.limits for task in tasks], path, accepted)
    artifacts = [(task.path, task.data) for task in tasks if task.data or request.duration_s]
    if artifacts:
        from vitedge.gate import measurement  # brings the runtimes' side, which a report needs not

        measurement.measure(artifacts, request.duration_s, steps)
    subjects = [load(task.path) for task in tasks]  # msgspec's first look at a type: no threads
    entries = baseline.entries(subjects) if request.accept else {}
    all_known = not request.accept or request.limits.max_slowdown is not None
    judgements: list[Judged] = []
    for subject, task in zip(subjects, tasks, strict=True):
        judgements.append(judge(subject, task.limits, confidence))
        if accepted and (all_known or accepted.has(subject)):
            judgements.append(
                regression.against_baseline(subject, task.limits, accepted, confidence)
            )
    judgements = [judgement for judgement in judgements if judgement.checks]
    answer = worst(tuple(judgement.answer for judgement in judgements))
    if request.accept and path and answer == "passed":
        baseline.write(path, entries)
    return Verdict(schema=SCHEMA, answer=answer, confidence=confidence, judged=tuple(judgements))


def _tasks(request: GateRequest, settings: config.Config) -> list[_Task]:
    named = [(path, settings.entry(path)) for path in request.sources] or settings.artifacts()
    if not named:
        raise InputError(
            "nothing to judge", fix=f"name artifacts or reports, or list them in {config.FILE}"
        )
    return [
        _Task(
            path,
            override(override(settings.gate, entry), request.limits),
            request.data or settings.data(entry),
        )
        for path, entry in named
    ]


def _check_baseline(
    request: GateRequest, limits: Sequence[Limits], path: Path | None, accepted: Baseline | None
) -> None:
    """Refuse a limit over a baseline that is none, and a baseline that no limit is over."""
    if path is None:
        if any(artifact_limits.max_slowdown is not None for artifact_limits in limits):
            raise InputError("--max-slowdown is over a baseline", fix="pass --baseline FILE")
    elif accepted is None:
        if request.limits.max_slowdown is not None:
            raise InputError(
                f"--max-slowdown is over a baseline, and {path} is not there yet",
                fix="drop --max-slowdown for the first --accept",
            )
    elif not any(
        limit is not None
        for artifact_limits in limits
        for limit in (artifact_limits.max_drop_pp, artifact_limits.max_slowdown)
    ):
        if request.accept:
            return
        raise InputError(
            f"no limit is over the baseline {path}",
            fix="pass --max-drop or --max-slowdown, or drop --baseline",
        )


def _own_limits(limits: Limits) -> Limits:
    """Those that need no baseline: what is accepted first has nothing to be compared with."""
    return msgspec.structs.replace(limits, max_slowdown=None)
