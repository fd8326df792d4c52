"""What `vitedge bench` is asked to do, checked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import msgspec

from vitedge.core.bundle import Bundle
from vitedge.core.errors import InputError, nearest
from vitedge.core.machine import usable_cores
from vitedge.core.report import Report
from vitedge.core.runtime import runtime_of
from vitedge.measure.latency.clock import check_duration
from vitedge.measure.latency.photographs import Photographs

Scenario = Literal["single-stream", "offline"]
Swept = Literal["threads", "batch"]


@dataclass(frozen=True)
class BenchRequest:
    """What `vitedge bench` was asked to do."""

    duration_s: float
    """Of each measurement of each artifact."""
    against: str = "fp32"
    """Each bundle's own FP32 bundle where that is at hand; or another artifact's path."""
    scenarios: tuple[str, ...] = ("single-stream",)
    sweeps: tuple[str, ...] = ()
    batch: int | None = None
    threads: int = 0
    """0: what the target says, or every core this process may use."""
    streams: int = 0
    """Of `offline`, which alone has them; 0: several, compared."""
    photographs: Photographs | None = None
    """What to time from file to outputs."""

    def threads_of(self, bundle: Bundle, streams: int = 1) -> int:
        """Inference threads of each of so many parallel runs of `bundle`."""
        threads = self.threads or bundle.manifest.target.threads or usable_cores()
        return max(1, threads // streams)

    def measured(self, merged: Report) -> Report:
        """A merged report without the scenarios that this did not measure."""
        single, swept = "single-stream" in self.scenarios, self.sweeps
        return msgspec.structs.replace(
            merged,
            accuracy=merged.accuracy if single else None,
            latency=merged.latency if single else None,
            drift=merged.drift if single else None,
            recommendation=merged.recommendation if single else None,
            offline=merged.offline if "offline" in self.scenarios else None,
            sweep_threads=merged.sweep_threads if "threads" in swept else None,
            sweep_batch=merged.sweep_batch if "batch" in swept else None,
            end_to_end=merged.end_to_end if self.photographs else None,
        )


def check(request: BenchRequest, bundles: Sequence[Bundle]) -> None:
    """Raises InputError for what cannot be done, before anything runs."""
    check_duration(request.duration_s)
    for parameter, names, known in (
        ("scenarios", request.scenarios, get_args(Scenario)),
        ("sweeps", request.sweeps, get_args(Swept)),
    ):
        for name in names:
            if name not in known:
                raise InputError(f"unknown `{parameter}` '{name}'", fix=nearest(name, known))
    if request.against != "fp32" and "single-stream" not in request.scenarios:
        raise InputError(
            "`against` is compared in single-stream alone", fix="add `scenarios=['single-stream']`"
        )
    if request.streams and "offline" not in request.scenarios:
        raise InputError(
            "`streams` does nothing without `scenarios=['offline']`",
            fix="add `scenarios=['offline']`",
        )
    if request.threads and request.streams > request.threads:
        raise InputError(
            f"`threads={request.threads}` are too few for `streams={request.streams}`",
            fix="pass one thread for each stream, or more",
        )
    for name in ("threads", "batch"):
        if name in request.sweeps and getattr(request, name):
            raise InputError(
                f"`sweeps=['{name}']` and `{name}` exclude each other", fix=f"drop `{name}`"
            )
    for bundle in bundles:
        processor = runtime_of(bundle.manifest.target).processor
        if "threads" in request.sweeps and processor != "cpu":
            raise InputError(
                f"{bundle.path} does not run on the CPU, "
                "so `sweeps=['threads']` says nothing of it",
                fix="drop `sweeps=['threads']`",
            )
        if request.photographs and processor == "browser":
            raise InputError(
                f"{bundle.path} runs in a browser, where the page decodes its images",
                fix="drop `end_to_end`",
            )
        image = bundle.manifest.inputs[0] if bundle.manifest.inputs else None
        if request.photographs and not (
            image and image.dtype == "uint8" and len(image.shape) == 4 and image.shape[3] == 3
        ):
            raise InputError(
                f"{bundle.path} takes no images, so there is nothing to decode for it",
                fix="drop `end_to_end`",
            )
        fixed = image.shape[0] if image else None
        if "batch" in request.sweeps and isinstance(fixed, int):
            raise InputError(
                f"{bundle.path} is fixed at batch {fixed}, so there is nothing to sweep",
                fix="export it with `batch='dynamic'`",
            )
