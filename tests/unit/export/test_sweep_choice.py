"""Which trial to ship: exact enough, then fast; of one model, one target and like hosts."""

import msgspec
import pytest

from vitedge.core.cpu import Clocking
from vitedge.core.host import Host
from vitedge.core.measurements import Distribution, Latency
from vitedge.core.report import SCHEMA, Accuracy, Report, Size
from vitedge.export.sweep.choice import groups, shipped, with_front
from vitedge.export.sweep.row import Row

HOST = Host(
    cpu="a CPU",
    isa=("avx2",),
    accelerator=None,
    os="",
    python="3.11",
    runtimes={"onnxruntime": "1"},
    threads=1,
    cores=1,
    memory_bytes=None,
    governor=None,
    machine="x86_64",
    gpus=(),
    clocking=Clocking(),
    cpu_quota=None,
    memory_limit_bytes=None,
    container=None,
)


def row(name, p50_ms=None, drop_pp=0.0, precision="int8", cpu="a CPU", size=100):
    accuracy = Accuracy(
        metric="top1",
        fp32=0.9,
        artifact=0.9 - drop_pp / 100,
        drop_pp=drop_pp,
        drop_ci_pp=(drop_pp - 0.1, drop_pp + 0.1),
        confidence=0.95,
        agreement=None,
        also={},
        n=100,
        data="d",
        skipped={},
        lost=None,
        gained=None,
    )
    latency = p50_ms and Latency(
        p50_ms=p50_ms,
        p90_ms=None,
        p99_ms=None,
        mean_ms=p50_ms,
        n=10,
        distribution=Distribution(quantiles_ms=(p50_ms,) * 101, series=()),
        batch=1,
        against=None,
        fp32=None,
        other=None,
        rounds=3,
        speedup_log_se=0.01,
        p90_share_se=0.1,
        speedup=8.0 / p50_ms,
        speedup_ci=(1.0, 1.0),
    )
    report = Report(
        schema=SCHEMA,
        artifact=name,
        model="m",
        target="t",
        precision=precision,
        files={},
        accuracy=accuracy,
        latency=latency,
        size=Size(bytes=size, fp32_bytes=400),
        host=msgspec.structs.replace(HOST, cpu=cpu),
    )
    return Row(
        trial=name,
        model="m",
        target="t",
        precision=precision,
        calibration="default",
        parameters={},
        key="",
        state="done",
        report=report,
    )


def test_the_fastest_that_is_exact_enough_is_shipped():
    rows = [
        row("fp32", 8.0, 0.0, "fp32"),
        row("fast", 2.0, 3.0),
        row("good", 4.0, 0.2),
        row("slow", 5.0, 0.1),
    ]
    (ship,) = shipped(rows, 0.5)
    assert ship.trial == "good" and "4 ms, 2.00× FP32's speed" in ship.reason
    assert "loses 0.20 points (+0.10 to +0.30)" in ship.reason and "3 are exact" in ship.reason
    (ship,) = shipped(rows[1:2], 0.5)
    assert ship.trial is None and "fast" in ship.reason


def test_of_equally_fast_ones_the_more_exact_is():
    rows = [row("rough", 4.00, 0.4), row("fine", 4.05, 0.1)]
    (ship,) = shipped(rows, 0.5)
    assert ship.trial == "fine" and "of 2 within 3% the most exact" in ship.reason


def test_hosts_are_not_compared():
    rows = [row("here", 9.0, 0.1), row("there", 1.0, 0.2, cpu="another")]
    assert len(groups(rows)) == 2
    assert [ship.trial for ship in shipped(rows, 0.5)] == ["here", "there"]
    assert all(marked.front for marked in with_front(rows))


def test_the_front_is_what_none_beats():
    rows = [row("a", 1.0, 1.0), row("b", 2.0, 0.5), row("c", 3.0, 0.7), row("d", 4.0, 0.0)]
    assert [marked.trial for marked in with_front(rows) if marked.front] == ["a", "b", "d"]


def test_without_timing_the_smallest_is_shipped():
    rows = [row("large", None, 0.1, size=200), row("small", None, 0.2, size=100)]
    (ship,) = shipped(rows, 0.5)
    assert ship.trial == "small" and "none was timed" in ship.reason


@pytest.mark.parametrize("state", ["failed", "built"])
def test_what_is_not_done_takes_no_part(state):
    assert not shipped([msgspec.structs.replace(row("a", 1.0), state=state)], 0.5)
