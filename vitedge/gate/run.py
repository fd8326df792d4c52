"""One run of the gate: from paths and limits to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitedge.core import files
from vitedge.core.bundle import Bundle
from vitedge.core.errors import InputError
from vitedge.core.progress import Steps
from vitedge.gate import baseline, config
from vitedge.gate.baseline import Baseline
from vitedge.gate.judge import judge
from vitedge.gate.limits import LIMITS, Limits, active_limits
from vitedge.gate.subject import load
from vitedge.gate.verdict import SCHEMA, Answer, Judged, Verdict, worst

EXIT_CODES: dict[Answer, int] = {"passed": 0, "failed": 1, "inconclusive": 4}


@dataclass(frozen=True)
class GateRequest:
    """What is asked of the gate; what is empty or None is the configuration's to say."""

    sources: tuple[Path | Bundle, ...]
    """Artifacts, by their folder or open, and reports; empty: those of the configuration."""
    limits: Limits
    """In place of the configuration's, for every artifact."""
    confidence: float | None
    """One-sided, of each interval: above 0.5, below 1."""
    baseline: Path | None
    """The last accepted artifacts: judge what was lost since, too."""
    accept: bool
    """Where all passed, write them into the baseline."""
    data: str
    """Validate on these images first; empty: judge what the reports say."""
    duration_s: float
    """Time for so many seconds first; 0: judge what the reports say."""
    config: Path | None
    """The configuration; None: vitedge.toml or pyproject.toml of this folder, if there is one."""


@dataclass(frozen=True)
class _Task:
    source: Path | Bundle
    limits: Limits
    data: str


def run(request: GateRequest, steps: Steps) -> Verdict:
    """Judge artifacts by limits, and accept them into the baseline where that is asked for.

    Raises InputError before anything is measured where the request cannot be met.
    """
    settings = config.load(request.config)
    tasks = _tasks(request, settings)
    confidence = settings.gate.confidence if request.confidence is None else request.confidence
    if not 0.5 < confidence < 1:
        raise InputError(f"`confidence={confidence}` is none", fix="give one above 0.5, below 1")
    path = request.baseline or settings.baseline()
    if request.accept:
        if path is None:
            raise InputError("nowhere to accept artifacts to", fix="pass `baseline=FILE`")
        files.check_writable(path, "`baseline`")
    accepted = baseline.read(path) if path and (path.exists() or not request.accept) else None
    _check_limits(request, [set(active_limits(task.limits)) for task in tasks], path, accepted)
    sources = [(task.source, task.data) for task in tasks if task.data or request.duration_s]
    if sources:
        from vitedge.gate import measurement  # brings the runtimes' side, which a report needs not

        measurement.measure(sources, request.duration_s, steps)
    subjects = [load(task.source) for task in tasks]  # msgspec's first look at a type: no threads
    if request.accept:
        baseline.check_acceptable(subjects)
    all_known = not request.accept or request.limits.max_slowdown is not None
    judgements: list[Judged] = []
    for subject, task in zip(subjects, tasks, strict=True):
        judgements.append(judge(subject, task.limits, confidence))
        if accepted and (all_known or accepted.has(subject)):
            judgements.append(judge(subject, task.limits, confidence, accepted.find(subject)))
    judgements = [judgement for judgement in judgements if judgement.checks]
    answer = worst(judgement.answer for judgement in judgements)
    if request.accept and path and answer == "passed":
        baseline.write(path, subjects)
    return Verdict(schema=SCHEMA, answer=answer, confidence=confidence, judged=tuple(judgements))


def _tasks(request: GateRequest, settings: config.Config) -> list[_Task]:
    named = [
        (source, settings.entry(source if isinstance(source, Path) else source.path))
        for source in request.sources
    ] or settings.artifacts()
    if not named:
        raise InputError(
            "nothing to judge", fix=f"name artifacts or reports, or list them in {config.FILE}"
        )
    tasks = []
    for source, entry in named:
        limits = active_limits(settings.gate) | active_limits(entry) | active_limits(request.limits)
        tasks.append(_Task(source, Limits(**limits), request.data or settings.data(entry)))
    return tasks


def _check_limits(
    request: GateRequest, asked: Sequence[set[str]], path: Path | None, accepted: Baseline | None
) -> None:
    """Refuse an artifact that nothing is asked of, a limit over a baseline that is none, and a
    baseline that no limit is over. `asked`: the names of each artifact's limits."""
    alone = {name for name, limit in LIMITS.items() if limit.check}
    if not all(names & alone if request.accept else names for names in asked):
        raise InputError(
            "an artifact without a limit has nothing to pass",
            fix=f"pass `max_drop_pp=1` or `min_speedup=1.2`, or write {config.FILE}",
        )
    named = set[str]().union(*asked)
    if path is None:
        if named - alone:
            raise InputError("`max_slowdown` is over a baseline", fix="pass `baseline=FILE`")
    elif accepted is None:
        if request.limits.max_slowdown is not None:
            raise InputError(
                f"`max_slowdown` is over a baseline, and {path} is not there yet",
                fix="drop `max_slowdown` for the first `accept=True`",
            )
    elif not request.accept and not any(LIMITS[name].check_since for name in named):
        raise InputError(
            f"no limit is over the baseline {path}",
            fix="pass `max_drop_pp` or `max_slowdown`, or drop `baseline`",
        )
