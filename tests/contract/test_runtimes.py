"""One suite for every runtime: whatever is registered must lower, open and run like the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.support.ptq import ptq
from vitedge.core import catalog
from vitedge.core.errors import UnavailableError
from vitedge.core.machine import describe_machine
from vitedge.core.progress import SILENT
from vitedge.core.runtime import VerifiedFiles, is_ours, runtime_of, runtimes
from vitedge.core.spec import Batch as BatchSize
from vitedge.core.spec import Target
from vitedge.measure.accuracy.validation import predict_all

BATCHES = (1, 4, "dynamic")
IMAGES = 64
SQNR_DB, DROP_PP = 33.0, 0.3


@dataclass(frozen=True)
class Built:
    """A model built for one runtime."""

    folder: Path
    target: Target

    def open(self, threads=2):
        target = msgspec.structs.replace(self.target, threads=threads)
        names = tuple(path.name for path in self.folder.glob("model.*"))
        return runtime_of(target).open(VerifiedFiles(self.folder, names), target)


Build = Callable[[BatchSize, str], Built]


@pytest.fixture(scope="module", params=runtimes())
def build(request, tmp_path_factory, digits_graph, calibration_batches):
    """Build `digits` on one runtime, once for each batch size and precision."""
    import onnx

    machine = describe_machine(threads=0)
    try:
        target = catalog.find_target(request.param, machine)
    except UnavailableError as error:
        pytest.skip(error.what)
    if needs := catalog.lacks(target, machine):
        pytest.skip(f"{target.name} needs {needs}")
    builds = {}
    recipe = msgspec.structs.replace(catalog.calibrations()["default"], num_samples=64)

    def build(batch, precision):
        if (batch, precision) not in builds:
            model = digits_graph(batch).path
            folder = tmp_path_factory.mktemp(f"{request.param}-{batch}-{precision}")
            if precision == "int8":
                size = 1 if batch == "dynamic" else batch
                images = calibration_batches(recipe.num_samples, size)
                dialect = target.quantization
                proto, _ = ptq(model, images, recipe, dialect)
                model = folder / "qdq.onnx"
                onnx.save(proto, model)
            runtimes()[request.param].lower(model, target, folder, SILENT)
            builds[batch, precision] = Built(folder, target)
        return builds[batch, precision]

    return build


@pytest.fixture(params=BATCHES, ids=lambda batch: f"batch-{batch}")
def batch(request):
    return request.param


@pytest.fixture(params=("fp32", "int8"))
def built(request, build, batch):
    return build(batch, request.param)


@pytest.fixture
def session(built):
    with built.open() as session:
        yield session


def test_a_run_gives_one_row_of_logits_for_each_image(session, batch, held_out):
    lead = None if batch == "dynamic" else batch
    assert session.inputs == (("image", (lead, 32, 32, 3), "uint8"),)
    assert session.outputs == (("logits", (lead, 10), "float32"),)
    for count in (1, 2, 5) if batch == "dynamic" else (batch,):
        outputs = session.run({"image": held_out.images[:count]})
        assert list(outputs) == ["logits"]
        assert (outputs["logits"].shape, outputs["logits"].dtype) == ((count, 10), np.float32)
        assert (outputs["logits"].argmax(axis=1) == held_out.labels[:count]).all()


def test_a_run_changes_neither_its_images_nor_the_result_before(session, held_out):
    size = session.inputs[0].shape[0] or 3
    images = held_out.images[:size].copy()
    first = session.run({"image": images})["logits"]
    kept = first.copy()
    second = session.run({"image": held_out.images[-size:]})["logits"]
    np.testing.assert_array_equal(images, held_out.images[:size])
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(first, second)


def test_images_that_are_not_contiguous_give_the_same_logits(session, held_out):
    size = session.inputs[0].shape[0] or 3
    every_other = held_out.images[: 2 * size : 2]
    mirrored = held_out.images[:size, :, ::-1]
    for view in (every_other, mirrored):
        expected = session.run({"image": np.ascontiguousarray(view)})["logits"]
        np.testing.assert_array_equal(session.run({"image": view})["logits"], expected)


def test_one_thread_gives_the_result_of_two(built, session, held_out):
    images = held_out.images[:8]
    with built.open(threads=1) as single:
        got = predict_all(single, images)
    np.testing.assert_allclose(got, predict_all(session, images), rtol=0, atol=1e-4)


def busy_ns():
    """CPU time of every thread of this process."""
    tasks = Path("/proc/self/task").iterdir()
    return Counter({task.name: int((task / "schedstat").read_text().split()[0]) for task in tasks})


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs Linux's counters")
def test_one_thread_asked_for_is_one_thread_that_works(build, held_out):
    built = build("dynamic", "fp32")
    if runtime_of(built.target).processor == "browser":
        pytest.skip("a browser's threads are not of this process")
    feed = {"image": held_out.images[:128]}
    with built.open(threads=1) as session:
        session.run(feed)
        before = busy_ns()
        for _ in range(5):
            session.run(feed)
        spent = busy_ns() - before
    assert max(spent.values()) > 0.9 * spent.total()


@pytest.fixture(scope="module")
def torch_logits(held_out):
    """Of the first IMAGES of `held_out`."""
    from vitedge.models.eager import EagerSession
    from vitedge.models.sources import ModelRequest, resolve

    images = held_out.images[:IMAGES]
    return EagerSession(resolve(ModelRequest()), 2).run({"image": images})["logits"]


def test_fp32_computes_what_torch_does(build, batch, held_out, torch_logits):
    images = held_out.images[:IMAGES]
    with build(batch, "fp32").open() as session:
        got = predict_all(session, images)
    error = np.abs(got - torch_logits).max() / np.abs(torch_logits).max()
    assert error <= 1e-4


def test_int8_stays_close_to_fp32_on_the_held_out_digits(build, batch, held_out, sqnr_db):
    count = 719 if batch == "dynamic" else IMAGES  # one at a time takes long
    logits = {}
    for precision in ("fp32", "int8"):
        with build(batch, precision).open() as session:
            logits[precision] = predict_all(session, held_out.images[:count])
    assert sqnr_db(logits["fp32"], logits["int8"]) >= SQNR_DB
    top1 = {p: (v.argmax(axis=1) == held_out.labels[:count]).mean() for p, v in logits.items()}
    assert 100 * (top1["fp32"] - top1["int8"]) <= DROP_PP
    assert not np.array_equal(logits["fp32"], logits["int8"])


def test_two_sessions_at_once_do_not_mix_their_results(built, held_out):
    halves = np.split(held_out.images[:IMAGES], 2)
    with built.open(threads=1) as first, built.open(threads=1) as second:
        expected = [predict_all(first, half) for half in halves]
        with ThreadPoolExecutor(2) as pool:
            for _ in range(5):
                got = list(pool.map(predict_all, (first, second), halves))
                for concurrent, separate in zip(got, expected, strict=True):
                    np.testing.assert_array_equal(concurrent, separate)


def test_every_runtime_of_ours_has_a_shipped_target():
    assert {target.runtime for target in catalog.targets().values()} == {
        name for name, runtime in runtimes().items() if is_ours(runtime)
    }
