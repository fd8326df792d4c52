"""A graph run on many batches: two at a time, and nothing else changes."""

import numpy as np
import pytest

from vitedge.graph.run import Runner

pytest.importorskip("torch")


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_each_batch_comes_in_order_with_the_outputs_of_its_own_run(digits_graph, held_out, count):
    path = digits_graph(1).path
    run = Runner(path)
    seen = 0
    batches = (held_out.images[i : i + 1] for i in range(count))
    for batch, outputs in Runner(path, often=True).stream(batches):
        assert batch.tobytes() == held_out.images[seen : seen + 1].tobytes()
        np.testing.assert_allclose(outputs[0], run(batch)[0], rtol=0, atol=1e-5)
        seen += 1
    assert seen == count


def test_no_more_batches_are_taken_than_run_at_a_time(digits_graph, held_out):
    started = 0

    def batches():
        nonlocal started
        for i in range(20):
            started += 1
            yield held_out.images[i : i + 1]

    for seen, _ in enumerate(Runner(digits_graph(1).path, often=True).stream(batches())):
        assert started <= seen + 2


def test_a_run_that_fails_is_an_error(digits_graph, held_out):
    run = Runner(digits_graph(4).path, often=True)
    with pytest.raises(Exception, match=r"(?i)invalid dimensions"):
        list(run.stream(iter([held_out.images[:4], held_out.images[:3]])))
