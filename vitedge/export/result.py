"""A bundle that was exported, its report, and what a user should know before trusting it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vitedge import runtimes
from vitedge.core import catalog
from vitedge.core.bundle import Bundle
from vitedge.core.errors import VitedgeError, first_few
from vitedge.core.machine import describe_machine
from vitedge.core.manifest import Trained
from vitedge.core.report import Numerics, Report
from vitedge.core.spec import INT4_OPSET, Precision
from vitedge.measure.inspection.notes import matched
from vitedge.quant import bfloat16, half


@dataclass(frozen=True)
class ExportResult:
    """One bundle that was written, and its report."""

    bundle: Bundle
    report: Report
    further_notes: tuple[str, ...] = ()

    @property
    def drop_pp(self) -> float:
        """Accuracy lost against FP32, percentage points."""
        assert self.report.accuracy and self.report.accuracy.drop_pp is not None
        return self.report.accuracy.drop_pp

    def notes(self) -> list[str]:
        """What a user should know before trusting it."""
        manifest = self.bundle.manifest
        notes = list(self.further_notes)
        if manifest.accuracy_note:
            notes.append(f"accuracy is not measurable: {manifest.accuracy_note}")
        if (degenerate := self._degenerate()) and manifest.precision == "fp32":
            notes.append(f"its outputs prove nothing: {degenerate}")
        if not runtimes.runs_here(self.bundle):
            notes += self._not_run()
        if manifest.quantization:
            if not any(layer.role in ("qk", "pv") for layer in manifest.quantization.layers):
                notes.append("no attention was found: what is done for ViTs alone was skipped")
            used = manifest.quantization.calibration
            if copies := used.images - len(set(used.image_digests)):
                notes.append(f"{copies} of {used.images} calibration images are duplicates")
            notes += [f"skipped {n} calibration images: {why}" for why, n in used.skipped.items()]
            if used.images < used.recipe.num_samples:
                notes.append(
                    f"calibrated on {used.images} images, not {used.recipe.num_samples}: "
                    f"'{used.source}' has no more"
                )
            if manifest.quantization.training:
                notes += _of_training(manifest.quantization.training)
            if used.recipe.weight_bits == 4:
                notes.append(_of_four_bits(manifest.target.opset))
        numerics = self._numerics()
        if numerics and manifest.precision != "fp32":
            notes += matched(numerics)
        if manifest.half:
            notes += half.notes(manifest.half)
        if manifest.bf16:
            notes += bfloat16.notes(manifest.bf16)
        if self.report.accuracy:
            skipped = self.report.accuracy.skipped.items()
            notes += [f"skipped {n} evaluation images: {why}" for why, n in skipped]
        return [f"{manifest.name}: {note}" for note in notes]

    def _degenerate(self) -> str:
        """Why its figures prove nothing; empty where they do, or there are none."""
        numerics = self._numerics()
        return numerics.degenerate if numerics else ""

    def _numerics(self) -> Numerics | None:
        """Measured on its runtime, or of its graph where that does not run here."""
        simulation = self.report.simulation
        return self.report.numerics or (simulation.numerics if simulation else None)

    def _not_run(self) -> Iterator[str]:
        """Why nothing was run, what was done instead, and what is left to do."""
        manifest = self.bundle.manifest
        waiting = manifest.build is not None and manifest.build.state == "on the device"
        needs = catalog.lacks_version(manifest.target, describe_machine(threads=0))
        why = f"the target takes {needs}" if needs else "this machine is not what the target needs"
        if manifest.build and waiting:
            why = f"no engine yet ({manifest.build.why}); run 'vitedge build' on the device"
        simulation = self.report.simulation
        instead = f"; its accuracy is its graph's on {simulation.runtime}" if simulation else ""
        yield f"not run: {why}{instead}"
        if manifest.precision != "fp32" and not waiting:
            yield "not timed here: run 'vitedge bench' on the device"


@dataclass(frozen=True)
class ExportFailure:
    """One bundle that was not written, and why; where it is FP32's, none of its target was."""

    artifact: str
    """The bundle's name."""
    model: str
    target: str
    precision: Precision
    error: VitedgeError


class Exports(list[ExportResult]):
    """The bundles that an export wrote, target by target, FP32 first; and what it did not write."""

    def __init__(
        self, results: Iterable[ExportResult] = (), failures: Iterable[ExportFailure] = ()
    ) -> None:
        super().__init__(results)
        self.failures = tuple(failures)

    def checked(self, *, keep_going: bool) -> Exports:
        """These, unless a target failed and `keep_going` is off, or nothing at all was written.

        Raises the first failure's own error, with these as its `exports`.
        """
        if self.failures and not (keep_going and self):
            error = self.failures[0].error
            error.exports = self
            raise error
        return self


def _of_four_bits(opset: int) -> str:
    if opset >= INT4_OPSET:
        return (
            "4-bit weights are stored as INT4, and CPU runtimes multiply them in float: the file "
            "is smaller than with 8 bits, latency is not INT8's"
        )
    return (
        f"4-bit weights are stored in 8 bits below opset {INT4_OPSET}: accuracy is theirs, size "
        "and latency are INT8's"
    )


def _of_training(done: Trained) -> Iterator[str]:
    """What a user should know of how it was trained."""
    yield from (f"skipped {n} training images: {why}" for why, n in done.skipped.items())
    if done.bounds and not done.best_step:
        yield "PTQ met the level that was to end training: nothing was trained"
    elif not done.best_step:
        yield "training made it no better on the held-out images: this is what PTQ gave"
    if done.missing_classes:
        shown = first_few(done.missing_classes)
        yield f"no training image shows {len(done.missing_classes)} of its classes: {shown}"
