"""Prove a bundle on this machine: accuracy and numerics against FP32."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from vitedge.core import report
from vitedge.core.bundle import Bundle
from vitedge.core.errors import InputError, UnavailableError
from vitedge.core.host import Host
from vitedge.core.machine import describe_machine, usable_cores
from vitedge.core.progress import Steps
from vitedge.core.report import Accuracy, Numerics, Report, Simulation
from vitedge.core.runtime import Session
from vitedge.data.imageset import ImageSet
from vitedge.data.open import Source, open_images
from vitedge.measure.accuracy import evidence, reference
from vitedge.measure.accuracy.metrics import check_installed
from vitedge.measure.accuracy.parity import against_golden
from vitedge.measure.accuracy.share import WHOLE, Share
from vitedge.measure.accuracy.tally import Tally
from vitedge.measure.accuracy.validation import batch_size, compare, run_all, validate
from vitedge.models.zoo import OWN_DATA
from vitedge.runtimes import SIMULATOR, open_session, simulate, without_bf16

Load = Callable[[Bundle], AbstractContextManager[Session]]


def validate_bundle(
    bundle: Bundle,
    images: ImageSet,
    steps: Steps,
    *,
    allow_overlap: bool,
    labelled: bool = True,
    threads: int = 0,
) -> Report:
    """Measure a bundle's accuracy and numerics against FP32; returns its merged report.

    `labelled`: whether `images` have the labels that accuracy takes. `threads`: of inference; 0:
    every core this process may use.
    Raises InputError when `images` overlap its calibration images, UnavailableError where this
    CPU lacks its BF16, LimitError where FP32 does not give its own golden outputs.
    """
    report.check_writable(bundle)
    check_precision(bundle)
    fp32 = bundle.reference()
    load = partial(open_session, threads=threads)
    validation = _compare(bundle, fp32, load, images, steps, allow_overlap, labelled)
    machine = report.host_of(bundle, describe_machine(usable_cores()))
    return record(bundle, validation, machine)


def record(
    bundle: Bundle,
    validation: tuple[Accuracy | None, Numerics, evidence.PerImage | None],
    machine: Host,
) -> Report:
    """Put a validation into the bundle, its evidence beside its report; returns that, merged."""
    accuracy, numerics, per_image = validation
    if accuracy and per_image:
        evidence.write(bundle, accuracy.metric, accuracy.data, per_image)
    measured = Report(
        **report.identity(bundle),
        accuracy=accuracy,
        numerics=numerics,
        size=report.size(bundle, bundle.reference()),
        host=machine,
    )
    return report.merge(bundle, measured)


def check_precision(bundle: Bundle) -> None:
    """Raise UnavailableError where this CPU lacks the BF16 that the bundle computes in."""
    if needs := without_bf16(bundle):
        raise UnavailableError(
            f"{bundle.path} computes its floats in FP32 here, for want of {needs}: what is "
            "measured would not be its own",
            fix="validate it on a CPU that has it; its report says what its export simulated",
        )


def simulate_bundle(
    bundle: Bundle,
    graphs: Mapping[Path, Path],
    images: ImageSet | None,
    steps: Steps,
    *,
    allow_overlap: bool,
    labelled: bool,
) -> Report:
    """Measure what a bundle's ONNX graph loses against FP32's; returns its merged report.

    For a target that does not run here. `graphs` are the ONNX files of it and FP32's, by their
    resolved paths. Without `images`, on the golden ones alone; `labelled`: as above.
    """
    fp32 = bundle.reference()
    accuracy = None

    def load(simulated: Bundle) -> AbstractContextManager[Session]:
        return simulate(simulated, graphs[simulated.path.resolve()])

    if images is None:
        reference.raise_for(reference.fault_here(bundle, load))
        with load(bundle) as session:
            numerics = _against_golden(bundle, session)
    else:
        accuracy, numerics, _ = _compare(bundle, fp32, load, images, steps, allow_overlap, labelled)
    runtime = f"{SIMULATOR.name} {describe_machine(threads=0).runtimes[SIMULATOR.name]}"
    if bundle.manifest.computes_bf16:
        runtime += ", float results rounded to BF16"
    measured = Report(
        **report.identity(bundle),
        simulation=Simulation(runtime=runtime, accuracy=accuracy, numerics=numerics),
        size=report.size(bundle, fp32),
    )
    return report.merge(bundle, measured)


def _compare(
    bundle: Bundle,
    fp32: Bundle | None,
    load: Load,
    images: ImageSet,
    steps: Steps,
    allow_overlap: bool,
    labelled: bool,
) -> tuple[Accuracy | None, Numerics, evidence.PerImage | None]:
    """Accuracy on `images` and numerics of a bundle against FP32, both opened by `load`.

    Of images that are not `labelled`, numerics alone.
    """
    if labelled:
        tally, golden = tally_bundle(bundle, fp32, load, images, steps, allow_overlap=allow_overlap)
        return finished(tally, golden, images.name, images.skipped)
    manifest = bundle.manifest
    with _sessions(bundle, fp32, load) as (session, baseline):
        numerics = compare(
            session,
            baseline,
            images,
            manifest.model.task,
            calibration=_calibration(bundle, allow_overlap),
            orders=manifest.orders,
            detection=manifest.model.detection,
            on_progress=partial(steps, f"validating {manifest.name}", total=len(images)),
        )
    return None, numerics, None


def tally_bundle(
    bundle: Bundle,
    fp32: Bundle | None,
    load: Load,
    images: ImageSet,
    steps: Steps,
    *,
    allow_overlap: bool,
    share: Share = WHOLE,
) -> tuple[Tally, Numerics | None]:
    """What a share of `images` came to; without FP32, the error on the golden ones, too."""
    manifest = bundle.manifest
    with _sessions(bundle, fp32, load) as (session, baseline):
        span = share.span(len(images), batch_size(session))
        tally = validate(
            session,
            None if fp32 is None else baseline,
            images,
            manifest.model.task,
            span=span,
            calibration=_calibration(bundle, allow_overlap),
            orders=manifest.orders,
            detection=manifest.model.detection,
            on_progress=partial(steps, f"validating {manifest.name}", total=len(span)),
        )
        return tally, _against_golden(bundle, session) if fp32 is None else None


def finished(
    tally: Tally, golden: Numerics | None, data: str, skipped: Mapping[str, int]
) -> tuple[Accuracy, Numerics, evidence.PerImage]:
    """The figures of images called `data`."""
    accuracy, numerics, per_image = tally.result(data, skipped)
    numerics = numerics or golden
    assert numerics is not None
    return accuracy, numerics, per_image


@contextlib.contextmanager
def _sessions(bundle: Bundle, fp32: Bundle | None, load: Load) -> Iterator[tuple[Session, Session]]:
    """The bundle's session and FP32's, which gives its own golden outputs; the same one twice where
    there is no other."""
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(load(bundle))
        baseline = session
        if fp32 is not None:
            if fp32 is not bundle:
                baseline = stack.enter_context(load(fp32))
            reference.check(bundle, fp32, baseline)
        yield session, baseline


def _calibration(bundle: Bundle, allow_overlap: bool) -> frozenset[str]:
    """Digests of the images that it must not be evaluated on."""
    quantization = bundle.manifest.quantization
    calibration = quantization.calibration if quantization else None
    return frozenset(calibration.image_digests if calibration and not allow_overlap else ())


def measure_numerics(bundle: Bundle, fp32: Bundle) -> Report:
    """Compare a bundle with FP32 on its golden images alone; returns its merged report."""
    with open_session(bundle) as session:
        numerics = _against_golden(bundle, session)
    size = report.size(bundle, fp32)
    return report.merge(bundle, Report(**report.identity(bundle), numerics=numerics, size=size))


def _against_golden(bundle: Bundle, session: Session) -> Numerics:
    golden = bundle.golden()
    names, model = [spec.name for spec in session.outputs], bundle.manifest.model
    outputs = dict(zip(names, run_all(session, golden.images), strict=True))
    return against_golden(golden, outputs, model.task, bundle.manifest.orders, model.detection)


def has_own_images(bundle: Bundle) -> bool:
    """Whether a bundle can be validated with no data given, as the embedded references can."""
    return bundle.manifest.model.source in OWN_DATA


def evaluation_images(bundle: Bundle, data: Source) -> ImageSet:
    """Open images to evaluate `bundle` on; an embedded reference has its own by default.

    Raises InputError when they do not fit, or the bundle's accuracy is not measurable.
    """
    manifest = bundle.manifest
    if manifest.accuracy == "not measurable":
        raise InputError(
            f"the accuracy of {bundle.path} is not measurable: {manifest.accuracy_note}",
            fix="export it with real weights and calibration images",
        )
    own = OWN_DATA.get(manifest.model.source, "")
    if not (data or own):
        raise InputError("no images to validate on", fix="pass `data=FOLDER` or `data=FILE.npz`")
    host_part = manifest.preprocessing.host
    task = manifest.model.task
    check_installed(task)
    return open_images(data or own, "evaluation", host_part, bundle.labels(), task)
