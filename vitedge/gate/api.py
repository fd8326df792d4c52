"""The API's part on limits: hold artifacts to them, and compare two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vitedge.core.api import AnyBundle, AnyBundles, AnyPath, folder, several
from vitedge.core.progress import Steps, steps

if TYPE_CHECKING:
    from vitedge.gate.compare import ArtifactComparison
    from vitedge.gate.verdict import Verdict


def gate(
    sources: AnyBundles = (),
    *,
    baseline: AnyPath | None = None,
    accept: bool = False,
    confidence: float | None = None,
    data: str = "",
    duration_s: float = 0.0,
    config: AnyPath | None = None,
    trust: AnyPath | None = None,
    accepted: AnyPath | None = None,
    progress: Steps | None = None,
    **limits: float | None,
) -> Verdict:
    """Pass or fail artifacts by limits, or say that the evidence is too thin (exit 4).

    Args:
        sources: Artifacts, reports, or the folder of a sweep; default: those that vitedge.toml or
            pyproject.toml names.
        baseline: The last accepted artifacts: compare with them, too.
        accept: Where all passed, write them to `baseline`.
        confidence: One-sided, of each interval; default 0.95.
        data: Validate artifacts on these images first.
        duration_s: Time artifacts for so many seconds first; 0: use the report.
        config: Limits; default: vitedge.toml, else [tool.vitedge.gate].
        trust: Refuse artifacts, and reports that are not measured first, which none of these keys
            has signed: a public key in PEM, or a folder of them; default: [trust] of the file.
        accepted: A file of what was accepted before: refuse what is older.
        progress: Where to show it; None: bars on stderr where that is a terminal.
        limits: `max_drop_pp=1`, `min_speedup=1.2`: a field of `vitedge.gate.limits.Limits` each.

    Raises:
        InputError: nothing to judge, a limit that is none, or what is not to be trusted.
    """
    from vitedge.gate import config as configuration
    from vitedge.gate.run import run

    with steps(progress) as shown:
        settings = configuration.load(None if config is None else Path(config))
        return run(
            [folder(source) for source in several(sources)],
            configuration.options(limits),
            shown,
            settings=settings,
            trust=settings.trusted(
                None if trust is None else Path(trust), None if accepted is None else Path(accepted)
            ),
            baseline=None if baseline is None else Path(baseline),
            accept=accept,
            confidence=confidence,
            data=data,
            duration_s=duration_s,
        )


def compare(first: AnyBundle, second: AnyBundle) -> ArtifactComparison:
    """Show two artifacts of one model side by side: what the second loses, and how much faster.

    Args:
        first: An artifact or a report.
        second: Another of its model.
    """
    from vitedge.gate import compare as comparison

    return comparison.compare(folder(first), folder(second))
