"""Accuracy control: which layers to keep in float so that INT8 loses no more than its bounds allow.

A search that was stopped goes on where it stopped: every probe may take minutes.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from vitedge.core import bounded, manifest
from vitedge.core.bounds import (
    aims,
    breaches,
    figures,
    losses,
    shortfalls,
    within_reach,
)
from vitedge.core.bundle import Bundle
from vitedge.core.errors import InputError, LimitError
from vitedge.core.numerics import noise_db
from vitedge.core.progress import Steps
from vitedge.core.spec import Target
from vitedge.export.request import Job
from vitedge.export.result import ExportResult
from vitedge.export.stage import Source, stage
from vitedge.measure.latency.single_stream import time_in_turn
from vitedge.measure.latency.summary import LatencyComparison
from vitedge.quant.int8 import Int8, Quantizer
from vitedge.runtimes import runs_here

COST_S = 1.0
"""For each of FP32, full INT8 and INT8 with layers in float, timed in turn."""

Artifact = TypeVar("Artifact")


@dataclass(frozen=True)
class Probe:
    """An INT8 bundle that was staged, and the graph it was built from."""

    result: ExportResult
    int8: Int8

    @property
    def losses(self) -> manifest.Losses:
        """What it lost."""
        return losses(self.result.report)

    def discard(self) -> None:
        """Free the disk of what did not serve."""
        shutil.rmtree(self.result.bundle.path)
        shutil.rmtree(self.int8.path.parent)


def control_accuracy(
    job: Job,
    target: Target,
    source: Source,
    fp32: Bundle,
    quantizer: Quantizer,
    full: Probe,
    bounds: manifest.Bounds,
) -> tuple[Probe, manifest.Control, list[str]]:
    """The INT8 bundle with the fewest layers in float that meets all `bounds`.

    `full` has every layer in INT8, and misses one. Returns also the record of what was kept in
    float, and notes for the user. Raises LimitError where no number of layers is enough.
    """

    def probe(kept: Mapping[str, str]) -> Probe:
        suffix = f".{len(kept)}"
        int8 = quantizer.write(job.work / f"int8-{target.name}{suffix}", kept)
        return Probe(stage(job, target, source, int8, fp32, suffix), int8)

    name, accuracy = full.result.bundle.manifest.name, full.result.report.accuracy
    file = _search_file(job.plan.request.output / name)
    # accuracy is of the main output, levels are of all
    of_accuracy = manifest.Bounds(max_drop_pp=bounds.max_drop_pp)
    outputs = 1 if bounds == of_accuracy else len(fp32.manifest.outputs)
    key = _key(job, target, full, outputs)
    search = Search(file, job.work, key, bounds, job.steps)
    search.rank(lambda: quantizer.harm(full.int8, outputs))
    fewest = search.fewest(probe, lambda candidate: candidate.losses, Probe.discard)
    if fewest is None:
        raise search.unreachable(name, full.losses, accuracy.fp32 if accuracy else None)
    count, best = fewest
    bundles = [best.result.bundle, full.result.bundle, fp32]
    timed = (
        time_in_turn(bundles, job.steps, duration_s=COST_S)
        if all(map(runs_here, bundles))
        else None
    )
    return best, search.record(count, full.losses, timed), search.notes


def forget(final: Path) -> None:
    """Remove what a search for the bundle at `final` has left, once that is written."""
    _search_file(final).unlink(missing_ok=True)


def _search_file(final: Path) -> Path:
    """Where the search for layers to keep in float is remembered until `final` is written."""
    return final.with_name(f".{final.name}.control.json")


def _key(job: Job, target: Target, full: Probe, outputs: int) -> str:
    """A digest of everything that decides what keeping a layer in float gives.

    `outputs` are how many of the model's rank its layers.
    """
    model, report = job.model, full.result.report
    measured = report if report.numerics else report.simulation
    assert measured is not None and measured.numerics is not None
    accuracy, numerics = measured.accuracy, measured.numerics
    calibration = full.int8.record.calibration
    decisive = (
        *(model.source, model.weights_sha256, model.preprocess, model.task, model.labels),
        *(calibration.recipe, calibration.digest, target, full.result.bundle.manifest.tools),
        *(numerics.data, numerics.n, accuracy and accuracy.fp32, outputs),
    )
    content = msgspec.json.encode(decisive, order="deterministic")
    return hashlib.sha256(content).hexdigest()


class State(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What has been measured of one export, whatever its bounds."""

    key: str
    """Names everything that decides a measurement."""
    ranking: list[tuple[str, float]] = []
    """Layers and their noise over signal at the output, most harmful first."""
    losses: dict[int, manifest.Losses] = {}
    """With so many of the most harmful layers in float."""


