"""What the folder of a sweep stands for, and files that are of none."""

import json

import pytest

from vitedge.core.errors import InputError
from vitedge.gate.sweeps import artifacts


def kept(folder, *names):
    rows = [{"artifact": name} for name in names]
    (folder / "sweep.json").write_text(json.dumps({"rows": rows}))
    return list(artifacts([folder]))


def test_a_sweep_is_what_it_kept(tmp_path):
    assert kept(tmp_path, "artifacts/a", "", "artifacts/b") == [
        tmp_path / "artifacts/a",
        tmp_path / "artifacts/b",
    ]
    assert list(artifacts([tmp_path / "other"])) == [tmp_path / "other"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("../a", "outside"), ("/etc", "outside"), (5, "of no sweep"), ("", "kept no artifact")],
)
def test_a_file_that_is_of_no_sweep_is_refused(tmp_path, name, says):
    with pytest.raises(InputError, match=says) as caught:
        kept(tmp_path, name)
    assert caught.value.fix == "run the sweep again"
