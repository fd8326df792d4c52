"""The search for the fewest layers in float finds them, and never promises what it did not see."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from vitedge.core.errors import InputError
from vitedge.core.manifest import Bounds, Losses
from vitedge.core.progress import Steps
from vitedge.export.accuracy_control import Search

Measure = Callable[[int], Losses]
LAYERS = [1, 2, 3, 16, 18, 48, 74]


def lost(drop_pp: float, sqnr_db: float | None = 40.0) -> Losses:
    return Losses(drop_pp=drop_pp, sqnr_db=sqnr_db, token_sqnr_db=None)


def drop(limit_pp: float) -> Bounds:
    return Bounds(max_drop_pp=limit_pp)


def sqnr(limit_db: float) -> Bounds:
    return Bounds(min_sqnr_db=limit_db)


class Model:
    """A made model: what it loses with so many layers in float."""

    def __init__(self, layers: int, losses: Measure) -> None:
        self.harm = {f"layer {i}": float(i * i) for i in range(layers)}
        self.ranked = 0
        self.built: list[int] = []
        self.there: set[int] = set()
        self._losses = losses

    def rank(self) -> dict[str, float]:
        self.ranked += 1
        return self.harm

    def build(self, kept: Mapping[str, str]) -> int:
        count = len(kept)
        worst = sorted(self.harm, key=self.harm.__getitem__)[-count:]
        assert set(kept) == set(worst), "the most harmful layers are kept first"
        self.built.append(count)
        self.there.add(count)
        return count

    def search(self, file: Path, bounds: Bounds, key: str = "a key") -> Search:
        (file.parent / "scratch").mkdir(exist_ok=True, parents=True)
        search = Search(file, file.parent / "scratch", key, bounds, Steps(None))
        search.rank(self.rank)
        return search

    def fewest(self, search: Search) -> int | None:
        found = search.fewest(self.build, self._losses, self.there.remove)
        assert self.there == (set() if found is None else {found[0]}), "one probe is left, or none"
        if found is None:
            return None
        assert found[0] == found[1]
        return found[0]


def steps_at(enough: int) -> Measure:
    """Loses 5 points with fewer than `enough` layers in float, else 0.1."""
    return lambda count: lost(0.1 if count >= enough else 5.0)


@pytest.mark.parametrize("layers", LAYERS)
def test_the_fewest_layers_are_found_in_few_probes(tmp_path: Path, layers: int) -> None:
    for enough in range(1, layers + 1):
        model = Model(layers, steps_at(enough))
        found = model.fewest(model.search(tmp_path / f"{enough}.json", drop(0.3)))
        assert found == (enough if enough < layers else None)
        assert len(model.built) <= math.ceil(math.log2(layers)) + 1
        assert layers not in model.built and 0 not in model.built


@pytest.mark.parametrize("seed", range(20))
def test_noise_may_cost_a_layer_but_never_the_limit(tmp_path: Path, seed: int) -> None:
    """Drops that go up and down: what is returned was measured to meet the limit."""
    rng = random.Random(seed)
    drops = [max(0.0, 3 - k / 8 + rng.uniform(-1, 1)) for k in range(48)]
    model = Model(48, lambda k: lost(drops[k]))
    found = model.fewest(model.search(tmp_path / "state.json", drop(1.0)))
    if found is None:
        assert all(drops[k] > 1.0 for k in model.built)
    else:
        assert found in model.built and drops[found] <= 1.0
        assert all(drops[k] > 1.0 for k in model.built if k < found)
    assert len(model.built) <= math.ceil(math.log2(48)) + 1


class Killed(Exception):
    """Stands for a process that is gone."""


@pytest.mark.parametrize("probes", range(6))
def test_a_search_that_was_killed_goes_on_where_it_stopped(tmp_path: Path, probes: int) -> None:
    file = tmp_path / "state.json"
    whole = Model(48, steps_at(18))
    assert whole.fewest(whole.search(tmp_path / "whole.json", drop(0.3))) == 18

    first = Model(48, steps_at(18))

    def dies(kept: Mapping[str, str]) -> int:
        if len(first.built) == probes:
            raise Killed
        return first.build(kept)

    with pytest.raises(Killed):
        first.search(file, drop(0.3)).fewest(dies, steps_at(18), first.there.remove)
    second = Model(48, steps_at(18))
    search = second.search(file, drop(0.3))
    assert second.fewest(search) == 18
    assert second.ranked == 0
    assert f"{probes} probe" in search.notes[0]
    assert first.built + [k for k in second.built if k not in first.built] == whole.built
    # what an earlier run found to be enough is made and measured once more, for it is gone
    assert [k for k in second.built if k in first.built] == ([18] if 18 in first.built else [])


def test_another_limit_uses_the_probes_of_the_first(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    losses = lambda count: lost(16.0 - count)  # noqa: E731
    strict = Model(16, losses)
    assert strict.fewest(strict.search(file, drop(0))) is None
    loose = Model(16, losses)
    assert loose.fewest(loose.search(file, drop(12))) == 4
    assert loose.ranked == 0
    assert not set(loose.built) & set(strict.built)


@pytest.mark.parametrize("layers", LAYERS)
def test_a_level_is_met_with_the_fewest_layers_in_float(tmp_path: Path, layers: int) -> None:
    for enough in range(1, layers + 1):
        model = Model(layers, lambda count, enough=enough: lost(0, 30 + count - enough))  # type: ignore[misc]
        found = model.fewest(model.search(tmp_path / f"{enough}.json", sqnr(30)))
        assert found == (enough if enough < layers else None)


def test_all_bounds_are_met_together(tmp_path: Path) -> None:
    def losses(count: int) -> Losses:
        return Losses(drop_pp=10.0 - count, sqnr_db=20.0 + count, token_sqnr_db=count)

    for bounds, enough in [
        (Bounds(max_drop_pp=4), 6),
        (Bounds(max_drop_pp=4, min_sqnr_db=24), 6),
        (Bounds(max_drop_pp=4, min_sqnr_db=28), 8),
        (Bounds(max_drop_pp=4, min_sqnr_db=28, min_token_sqnr_db=11), 11),
    ]:
        model = Model(16, losses)
        assert model.fewest(model.search(tmp_path / f"{enough}.json", bounds)) == enough


def test_a_bound_of_another_kind_uses_what_was_measured_for_the_first(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    losses = lambda count: lost(16.0 - count, 20.0 + count)  # noqa: E731
    first = Model(16, losses)
    assert first.fewest(first.search(file, drop(0))) is None
    second = Model(16, losses)
    assert second.fewest(second.search(file, sqnr(28))) == 8
    assert second.ranked == 0
    # 8 is known to be enough: it is made again, for its artifact is gone
    assert [k for k in second.built if k in first.built] == [8]


@pytest.mark.parametrize(
    ("full", "best", "fix"),
    [(18.04, 38.26, "allow `min_sqnr_db=38.2` with"), (-1e3, -1e3, "try `calibration=")],
)
def test_an_unreachable_level_says_what_came_closest(
    tmp_path: Path, full: float, best: float, fix: str
) -> None:
    model = Model(8, lambda count: lost(0, best if count == 6 else full))
    search = model.search(tmp_path / "state.json", sqnr(50))
    assert model.fewest(search) is None
    error = search.unreachable("a-bundle", lost(0, full), None)
    level = "18.04 dB" if full > 0 else "nothing finite"
    assert error.what.startswith(
        f"a-bundle keeps {level}, less than `min_sqnr_db=50`, and even with 7 of 8 layers in float "
        f"{level}"
    )
    assert ("closest came 6 layers in float, with 38.26 dB" in error.what) == (best > 0)
    assert error.fix.startswith(fix)
    assert error.exit_code == 1


def test_of_several_bounds_those_that_are_missed_are_told(tmp_path: Path) -> None:
    def losses(count: int) -> Losses:
        return Losses(drop_pp=0.1, sqnr_db=30.0 + count, token_sqnr_db=None)

    bounds = Bounds(max_drop_pp=0.3, min_sqnr_db=90)
    model = Model(8, losses)
    search = model.search(tmp_path / "state.json", bounds)
    assert model.fewest(search) is None
    error = search.unreachable("a-bundle", lost(2.5, 30), 0.9)
    assert error.what == (
        "a-bundle loses 2.5 points, more than `max_drop_pp=0.3`, and keeps 30.00 dB, less than "
        "`min_sqnr_db=90`, and even with 7 of 8 layers in float 37.00 dB (FP32 itself scores "
        "90.00%)"
    )
    assert error.fix.startswith("allow `min_sqnr_db=37` with")


def test_outputs_that_equal_fp32_meet_any_level(tmp_path: Path) -> None:
    model = Model(8, lambda count: lost(0, None if count >= 3 else 20.0))
    assert model.fewest(model.search(tmp_path / "state.json", sqnr(500))) == 3


def test_a_drop_that_is_larger_this_time_is_believed(tmp_path: Path) -> None:
    """The file says 4 are enough; measured again they are not."""
    file = tmp_path / "state.json"
    before = Model(16, steps_at(4))
    before.fewest(before.search(file, drop(0.3)))
    now = Model(16, steps_at(6))
    found = now.fewest(now.search(file, drop(0.3)))
    assert found is not None and found >= 6


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"key": "a key", "ranking": [["layer 0", 1.0]], "losses": {"7": {}}}'],
)
def test_a_broken_file_is_replaced_with_a_note(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(content)
    model = Model(16, steps_at(3))
    search = model.search(file, drop(0.3))
    assert str(file) in search.notes[0] and "afresh" in search.notes[0]
    assert model.fewest(search) == 3
    assert msgspec.json.decode(file.read_bytes())["losses"]["3"]["drop_pp"] == 0.1


def test_the_file_of_another_export_is_not_used(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    other = Model(16, steps_at(9))
    other.fewest(other.search(file, drop(0.3)))
    model = Model(16, steps_at(3))
    search = model.search(file, drop(0.3), key="another")
    assert "another export" in search.notes[0]
    assert model.fewest(search) == 3 and model.ranked == 1


def test_every_kept_layer_says_its_place_its_noise_and_the_limit(tmp_path: Path) -> None:
    model = Model(30, steps_at(23))
    reasons: dict[str, str] = {}

    def build(kept: Mapping[str, str]) -> int:
        reasons.update(kept)
        return model.build(kept)

    model.search(tmp_path / "state.json", drop(0.3)).fewest(build, steps_at(23), model.there.remove)
    assert reasons["layer 29"] == (
        "kept in float: 1st most harmful of 30 (29.2 dB at the output), to lose 0.3 points at most"
    )
    for layer, place in ((28, "2nd"), (27, "3rd"), (26, "4th"), (19, "11th"), (8, "22nd")):
        assert f": {place} most" in reasons[f"layer {layer}"]


def test_an_unreachable_limit_says_what_was_tried(tmp_path: Path) -> None:
    drops = {15: 0.9, 14: 0.62, 12: 2.0, 8: 3.0}
    model = Model(16, lambda k: lost(drops[k]))
    search = model.search(tmp_path / "state.json", drop(0.3))
    assert model.fewest(search) is None
    error = search.unreachable("a-bundle", lost(7.1), 0.915)
    assert error.exit_code == 1
    assert error.what == (
        "a-bundle loses 7.1 points, more than `max_drop_pp=0.3`, and even with 15 of 16 layers in "
        "float 0.9 points; closest came 14 layers in float, with 0.62 points (FP32 itself scores "
        "91.50%)"
    )
    assert "`max_drop_pp=0.62`" in error.fix and "`precision='fp32'`" in error.fix


def test_a_file_that_cannot_be_written_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()
    model = Model(16, steps_at(3))
    with pytest.raises(InputError, match=r"cannot write .*state\.json"):
        model.search(tmp_path / "state.json", drop(0.3))
