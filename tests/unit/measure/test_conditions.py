"""Numbers come with their conditions, and with a warning where those were bad."""

import subprocess
import sys

import msgspec
import pytest

from vitedge.core import host
from vitedge.core.machine import ROOT, describe_machine
from vitedge.measure.latency.conditions import Watch, usage, warnings

QUIET = msgspec.structs.replace(describe_machine(threads=1), governor="performance", cores=2)


def test_a_watch_tells_noise_and_load():
    watch = Watch(ROOT)
    watch.look()
    conditions = watch.conditions(QUIET)
    assert conditions.noise_percent >= 0
    assert conditions.other_cores is None  # too short to tell
    assert conditions.fingerprint == host.fingerprint(QUIET)
    assert conditions.measured_at.endswith("+00:00")


@pytest.mark.skipif(usage(ROOT) is None, reason="the kernel does not tell")
def test_another_process_is_seen_and_our_own_work_is_not():
    spin = "import time\nend = time.time() + {}\nwhile time.time() < end: pass"
    watch = Watch(ROOT)
    exec(spin.format(0.6))
    own = watch.conditions(QUIET).other_cores
    watch = Watch(ROOT)
    subprocess.run([sys.executable, "-c", spin.format(0.6)], check=True)
    others = watch.conditions(QUIET).other_cores
    assert others > 0.4 and others > own - 0.5  # this machine may be busy besides


STAT = """cpu  9 9 9 9 9 9 9 9 9 9
cpu0 100 10 20 1000 50 3 2 7 0 0
intr 12345
"""


def test_cpu_time_of_our_cores_by_kind(tree):
    import os

    only = min(os.sched_getaffinity(0))
    cpu_time = usage(tree({"proc/stat": STAT.replace("cpu0", f"cpu{only}")}))
    second = os.sysconf("SC_CLK_TCK")
    assert (cpu_time.busy_s, cpu_time.steal_s) == (135 / second, 7 / second)
    assert cpu_time.total_s == pytest.approx(1192 / second)
    assert usage(tree({"proc/stat": ""})) is None


@pytest.mark.parametrize(
    ("governor", "noise", "others", "steal", "throttled", "says"),
    [
        ("performance", 1.0, 0.01, 0.0, False, []),
        (None, 1.0, None, None, None, []),
        ("powersave", 1.0, 0.01, 0.0, False, ["'powersave'"]),
        ("performance", 12.0, 0.01, 0.0, False, ["12%"]),
        ("performance", 1.0, 0.7, 3.0, False, ["0.7 of 2 cores", "3%"]),
        ("performance", 1.0, 0.0, 0.0, True, ["hot"]),
    ],
)
def test_what_makes_numbers_untrustworthy_is_said(governor, noise, others, steal, throttled, says):
    machine = msgspec.structs.replace(QUIET, governor=governor)
    lines = warnings(machine, noise, others, steal, throttled)
    assert len(lines) == len(says)
    assert all(word in line for word, line in zip(says, lines, strict=True))


def test_throttling_is_seen_in_the_kernels_counters(tree):
    counter = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    root = tree({counter: "3", "sys/class/thermal/thermal_zone0/temp": "51000"})
    watch = Watch(root)
    assert watch.throttled() is False
    (root / counter).write_text("5\n")
    (root / "sys/class/thermal/thermal_zone0/temp").write_text("88000\n")
    assert watch.throttled() is True
    assert watch.temperature_c() == (51, 88)
    assert "hot" in watch.conditions(QUIET).warnings[0]
    assert Watch(root / "elsewhere").throttled() is None
