"""A bundle that was made, its report, and what a user should know before trusting it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vitedge import runtimes
from vitedge.core.bundle import Bundle
from vitedge.core.manifest import Trained
from vitedge.core.spec import INT4_OPSET
from vitedge.quant import half


@dataclass(frozen=True)
class Made:
    """One bundle that was written, and its report."""

    bundle: Bundle
    report: dict[str, Any]
    further_notes: tuple[str, ...] = ()

    @property
    def drop_pp(self) -> float:
        """Accuracy lost against FP32, percentage points."""
        return float(self.report["accuracy"]["drop_pp"])

    def notes(self) -> list[str]:
        """What a user should know before trusting it."""
        made = self.bundle.manifest
        found = list(self.further_notes)
        if made.accuracy_note:
            found.append(f"accuracy is not measurable: {made.accuracy_note}")
        if not runtimes.runs_here(self.bundle):
            found += self._not_run()
        if made.quantization:
            if not any(layer.role in ("qk", "pv") for layer in made.quantization.layers):
                found.append("no attention was found: what is done for ViTs alone was skipped")
            used = made.quantization.calibration
            if copies := used.images - len(set(used.image_digests)):
                found.append(f"{copies} of {used.images} calibration images are duplicates")
            found += [f"skipped {n} calibration images: {why}" for why, n in used.skipped.items()]
            if used.images < used.recipe.num_samples:
                found.append(
                    f"calibrated on {used.images} images, not {used.recipe.num_samples}: "
                    f"'{used.source}' has no more"
                )
            if made.quantization.training:
                found += _of_training(made.quantization.training)
            if used.recipe.weight_bits == 4:
                found.append(_of_four_bits(made.target.opset))
        if made.half:
            found += half.notes(made.half)
        if accuracy := self.report.get("accuracy"):
            skipped = accuracy["skipped"].items()
            found += [f"skipped {n} evaluation images: {why}" for why, n in skipped]
        return [f"{made.name}: {note}" for note in found]

    def _not_run(self) -> Iterator[str]:
        """Why nothing was run, what was done instead, and what is left to do."""
        made = self.bundle.manifest
        waiting = made.build is not None and made.build.state == "on the device"
        why = "this machine is not what the target needs"
        if made.build and waiting:
            why = f"no engine yet ({made.build.why}); run 'vitedge build' on the device"
        simulated = self.report.get("simulation")
        instead = f"; its accuracy is its graph's on {simulated['runtime']}" if simulated else ""
        yield f"not run: {why}{instead}"
        if made.precision != "fp32" and not waiting:
            yield "not timed here: run 'vitedge bench' on the device"


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
    if not done.best_step:
        yield "training made it no better on the held-out images: this is what PTQ gave"
    if done.missing_classes:
        shown = ", ".join(done.missing_classes[:5])
        more = ", …" if len(done.missing_classes) > 5 else ""
        yield f"no training image shows {len(done.missing_classes)} of its classes: {shown}{more}"
