"""One run of the gate: from paths and limits to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vitedge.core import files
from vitedge.core.bundle import Bundle, open_bundle
from vitedge.core.errors import InputError
from vitedge.core.progress import Steps
from vitedge.core.trust import Trust
from vitedge.gate import baseline as baselines
from vitedge.gate import sweeps
from vitedge.gate.baseline import Baseline
from vitedge.gate.config import FILE, Config
from vitedge.gate.judge import judge
from vitedge.gate.limits import LIMITS, Limits, active_limits
from vitedge.gate.signed import SignedReport, signature_of
from vitedge.gate.subject import Subject, load
from vitedge.gate.verdict import SCHEMA, Answer, Judged, Verdict, worst

EXIT_CODES: dict[Answer, int] = {"passed": 0, "failed": 1, "inconclusive": 4}


@dataclass(frozen=True)
class _Task:
    source: Path
    limits: Limits
    data: str


def run(
    sources: Sequence[Path],
    limits: Limits,
    steps: Steps,
    *,
    settings: Config,
    baseline: Path | None = None,
    accept: bool = False,
    confidence: float | None = None,
    data: str = "",
    duration_s: float = 0.0,
    trust: Trust | None = None,
) -> Verdict:
    """Judge artifacts by limits, and accept them into the baseline where that is asked for.

    Parameters are as of `vitedge.gate`; what is empty or None is for `settings` to say, but for
    `trust`: None asks for no signature.
    Raises InputError before anything is measured where that cannot be done.
    """
    tasks = _tasks([*sweeps.artifacts(sources)], limits, data, settings)
    confidence = settings.gate.confidence if confidence is None else confidence
    if not 0.5 < confidence < 1:
        raise InputError(f"`confidence={confidence}` is none", fix="give one above 0.5, below 1")
    path = baseline or settings.baseline()
    if accept:
        if path is None:
            raise InputError("nowhere to accept artifacts to", fix="pass `baseline=FILE`")
        files.check_writable(path, "`baseline`")
    accepted = baselines.read(path) if path and (path.exists() or not accept) else None
    asked = [set(active_limits(task.limits)) for task in tasks]
    growing = accept and limits.max_slowdown is None
    _check_limits(asked, path, accepted, accept=accept, growing=growing)
    for task in tasks:
        if (task.data or duration_s) and not task.source.is_dir():
            raise InputError(f"{task.source} is no artifact to measure", fix="give the bundle")
    folders = dict.fromkeys(task.source for task in tasks if task.source.is_dir())
    bundles = {folder: open_bundle(folder, trust) for folder in folders}
    signed = {
        task.source: SignedReport(task.source, bundles.get(task.source), trust)
        for task in tasks
        if trust and _judges_report(task, duration_s)
    }
    faults: dict[Path, str] = {}
    compared = [bundles[t.source] for t in tasks if t.source in bundles and _of_fp32(t.limits)]
    unmeasured = [(bundles[t.source], t.data) for t in tasks if t.data or duration_s]
    if compared or unmeasured:
        from vitedge.gate import measurement  # brings the runtimes' side, which a report needs not

        faults = measurement.faults(compared)
        sound = [(bundle, data) for bundle, data in unmeasured if bundle.path not in faults]
        measurement.measure(sound, duration_s, steps)
    subjects = [  # msgspec's first look at a type: no threads
        replace(
            _subject(task.source, bundles.get(task.source), signed.get(task.source)),
            fault=faults.get(task.source, ""),
        )
        for task in tasks
    ]
    if accept:
        baselines.check_acceptable(subjects)
    judgements: list[Judged] = []
    for subject, task in zip(subjects, tasks, strict=True):
        judgements.append(judge(subject, task.limits, confidence))
        if accepted and (accepted.has(subject) or not growing):
            judgements.append(judge(subject, task.limits, confidence, accepted.find(subject)))
    judgements = [judgement for judgement in judgements if judgement.checks]
    answer = worst(judgement.answer for judgement in judgements)
    if accept and path and answer == "passed":
        baselines.write(path, subjects)
    return Verdict(schema=SCHEMA, answer=answer, confidence=confidence, judged=tuple(judgements))


def _subject(source: Path, bundle: Bundle | None, signed: SignedReport | None) -> Subject:
    """What is judged: of a signed report, the very bytes that are signed."""
    if signed:
        return replace(load(source, bundle, signed.file), signature=signed.signature)
    return replace(load(source, bundle), signature=signature_of(source, bundle))


def _judges_report(task: _Task, duration_s: float) -> bool:
    """Whether limits are on what the report says, not on what this run measures first.

    Raises InputError where some are on either: the report would be signed no more.
    """
    commands = {LIMITS[name].measured_by for name in active_limits(task.limits)}
    measured = {"validate"} if task.data else set()
    measured |= {"bench"} if duration_s else set()
    if not measured:
        return True
    if commands <= measured:
        return False
    raise InputError(
        f"{task.source}: some of what is judged is not measured in this run, and would have to be "
        "signed",
        fix="measure all of it with `data` and `duration_s`, or nothing",
    )


def _of_fp32(limits: Limits) -> bool:
    """Whether one of them is on what FP32 gives, or on its speed."""
    return any(LIMITS[name].of_outputs or LIMITS[name].in_turn for name in active_limits(limits))


def _tasks(sources: Sequence[Path], limits: Limits, data: str, settings: Config) -> list[_Task]:
    named = [(source, settings.entry(source)) for source in sources] or settings.artifacts()
    if not named:
        raise InputError(
            "nothing to judge", fix=f"name artifacts or reports, or list them in {FILE}"
        )
    tasks = []
    for source, entry in named:
        active = active_limits(settings.gate) | active_limits(entry) | active_limits(limits)
        tasks.append(_Task(source, Limits(**active), data or settings.data(entry)))
    return tasks


def _check_limits(
    asked: Sequence[set[str]],
    path: Path | None,
    accepted: Baseline | None,
    *,
    accept: bool,
    growing: bool,
) -> None:
    """Refuse an artifact that nothing is asked of, a limit over a baseline that is none, and a
    baseline that no limit is over. `asked`: the names of each artifact's limits; `growing`: the
    baseline may be without an artifact as yet."""
    without_baseline = {name for name, limit in LIMITS.items() if limit.check}
    if not all(names & without_baseline if accept else names for names in asked):
        raise InputError(
            "an artifact without a limit has nothing to pass",
            fix=f"pass `max_drop_pp=1` or `min_speedup=1.2`, or write {FILE}",
        )
    named = set[str]().union(*asked)
    if path is None:
        if named - without_baseline:
            raise InputError("`max_slowdown` is over a baseline", fix="pass `baseline=FILE`")
    elif accepted is None:
        if not growing:
            raise InputError(
                f"`max_slowdown` is over a baseline, and {path} is not there yet",
                fix="drop `max_slowdown` for the first `accept=True`",
            )
    elif not accept and not any(LIMITS[name].check_since for name in named):
        raise InputError(
            f"no limit is over the baseline {path}",
            fix="pass `max_drop_pp` or `max_slowdown`, or drop `baseline`",
        )
