"""Timing compares real ONNX Runtime sessions; no test here looks at an absolute time."""

import gc
from itertools import groupby, pairwise

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from vitedge.core.errors import InputError
from vitedge.core.runtime import TensorSpec
from vitedge.measure.latency.clock import measure, rounds_for
from vitedge.measure.latency.summary import summarize

WIDTH = 128


class OrtSession:
    """ONNX Runtime on one thread, as little as a Session can be."""

    inputs = (TensorSpec("x", (WIDTH, WIDTH), "float32"),)
    outputs = (TensorSpec("y", (WIDTH, WIDTH), "float32"),)

    def __init__(self, matmuls):
        weight = numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32), "w")
        names = ["x", *(f"h{i}" for i in range(matmuls - 1)), "y"]
        nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in pairwise(names)]
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [WIDTH, WIDTH]) for n in "xy"]
        graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.order = []
        """Appended to at each run; share one list to record the order of several sessions."""
        self.gc_enabled = []

    def run(self, feed):
        self.order.append(self)
        self.gc_enabled.append(gc.isenabled())
        return {"y": np.asarray(self._session.run(["y"], dict(feed))[0])}


@pytest.fixture
def feed():
    return {"x": np.ones((WIDTH, WIDTH), dtype=np.float32)}


def test_four_times_the_work_is_slower_beyond_doubt(feed):
    comparison = measure([OrtSession(4), OrtSession(16)], [feed, feed], 0.3)
    small, large = comparison.latencies
    assert small.p50_ms < large.p50_ms
    speedup, (low, high) = comparison.speedup(artifact=0, reference=1)
    assert speedup == large.p50_ms / small.p50_ms
    assert 1 < low < speedup < high
    inverse, (inverse_low, inverse_high) = comparison.speedup(artifact=1, reference=0)
    assert inverse == pytest.approx(1 / speedup)
    assert inverse_low < inverse_high < 1


def test_a_model_is_no_faster_than_itself(feed):
    comparison = measure([OrtSession(8), OrtSession(8)], [feed, feed], 0.3)
    _, (low, high) = comparison.speedup(artifact=0, reference=1)
    assert low < 1.1 and high > 0.9  # no real gain found; a decided 10% would be a false alarm
    assert comparison.speedup(artifact=0, reference=0) == (1, (1, 1))


def test_one_session_alone(feed):
    comparison = measure([OrtSession(4)], [feed], 0.1)
    (latency,), (rounds,) = comparison.latencies, comparison.rounds
    assert len(rounds) >= 10
    assert latency == summarize(rounds)
    assert latency.n == rounds.size


def test_every_round_times_every_session_and_the_order_rotates(feed):
    order = []
    sessions = [OrtSession(4), OrtSession(6), OrtSession(8)]
    for session in sessions:
        session.order = order
    comparison = measure(sessions, [feed] * 3, 0.1)
    counts = {len(rounds) for rounds in comparison.rounds}
    assert len(counts) == 1 and counts.pop() >= 10
    turns = [sessions.index(session) for session, _ in groupby(order)]
    warm_up, timed = turns[:3], turns[3:15]
    assert warm_up == [0, 1, 2]
    assert timed == [0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2]


def test_a_slow_session_gets_few_rounds_and_an_honest_n(feed):
    slow = OrtSession(600)
    comparison = measure([slow, slow], [feed, feed], 1e-4)
    assert [rounds.shape for rounds in comparison.rounds] == [(3, 1), (3, 1)]
    assert comparison.latencies[0].n == 3
    speedup, (low, high) = comparison.speedup(artifact=0, reference=1)
    assert low <= speedup <= high


def test_progress_rises_to_one(feed):
    seen = []
    measure([OrtSession(4), OrtSession(4)], [feed, feed], 0.1, on_progress=seen.append)
    assert seen == sorted(seen)
    assert 0 < seen[0] < seen[-1] == 1


def test_garbage_collection_is_off_while_timing_and_as_before_after(feed):
    session = OrtSession(4)
    measure([session], [feed], 0.05)
    assert gc.isenabled()
    assert not any(session.gc_enabled)
    gc.disable()
    try:
        measure([session], [feed], 0.05)
        assert not gc.isenabled()
    finally:
        gc.enable()
    with pytest.raises(ValueError, match="x"):  # ONNX Runtime: missing input
        measure([session], [{}], 0.05)
    assert gc.isenabled()


@pytest.mark.parametrize("duration_s", [0, -1, float("nan")])
def test_duration_must_be_positive(feed, duration_s):
    with pytest.raises(InputError):
        measure([OrtSession(4)], [feed], duration_s)


@pytest.mark.parametrize(
    ("n", "p90", "p99"),
    [
        (1, False, False),
        (63, False, False),
        (64, True, False),
        (661, True, False),
        (662, True, True),
    ],
)
def test_percentiles_wait_for_enough_runs(n, p90, p99):
    latency = summarize(np.arange(n))
    assert (latency.p90_ms is not None, latency.p99_ms is not None) == (p90, p99)
    assert latency.p50_ms == latency.mean_ms == (n - 1) / 2
    assert latency.n == n


def test_percentiles_are_of_the_slow_end():
    latency = summarize(np.arange(1001).reshape(7, 143))
    assert (latency.p50_ms, latency.p90_ms, latency.p99_ms) == (500, 900, 990)


def test_nothing_to_summarize():
    with pytest.raises(InputError):
        summarize([])


def test_rounds_know_when_they_began(feed):
    comparison = measure([OrtSession(4), OrtSession(8)], [feed, feed], 0.1)
    for starts_s, rounds in zip(comparison.starts_s, comparison.rounds, strict=True):
        assert len(starts_s) == len(rounds)
        ended_s = starts_s + rounds.sum(axis=1) / 1e3
        assert starts_s[0] >= 0 and np.all(ended_s[:-1] <= starts_s[1:])


@pytest.mark.parametrize(("duration_s", "least", "rounds"), [(1e-9, 1, 1), (1e-9, 4, 4)])
def test_rounds_go_on_until_there_are_enough(duration_s, least, rounds):
    done = []
    assert list(rounds_for(duration_s, least, done.append)) == list(range(rounds))
    assert done == [(number + 1) / least for number in range(rounds)]


def test_rounds_go_on_until_the_time_is_over():
    done = []
    numbers = list(rounds_for(0.01, 2, done.append))
    assert len(numbers) > 2 and done == sorted(done) and done[-1] == 1
