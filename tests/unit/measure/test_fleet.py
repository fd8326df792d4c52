"""What a figure is over the units of a fleet, and which of them need not be measured again."""

import msgspec
import pytest

from vitedge.core.errors import InputError
from vitedge.measure.remote import fleet as fleets
from vitedge.measure.statistics import share_limits

TEXT = """
max_p50_ms = 12
[[devices]]
address = "ssh://a"
labels = { rack = "1" }
[[devices]]
address = "ssh://b:2222"
"""


def written(folder, text=TEXT):
    (folder / "fleet.toml").write_text(text)
    return folder / "fleet.toml"


def test_a_fleet_is_its_devices_and_a_limit(tmp_path):
    fleet = fleets.read_fleet(written(tmp_path))
    assert [device.address for device in fleet.devices] == ["ssh://a", "ssh://b:2222"]
    assert (fleet.devices[0].labels, fleet.max_p50_ms) == ({"rack": "1"}, 12)


@pytest.mark.parametrize(
    "text",
    [
        "devices = []",
        TEXT.replace("ssh://b:2222", "ssh://a"),
        TEXT.replace("ssh://a", "a b"),
        TEXT.replace("labels", "label"),
        TEXT.replace("12", "-1"),
    ],
    ids=range(5),
)
def test_what_is_no_fleet_is_refused(tmp_path, text):
    with pytest.raises(InputError):
        fleets.read_fleet(written(tmp_path, text))


def test_units_are_told_by_the_median_the_worst_and_those_far_off():
    p50_ms = {f"ssh://{number}": 10 + number / 10 for number in range(9)} | {"ssh://slow": 30.0}
    units = fleets._units("m", p50_ms, 12)
    assert (units.units, units.median_ms, units.worst, units.worst_ms) == (
        10,
        10.45,
        "ssh://slow",
        30,
    )
    assert (units.within, units.outliers) == (9, {"ssh://slow": 30.0})
    assert units.within_ci == share_limits(9, 10)
    few = fleets._units("m", {"ssh://a": 1.0, "ssh://b": 9.0}, None)
    assert (few.outliers, few.within, few.within_ci) == ({}, None, None)


def test_shares_have_wilsons_limits():
    low, high = share_limits(9, 10)
    assert (round(low, 4), round(high, 4)) == (0.5958, 0.9821)
    assert share_limits(0, 5)[0] == 0 and share_limits(5, 5)[1] == 1


def test_what_was_measured_so_before_is_known_and_nothing_else(tmp_path):
    fleet = written(tmp_path)
    assert fleets.read_done(fleet, "k") == ()
    fleets.write_done(fleet, "k", ["ssh://a"])
    assert fleets.read_done(fleet, "k") == ("ssh://a",)
    assert fleets.read_done(fleet, "another") == ()
    fleets.forget(fleet)
    assert fleets.read_done(fleet, "k") == ()
    (tmp_path / "fleet.done.json").write_bytes(msgspec.json.encode({"schema": 1}))
    with pytest.raises(InputError, match="measured anew"):
        raise_fix(fleet)


def raise_fix(fleet):
    try:
        fleets.read_done(fleet, "k")
    except InputError as error:
        raise InputError(f"{error}: {error.fix}") from error
