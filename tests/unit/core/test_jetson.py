"""A Jetson's state is read from files of real devices' layout; what is not there is unknown."""

import os

import msgspec
import pytest

from tests.support import jetsons
from tests.unit.core.test_host import PI
from vitedge.core.host import Host, fingerprint, states
from vitedge.core.jetson import Clock, Jetson, PowerMode, fastest, jetson, power_modes


def test_an_orin_nano_as_it_boots(tree):
    state = jetson(tree(jetsons.ORIN_NANO))
    assert state == Jetson(
        board="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        l4t="36.4.3",
        power_mode=PowerMode(id=1, name="25W"),
        fastest_mode=PowerMode(id=2, name="MAXN_SUPER"),
        cpu=Clock(min_mhz=729.6, max_mhz=1344, locked=False),
        gpu=Clock(min_mhz=306, max_mhz=918, locked=False),
        memory=None,
    )
    assert state.unlocked == ("CPU", "GPU")


def test_an_orin_nano_after_jetson_clocks(tree):
    state = jetson(tree(jetsons.ORIN_NANO | jetsons.ORIN_LOCKED))
    assert state.power_mode == state.fastest_mode
    assert state.unlocked == ()
    assert state.state == ("MAXN_SUPER", "1728", "1020")


def test_a_xavier_read_by_root(tree):
    state = jetson(tree(jetsons.XAVIER_NX))
    assert (state.l4t, state.power_mode.name) == ("35.4.1", "MODE_20W_6CORE")
    assert state.fastest_mode == state.power_mode
    assert state.memory == Clock(min_mhz=204, max_mhz=1866, locked=False)
    assert state.unlocked == ("CPU", "GPU", "memory")


def test_a_thor_whose_video_clock_is_not_the_gpus(tree):
    state = jetson(tree(jetsons.THOR))
    assert state.gpu == Clock(min_mhz=1575, max_mhz=1575, locked=True)
    assert state.memory.locked and state.unlocked == ()


@pytest.mark.parametrize(
    ("configuration", "name"),
    [
        (jetsons.ORIN_NANO_MODES, "MAXN_SUPER"),
        (jetsons.XAVIER_NX_MODES, "MODE_20W_6CORE"),
        (jetsons.THOR_MODES, "MAXN"),
        ("< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=7W >", "15W"),
        ("< POWER_MODEL ID=4 NAME=ours >", None),
        ("", None),
    ],
)
def test_the_fastest_mode_is_not_that_of_a_number(configuration, name):
    best = fastest(power_modes(configuration))
    assert (best and best.name) == name


def test_nvpmodel_is_asked_where_it_has_no_file_yet(tree):
    files = jetsons.ORIN_NANO | {"usr/sbin/nvpmodel": jetsons.QUERY}
    del files["var/lib/nvpmodel/status"]
    root = tree(files)
    assert jetson(root).power_mode is None  # it is not to be run
    (root / "usr/sbin/nvpmodel").chmod(0o755)
    assert jetson(root).power_mode == PowerMode(id=3, name="MODE_30W_ALL")


@pytest.mark.parametrize(
    ("status", "name"),
    [("pmode:0009", "9"), ("", None), ("pmode:", None), ("fmode:quiet pmode:0003", "7W")],
)
def test_a_status_as_it_may_be(tree, status, name):
    state = jetson(tree(jetsons.ORIN_NANO | {"var/lib/nvpmodel/status": status}))
    assert (state.power_mode and state.power_mode.name) == name


def test_a_container_shows_that_it_is_one_and_no_more(tree):
    assert jetson(tree({"sys/devices/soc0/family": "Tegra"})) == Jetson(
        **dict.fromkeys(("board", "l4t", "power_mode", "fastest_mode", "cpu", "gpu", "memory"))
    )


@pytest.mark.parametrize(
    "files",
    [
        {"proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0"},
        {"sys/devices/soc0/family": "Freescale i.MX"},
        {},
    ],
)
def test_other_machines_are_none(tree, files):
    assert jetson(tree(files)) is None


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_what_is_not_ours_to_read_is_unknown(tree):
    root = tree(jetsons.XAVIER_NX)
    (root / "sys/kernel/debug").chmod(0)
    assert jetson(root).memory is None
    (root / "sys/kernel/debug").chmod(0o755)


LOCKED = jetsons.ORIN_NANO | jetsons.ORIN_LOCKED


@pytest.mark.parametrize(
    ("change", "alike"),
    [
        ({"proc/device-tree/model": "another carrier board"}, True),
        ({"etc/nv_tegra_release": "# R36 (release), REVISION: 4.4, GCID: 1"}, True),
        ({"var/lib/nvpmodel/status": "pmode:0000"}, False),
        (jetsons.policies(0, 4, low=729600, high=1728000), False),
        (jetsons.devfreq("17000000.gpu", 306000000, 1020000000), False),
        (jetsons.devfreq("17000000.gpu", 612000000, 612000000), False),
    ],
    ids=["board", "l4t", "mode", "cpu", "gpu", "another lock"],
)
def test_a_fingerprint_is_of_the_mode_and_of_locked_clocks(tree, change, alike):
    first = msgspec.structs.replace(PI, jetson=jetson(tree(LOCKED)))
    second = msgspec.structs.replace(PI, jetson=jetson(tree(LOCKED | change)))
    assert (fingerprint(first) == fingerprint(second)) == alike
    assert msgspec.json.decode(msgspec.json.encode(second), type=Host) == second
    said = states(first, second)
    assert (said is None) == alike
    if said:
        assert said[0] == "power mode MAXN_SUPER (MHz of CPU: 1728, GPU: 1020)" != said[1]


def test_other_machines_have_the_fingerprint_that_they_had():
    assert fingerprint(PI) == "1ae44a6425f2"
    assert states(PI, PI) is None
