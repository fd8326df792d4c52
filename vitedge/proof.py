"""Prove a bundle on this machine: accuracy on images, latency in turn with FP32, memory."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from vitedge import bench, golden_check, host, recommend, report
from vitedge.artifact import REPORT, Bundle, open_bundle
from vitedge.backends import open_session, simulate
from vitedge.backends.base import Session
from vitedge.data import EMBEDDED, open_images
from vitedge.errors import InputError, LimitError
from vitedge.imageset import ImageSet
from vitedge.lock import alone
from vitedge.memory import peak_rss_bytes
from vitedge.progress import Steps
from vitedge.validate import OutputError, predict_all, validate


def validate_bundle(
    bundle: Bundle, images: ImageSet, steps: Steps, *, allow_overlap: bool
) -> dict[str, Any]:
    """Measure a bundle's accuracy and numerics against FP32; returns its merged report.

    Raises InputError when `images` overlap its calibration images.
    """
    report.check_writable(bundle)
    fp32 = bundle.reference()
    accuracy, numerics = _compare(bundle, fp32, open_session, images, steps, allow_overlap)
    here = host.describe(host.usable_cores())
    size = _size(bundle, fp32)
    return report.merge(bundle, accuracy=accuracy, numerics=numerics, size=size, host=here)


def simulate_bundle(
    bundle: Bundle, images: ImageSet | None, steps: Steps, *, allow_overlap: bool
) -> dict[str, Any]:
    """Measure what a bundle's ONNX graph loses against FP32's; returns its merged report.

    For a target that does not run here. Without `images`, on the golden ones alone.
    """
    fp32 = bundle.reference()
    accuracy = None
    if images is None:
        with simulate(bundle) as session:
            numerics = _against_golden(bundle, session)
    else:
        accuracy, numerics = _compare(bundle, fp32, simulate, images, steps, allow_overlap)
    runtime = f"onnxruntime {metadata.version('onnxruntime')}"
    found = report.Simulation(runtime=runtime, accuracy=accuracy, numerics=numerics)
    return report.merge(bundle, simulation=found, size=_size(bundle, fp32))


def _compare(
    bundle: Bundle,
    fp32: Bundle | None,
    load: Callable[[Bundle], AbstractContextManager[Session]],
    images: ImageSet,
    steps: Steps,
    allow_overlap: bool,
) -> tuple[report.Accuracy, report.Numerics]:
    """Accuracy on `images` and numerics of a bundle against FP32, both opened by `load`."""
    manifest = bundle.manifest
    calibration = manifest.quantization.calibration if manifest.quantization else None
    digests = set(calibration.image_digests) if calibration and not allow_overlap else set()
    step = f"validating {manifest.name}"

    def show(seen: int) -> None:
        steps(step, seen, len(images))

    with contextlib.ExitStack() as stack:
        session = stack.enter_context(load(bundle))
        reference = session
        if fp32 is not None and fp32 is not bundle:
            reference = stack.enter_context(load(fp32))
        accuracy, numerics = validate(
            session,
            None if fp32 is None else reference,
            images,
            manifest.model.task,
            calibration=digests,
            on_progress=show,
        )
        return accuracy, numerics or _against_golden(bundle, session)


def measure_numerics(bundle: Bundle) -> dict[str, Any]:
    """Compare a bundle with FP32 on its golden images alone; returns its merged report."""
    with open_session(bundle) as session:
        return report.merge(bundle, numerics=_against_golden(bundle, session))


def check_parity(bundle: Bundle) -> dict[str, Any]:
    """Compare a bundle with FP32 on its golden images, with no dataset; returns its merged report.

    That it computes here what it computed where it was exported says nothing of its accuracy.
    """
    report.check_writable(bundle)
    with open_session(bundle) as session:
        parity = golden_check.measure(bundle, session)
    here = host.describe(host.usable_cores())
    size = _size(bundle, bundle.reference())
    return report.merge(bundle, **_golden_sections(bundle, parity), size=size, host=here)


def _golden_sections(bundle: Bundle, parity: report.Parity) -> dict[str, report.Section]:
    """The parity, and numerics where none were measured on a dataset."""
    before = report.read(bundle.path / REPORT)
    known = before.get("numerics") if before.get("files") == bundle.model_files else None
    sections: dict[str, report.Section] = {"parity": parity}
    if parity.numerics and (not known or known["data"] == "golden"):
        sections["numerics"] = parity.numerics
    return sections


def demand_parity(measured: Sequence[Mapping[str, Any]]) -> None:
    """Raise LimitError where an artifact does not compute here what it is."""
    for one in measured:
        if broken := one.get("parity", {}).get("broken"):
            raise LimitError(
                f"{one['artifact']} does not compute on this machine what it was built for: "
                f"{broken}",
                fix="do not ship it to this machine: export it for one of its targets "
                "('vitedge doctor'), and compare the runtime's version with the manifest's",
            )


def _size(bundle: Bundle, fp32: Bundle | None) -> report.Size:
    fp32_bytes = None if fp32 is None else fp32.size_bytes
    return report.Size(bytes=bundle.size_bytes, fp32_bytes=fp32_bytes)


def _against_golden(bundle: Bundle, session: Session) -> report.Numerics:
    golden = bundle.golden()
    error = OutputError()
    error.update(golden.outputs, predict_all(session, golden.images))
    return error.result("golden")


def has_own_images(bundle: Bundle) -> bool:
    """Whether a bundle can be validated with no data given, as the embedded references can."""
    return bundle.manifest.model.source in EMBEDDED


def evaluation_images(bundle: Bundle, data: str) -> ImageSet:
    """Open images to evaluate `bundle` on; an embedded reference has its own by default.

    Raises InputError when they do not fit, or the bundle's accuracy is not measurable.
    """
    manifest = bundle.manifest
    if manifest.accuracy == "not measurable":
        raise InputError(
            f"the accuracy of {bundle.path} is not measurable: {manifest.accuracy_note}",
            fix="export it with real weights and calibration images",
        )
    source = manifest.model.source
    if not data and source not in EMBEDDED:
        raise InputError("no images to validate on", fix="pass --data FOLDER or --data FILE.npz")
    host_part = manifest.preprocessing.host
    task = manifest.model.task
    return open_images(data or source, "evaluation", host_part, bundle.labels(), task)


def bench_bundles(
    bundles: Sequence[Bundle],
    steps: Steps,
    *,
    against: str = "fp32",
    duration_s: float,
    batch: int | None = None,
    threads: int = 0,
    others: Mapping[str, Session] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, bench.Latency]]:
    """Time bundles as `time_bundles` does, measure their memory, and recommend a precision again.

    Returns the merged report of each bundle, and the latency of each of `others`.
    """
    extras = time_bundles(
        bundles,
        steps,
        against=against,
        duration_s=duration_s,
        batch=batch,
        threads=threads,
        others=others,
    )
    for bundle in bundles:
        steps.say(f"measuring the memory of {bundle.manifest.name}")
        report.merge(bundle, memory=report.Memory(peak_rss_bytes=peak_rss_bytes(bundle.path)))
    return recommend_among(bundles), extras


def recommend_among(
    bundles: Sequence[Bundle], max_drop_pp: float | None = None
) -> list[dict[str, Any]]:
    """Write which precision to ship into the reports of bundles that were just timed together.

    A model on a target gets one recommendation, from its reports; none, and an older one goes,
    where nothing was compared with FP32. Without `max_drop_pp` the loss allowed before is
    allowed again. Returns the merged report of each bundle.
    """
    models: defaultdict[Path, list[Bundle]] = defaultdict(list)
    for bundle in bundles:
        path, reference = bundle.path.resolve(), bundle.manifest.reference
        models[path.with_name(reference.bundle) if reference else path].append(bundle)
    merged = {}
    for group in models.values():
        measured = [report.read(bundle.path / REPORT) for bundle in group]
        before = [each["recommendation"] for each in measured if "recommendation" in each]
        limit = max_drop_pp
        if limit is None:
            limit = before[0]["max_drop_pp"] if before else recommend.MAX_DROP_PP
        chosen = recommend.recommend(recommend.candidates(measured), limit)
        for bundle in group:
            merged[bundle.path] = report.merge(bundle, recommendation=chosen)
    return [merged[bundle.path] for bundle in bundles]


def time_bundles(
    bundles: Sequence[Bundle],
    steps: Steps,
    *,
    against: str = "fp32",
    duration_s: float,
    batch: int | None = None,
    threads: int = 0,
    others: Mapping[str, Session] | None = None,
) -> dict[str, bench.Latency]:
    """Time every bundle in turn, in one run, with what it is compared against.

    `against` is `fp32`, each bundle's own FP32 bundle where that is at hand, or the path of
    another artifact. `others` are further sessions to time in the same run, by name. Writes the
    reports, and returns the latency of each of `others`.
    """
    for bundle in bundles:
        report.check_writable(bundle)
    rival = None if against == "fp32" else open_bundle(Path(against))
    cores = threads or host.usable_cores()
    with contextlib.ExitStack() as stack:
        stack.enter_context(alone(steps.note))
        sessions: dict[Path, Session] = {}
        feeds = []

        def load(bundle: Bundle) -> int:
            """Open a bundle once; returns its place in the run."""
            path = bundle.path.resolve()
            if path not in sessions:
                steps.say(f"loading {bundle.manifest.name}")
                sessions[path] = stack.enter_context(open_session(bundle, threads))
                feeds.append(_feed(bundle, sessions[path], batch))
            return list(sessions).index(path)

        pairs = []
        for bundle in bundles:
            other = rival or bundle.reference()
            if other is not None and other.path.resolve() == bundle.path.resolve():
                other = None
            pairs.append((load(bundle), None if other is None else load(other)))
        extra = dict(others or {})
        image = next(iter(feeds[0].values()))
        feeds += [{session.inputs[0].name: image} for session in extra.values()]
        timed = bench.measure(
            [*sessions.values(), *extra.values()],
            feeds,
            duration_s,
            on_progress=lambda done: steps("timing in turn", done, 1.0),
        )
        parities = [
            golden_check.measure(bundle, sessions[bundle.path.resolve()]) for bundle in bundles
        ]
    for bundle, parity, (mine, its) in zip(bundles, parities, pairs, strict=True):
        fp32 = bundle.reference()
        speedup = interval = rival_timing = None
        if its is not None:
            speedup, interval = timed.speedup(mine, its)
            rival_timing = report.Timing(**asdict(timed.latencies[its]))
        sections: dict[str, report.Section] = {
            "latency": report.Latency(
                **asdict(timed.latencies[mine]),
                batch=len(next(iter(feeds[mine].values()))),
                against=None if its is None else against,
                fp32=rival_timing if rival is None else None,
                other=rival_timing if rival is not None else None,
                speedup=speedup,
                speedup_ci=interval,
            ),
            "size": _size(bundle, fp32),
            "host": host.describe(cores),
        }
        report.merge(bundle, **sections, **_golden_sections(bundle, parity))
    return dict(zip(extra, timed.latencies[len(sessions) :], strict=True))


def time_in_turn(bundles: Sequence[Bundle], steps: Steps, *, duration_s: float) -> bench.Comparison:
    """Time bundles in turn on their golden images, `duration_s` seconds each; writes nothing."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(alone(steps.note))
        sessions = [stack.enter_context(open_session(bundle)) for bundle in bundles]
        feeds = [_feed(bundle, sess, None) for bundle, sess in zip(bundles, sessions, strict=True)]
        return bench.measure(
            sessions,
            feeds,
            duration_s,
            on_progress=lambda done: steps("timing in turn", done, 1.0),
        )


def _feed(bundle: Bundle, session: Session, batch: int | None) -> dict[str, Any]:
    """The golden images, as many as one run takes."""
    fixed = session.inputs[0].shape[0]
    if fixed and batch not in (None, fixed):
        raise InputError(
            f"{bundle.path} is fixed at batch {fixed}, not {batch}",
            fix=f"drop --batch, or export with --batch {batch} or --batch dynamic",
        )
    count = fixed or batch or 1
    images = bundle.golden().images
    repeats = -(-count // len(images))
    return {session.inputs[0].name: np.concatenate([images] * repeats)[:count]}
