"""The steps that show what is refused: each artifact is spoiled in one way, and has to say so."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from vitedge.core.bundle import MANIFEST, Bundle, seal
from vitedge.core.errors import InputError, LimitError, UnavailableError, VitedgeError
from vitedge.core.runtime import Occupiable, runtime_of
from vitedge.core.spec import Target
from vitedge.export.selftest.subjects import Subject
from vitedge.export.selftest.work import Outcome, Work
from vitedge.runtimes import open_session

REFUSED = (InputError.exit_code, UnavailableError.exit_code)
LIMIT_S = 120.0


def other_machine(work: Work, subject: Subject) -> Outcome:
    """An artifact of another machine or GPU."""
    target = work.bundle(subject).manifest.target
    field = "compute_capabilities" if runtime_of(target).processor == "gpu" else "machines"
    other = ("99.0",) if field == "compute_capabilities" else ("another",)
    with _resealed(work.bundle(subject), **{field: other}) as folder:
        return _refused(work, folder)


def other_version(work: Work, subject: Subject) -> Outcome:
    """An artifact of another version of its runtime."""
    with _resealed(work.bundle(subject), versions=("0.0.1", "0.0.2")) as folder:
        return _refused(work, folder)


def damaged(work: Work, subject: Subject) -> Outcome:
    """A model or an engine that was cut off before it was sealed: the runtime has to refuse it."""
    bundle = work.bundle(subject)
    with _copied(bundle) as folder:
        _largest(bundle, folder).write_bytes(_largest(bundle, folder).read_bytes()[:-1000][::2])
        seal(folder, bundle.manifest)
        return _refused(work, folder)


def changed(work: Work, subject: Subject) -> Outcome:
    """One byte that is another than the manifest says."""
    bundle = work.bundle(subject)
    with _copied(bundle) as folder:
        file = _largest(bundle, folder)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        return _refused(work, folder)


def batch_outside(work: Work, subject: Subject) -> Outcome:
    """More images in a run than the artifact takes. Raises LimitError where they are run."""
    bundle = work.bundle(subject)
    with open_session(bundle) as session:
        spec = session.inputs[0]
        most = spec.shape[0] or bundle.manifest.target.compile.max_batch
        if spec.shape[0] is None and runtime_of(bundle.manifest.target).processor == "cpu":
            return Outcome("it takes any batch")
        shape = (most + 1, *(size or 1 for size in spec.shape[1:]))
        try:
            session.run({spec.name: np.zeros(shape, spec.dtype)})
        except VitedgeError as error:
            return Outcome(_first_line(error.what))
    raise LimitError(f"{subject.title}: it ran {most + 1} images, and takes {most}")


def too_little_memory(work: Work, subject: Subject) -> Outcome:
    """The device's memory taken by somebody else. Raises LimitError where it opens all the same."""
    bundle = work.bundle(subject)
    runtime = runtime_of(bundle.manifest.target)
    assert isinstance(runtime, Occupiable)  # else it is not a step that can run
    with runtime.occupied():
        return _refused(work, bundle.path)


def _refused(work: Work, folder: Path) -> Outcome:
    """What a process of its own says that opens and runs the artifact; it has to refuse.

    Raises LimitError where it runs it, is killed, or ends in anything but a message.
    """
    command = [sys.executable, "-m", "vitedge.measure.latency.cold_start", str(folder), "0"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        raise LimitError(f"it has not ended within {LIMIT_S:g} s") from None
    what = done.stdout.strip()
    work.steps.note(f"exit {done.returncode}: {what}\n{done.stderr}".rstrip())
    if done.returncode in REFUSED and what and not what.startswith("{"):
        return Outcome(_first_line(what.replace(str(folder), folder.name)))
    if done.returncode == 0:
        raise LimitError("it was opened and run, where it has to be refused")
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    raise LimitError(f"it ended with exit code {done.returncode} and no message: {last}")


def _first_line(text: str) -> str:
    return text.splitlines()[0][:300]


def _largest(bundle: Bundle, folder: Path) -> Path:
    """The largest file that the runtime loads."""
    names = runtime_of(bundle.manifest.target).files(bundle.manifest)
    return folder / max(names, key=lambda name: bundle.manifest.sizes[name])


@contextmanager
def _copied(bundle: Bundle) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vitedge-") as parent:
        folder = Path(parent) / bundle.manifest.name
        folder.mkdir()
        for name in (*bundle.manifest.files, MANIFEST):
            shutil.copy2(bundle.checked / name, folder / name)
        yield folder


@contextmanager
def _resealed(bundle: Bundle, **changes: object) -> Iterator[Path]:
    """A copy whose target is another."""
    with _copied(bundle) as folder:
        target: Target = msgspec.structs.replace(bundle.manifest.target, **changes)
        seal(folder, msgspec.structs.replace(bundle.manifest, target=target))
        yield folder
