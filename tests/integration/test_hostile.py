"""Two hundred hostile inputs, half of them with valid hashes: refused, or without effect.

`python -m benchmarks.hostile` tries as many as one likes, each class with its time and memory.
"""

import random
from collections import Counter

import pytest

from tests.support import hostile
from tests.support.hostile import bundles, files

COUNT, SEED = 200, 22


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return bundles.base(tmp_path_factory.mktemp("hostile") / "small")


@pytest.mark.parametrize("kind", [*bundles.KINDS, *files.KINDS])
def test_every_input_of_a_class_is_refused_or_harmless(kind, base, tmp_path):
    outcomes = Counter()
    for index, case in enumerate(c for c in hostile.cases(COUNT, SEED) if c.kind == kind):
        folder = tmp_path / str(index)
        folder.mkdir()
        outcomes[case.attempt(base, folder)] += 1
    assert outcomes["refused"] > outcomes.total() / 4  # else nobody looked


def test_half_of_them_have_valid_hashes_and_there_are_a_dozen_classes():
    cases = list(hostile.cases(2000, SEED))
    assert sum(case.sealed for case in cases) == 1000
    assert len({case.kind for case in cases}) >= 12


def test_the_same_seed_makes_the_same_inputs(tmp_path):
    def made(name):
        folder = tmp_path / name
        folder.mkdir()
        for kind, make in files.KINDS.items():
            if kind != "torch's checkpoints":  # a zip has the time in it
                make(random.Random(kind), folder)
        return bundles.contents(folder)

    assert made("first") == made("second")


def test_writing_elsewhere_is_harm(base, tmp_path, monkeypatch):
    """The corpus would notice."""
    from vitedge.measure import api

    whole = api.validate

    def validate(bundle):
        (bundle.parent / "victim" / "other").touch()
        return whole(bundle)

    monkeypatch.setattr(api, "validate", validate)
    with pytest.raises(AssertionError, match="wrote outside"):
        bundles.attempt(lambda chance, bundle: None, random.Random(0), base, tmp_path)


def test_computing_something_else_is_harm(base, tmp_path):
    other = bundles.Base(base.folder, base.images, base.outputs + 1)
    with pytest.raises(AssertionError, match="something else"):
        bundles.attempt(lambda chance, bundle: None, random.Random(0), other, tmp_path)
