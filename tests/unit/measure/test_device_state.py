"""A Jetson that was hot, capped or free to change its clocks is warned of, with the way out."""

import msgspec
import pytest

from tests.support import jetsons
from tests.unit.core.test_host import PI
from vitedge.core.host import fingerprint
from vitedge.core.jetson import jetson
from vitedge.measure.latency.conditions import Watch

LOCKED = jetsons.ORIN_NANO | jetsons.ORIN_LOCKED


def conditions(root, change=()):
    """Those of a watch that saw `root`, and `change` of it before timing was over."""
    machine = msgspec.structs.replace(PI, governor="schedutil", jetson=jetson(root))
    watch = Watch(root)
    for name, text in dict(change).items():
        (root / name).write_text(text)
    return watch.conditions(machine)


def warned(seen):
    """Its warnings, but of noise, which this machine may have."""
    return [line for line in seen.warnings if "noisy" not in line]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (LOCKED, []),
        (jetsons.THOR, []),
        (
            jetsons.ORIN_NANO,
            [("25W", "MAXN_SUPER", "nvpmodel -m 2"), ("CPU and GPU", "sudo jetson_clocks")],
        ),
        (jetsons.XAVIER_NX, [("CPU and GPU and memory", "jetson_clocks")]),
        (
            LOCKED | {"etc/nvpmodel.conf": "", "usr/sbin/nvpmodel": ""},
            [("power mode is 2, not MAXN",)],
        ),
        (
            LOCKED | jetsons.zone(1, "gpu-thermal", 94500, passive=99000),
            [("gpu-thermal was at 9", "from 99 °C")],
        ),
        (LOCKED | jetsons.zone(1, "gpu-thermal", 93500, passive=99000), []),
        (LOCKED | jetsons.cooler(3, "gpu-throttle-alert", 1), [("slowed down",)]),
        ({"sys/devices/soc0/family": "Tegra"}, [("governor is 'schedutil'",)]),
    ],
)
def test_what_a_jetson_is_warned_of(tree, files, words):
    lines = warned(conditions(tree(files)))
    assert len(lines) == len(words), lines
    for line, said in zip(lines, words, strict=True):
        assert all(word in line for word in said)


def test_what_happens_while_it_times(tree):
    root = tree(LOCKED)
    before = fingerprint(msgspec.structs.replace(PI, governor="schedutil", jetson=jetson(root)))
    seen = conditions(
        root,
        {
            "var/lib/nvpmodel/status": "pmode:0000",
            f"{jetsons.THERMAL}/thermal_zone8/temp": "97000",
            "sys/class/hwmon/hwmon3/oc1_event_cnt": "1",
        },
    )
    slowed, changed, mode, hot = warned(seen)
    assert seen.throttled and "slowed down" in slowed
    assert "power mode MAXN_SUPER" in changed and "then power mode 15W" in changed
    assert "15W" in mode and "tj-thermal was at 97 °C" in hot
    assert seen.temperatures_c["tj-thermal"] == (53, 97)
    assert seen.jetson.power_mode.name == "15W"
    assert seen.fingerprint == before


def test_unknown_is_no_warning_and_no_figure(tree):
    seen = conditions(tree({"etc/nv_tegra_release": "", "proc/stat": ""}))
    assert (seen.throttled, seen.temperatures_c) == (None, {})
    assert (seen.jetson.power_mode, seen.jetson.cpu, seen.jetson.gpu) == (None, None, None)