class Search:
    """Finds the fewest layers to keep in float; remembers in `file` what it measures.

    `scratch` is a folder on the same disk in which a killed process may leave half a file.
    """

    def __init__(
        self, file: Path, scratch: Path, key: str, bounds: manifest.Bounds, steps: Steps
    ) -> None:
        self.notes: list[str] = []
        self._file, self._scratch = file, scratch
        self._bounds, self._steps = bounds, steps
        self._state = self._resume(key)

    def rank(self, harm: Callable[[], Mapping[str, float]]) -> None:
        """Sort the layers by `harm`, their noise over signal, unless that is known already."""
        if not self._state.ranking:
            self._state.ranking = sorted(harm().items(), key=lambda item: -item[1])
            self._save()

    def fewest(
        self,
        build: Callable[[Mapping[str, str]], Artifact],
        measure: Callable[[Artifact], manifest.Losses],
        discard: Callable[[Artifact], None],
    ) -> tuple[int, Artifact] | None:
        """Bisect how many of the most harmful layers must stay in float.

        `build` makes the artifact with the layers given in float, and why; probes that are no
        longer needed are discarded. Returns how many, and a probe that this very call measured to
        meet the bounds, even if fewer layers in float lose less than more do; None if none does.
        """
        known, layers = self._state.losses, len(self._state.ranking)
        best: tuple[int, Artifact] | None = None
        probes = 0
        while True:
            enough = min((k for k in known if not self._missed(known[k])), default=layers)
            too_few = max((k for k in known if k < enough), default=0)
            if best is not None and best[0] == enough and enough - too_few == 1:
                return best
            if enough == layers and enough - too_few <= 1:
                return None
            # where only an earlier run knows that it is enough, make and measure it again
            count = (too_few + enough) // 2 if enough - too_few > 1 else enough
            probes += 1
            about = probes - 1 + max(1, math.ceil(math.log2(enough - too_few)))
            self._steps.say(f"probe {probes} of about {about}: {_layers(count)} in float")
            probe = build(self._kept(count))
            known[count] = measure(probe)
            self._save()
            if not self._missed(known[count]):
                if best is not None:
                    discard(best[1])
                best = count, probe
            else:
                discard(probe)

    def record(
        self, count: int, full: manifest.Losses, timed: LatencyComparison | None
    ) -> manifest.Control:
        """The manifest's record; `timed` are the artifact, full INT8 and FP32, in that order."""
        ranking = self._state.ranking
        return manifest.Control(
            bounds=self._bounds,
            full=full,
            reached=self._state.losses[count],
            layers=len(ranking),
            kept=tuple(
                manifest.KeptLayer(node=n, noise_db=noise_db(h)) for n, h in ranking[:count]
            ),
            tried=tuple(sorted(self._state.losses.items())),
            cost=None if timed is None else _cost(timed),
        )

    def unreachable(self, name: str, full: manifest.Losses, fp32: float | None) -> LimitError:
        """The error that tells what was tried for the artifact `name`, and what to do.

        `full` is what INT8 lost; `fp32` is FP32's own accuracy, None without labels.
        """
        layers = len(self._state.ranking)
        tried = {0: full, **self._state.losses}
        most = max(tried)
        closest = min(tried, key=lambda k: (max(self._missed(tried[k]).values()), k))
        what = f"{name} {breaches(self._bounds, full)}"
        if most:
            least = figures(self._missed(tried[most]), tried[most])
            what += f", and even with {most} of {layers} layers in float {least}"
        if closest != most:
            least = figures(self._missed(tried[closest]), tried[closest])
            what += f"; closest came {_layers(closest)} in float, with {least}"
        if fp32 is not None and self._bounds.max_drop_pp is not None:
            what += f" (FP32 itself scores {fp32:.2%})"
        within = within_reach(self._bounds, tried[closest])
        allow = (
            f"allow {within} with `force=True` (what was measured is kept in {self._file}), "
            if within
            else ""
        )
        return LimitError(
            what,
            fix=f"{allow}try `calibration='thorough'` or more calibration images, or ship "
            "`precision='fp32'`",
        )

    def _missed(self, measured: manifest.Losses) -> dict[str, float]:
        """By how much each bound is."""
        return shortfalls(self._bounds, measured)

    def _kept(self, count: int) -> dict[str, str]:
        """The `count` most harmful layers, and why each stays in float."""
        total = len(self._state.ranking)
        return {
            node: f"kept in float: {_ordinal(place)} most harmful of {total} "
            f"({noise_db(harm):.1f} dB at the output), to {aims(self._bounds)}"
            for place, (node, harm) in enumerate(self._state.ranking[:count], start=1)
        }

    def _resume(self, key: str) -> State:
        if not self._file.exists():
            return State(key=key)
        try:
            state = msgspec.json.decode(bounded.read(self._file), type=State)
        except (msgspec.MsgspecError, InputError) as error:
            self.notes.append(f"{self._file} cannot be read ({error}): searched afresh")
            return State(key=key)
        layers = len(state.ranking)
        if state.key != key or not all(0 < k < layers for k in state.losses):
            self.notes.append(f"{self._file} is of another export: searched afresh")
            return State(key=key)
        known = len(state.losses)
        self.notes.append(
            f"went on where an earlier export stopped: the ranking and {known} "
            f"{'probe' if known == 1 else 'probes'} were measured then"
        )
        return state

    def _save(self) -> None:
        temporary = self._scratch / self._file.name
        try:
            temporary.write_bytes(msgspec.json.encode(self._state))
            temporary.replace(self._file)
        except OSError as error:
            raise InputError(
                f"cannot write {self._file}: {error.strerror}", fix="free some space, or `output`"
            ) from error


def _cost(timed: LatencyComparison) -> manifest.ControlCost:
    """`timed` are the artifact, full INT8 and FP32, in that order."""
    controlled, full, fp32 = (latency.p50_ms for latency in timed.latencies)
    slowdown, slowdown_ci = timed.speedup(1, 0)
    speedup, speedup_ci = timed.speedup(0, 2)
    return manifest.ControlCost(
        p50_ms=controlled,
        full_int8_p50_ms=full,
        fp32_p50_ms=fp32,
        slowdown=slowdown,
        slowdown_ci=slowdown_ci,
        speedup=speedup,
        speedup_ci=speedup_ci,
    )


def _layers(count: int) -> str:
    return f"{count} layer" if count == 1 else f"{count} layers"


def _ordinal(place: int) -> str:
    teens = place % 100 in (11, 12, 13)
    return f"{place}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(place % 10, 'th')}"
