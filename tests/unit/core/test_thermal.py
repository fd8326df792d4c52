"""Heat is read as the kernel tells it: what is off, or tells nothing, is left out."""

import pytest

from tests.support import jetsons
from vitedge.core.thermal import Slowing, Zone, slowing, zones

THROTTLES = "sys/devices/system/cpu/cpu{}/thermal_throttle"


def test_zones_of_an_orin_with_the_point_from_which_it_is_slowed_down(tree):
    assert zones(tree(jetsons.ORIN_NANO)) == {
        "cpu-thermal": Zone(51.718, 99.0),  # 51 °C starts the fan
        "gpu-thermal": Zone(52.031, 99.0),
        "tj-thermal": Zone(53.0, 99.0),
    }


def test_a_xaviers_regulator_reads_the_same_at_all_times(tree):
    assert zones(tree(jetsons.XAVIER_NX)) == {
        "AO-therm": Zone(40.5, None),
        "CPU-therm": Zone(42.5, 86.0),
    }


def test_a_laptops_zones_of_one_type(tree):
    files = jetsons.zone(0, "acpitz", 20000) | jetsons.zone(1, "acpitz", 71500)
    files |= jetsons.zone(10, "x86_pkg_temp", 70000, passive=0)  # not set
    files |= {f"{jetsons.THERMAL}/thermal_zone2/type": "iwlwifi"}  # its radio is off
    assert zones(tree(files)) == {
        "acpitz": Zone(20.0, None),
        "acpitz 2": Zone(71.5, None),
        "x86_pkg_temp": Zone(70.0, None),
    }


@pytest.mark.parametrize(
    ("files", "slowed"),
    [
        ({}, None),
        (jetsons.cooler(0, "pwm-fan", 3), None),
        (jetsons.ORIN_NANO, Slowing(0, active=False)),
        (jetsons.ORIN_NANO | jetsons.cooler(2, "devfreq-17000000.gpu", 3), Slowing(0, active=True)),
        (jetsons.ORIN_NANO | jetsons.cooler(3, "gpu-throttle-alert", 1), Slowing(0, active=True)),
        (
            jetsons.ORIN_NANO | {"sys/class/hwmon/hwmon3/oc1_event_cnt": "7"},
            Slowing(7, active=False),
        ),
        (
            {
                f"{THROTTLES.format(0)}/core_throttle_count": "3",
                f"{THROTTLES.format(0)}/package_throttle_count": "10",
                f"{THROTTLES.format(1)}/core_throttle_count": "1",
            },
            Slowing(14, active=False),
        ),
        ({f"{THROTTLES.format(0)}/core_throttle_count": "nonsense"}, None),
    ],
)
def test_what_slows_a_machine_down(tree, files, slowed):
    assert slowing(tree(files)) == slowed
