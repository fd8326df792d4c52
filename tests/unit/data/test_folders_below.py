"""Folders of images are entered once each, wherever links lead."""

import os

import pytest

from vitedge.core.errors import InputError
from vitedge.data import decode
from vitedge.data.decode import folders_below, listing


def test_folders_that_link_to_each_other_are_entered_once(tmp_path):
    for index in range(12):
        (tmp_path / f"n{index}").mkdir()
    for index in range(12):
        for other in range(12):
            (tmp_path / f"n{index}" / f"l{other}").symlink_to(f"../n{other}")
    assert len(list(folders_below(str(tmp_path)))) == 13


def test_deep_folders_and_links_in_a_circle_are_no_error(tmp_path):
    path = tmp_path
    for _ in range(600):
        path = path / "d"
        path.mkdir()
    (tmp_path / "x.png").symlink_to("x.png")
    assert len(list(folders_below(str(tmp_path)))) == 601
    assert listing(str(tmp_path)) == (["d"], [f"{tmp_path}{os.sep}x.png"])


def test_folders_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "FOLDERS", 3)
    for index in range(3):
        (tmp_path / str(index)).mkdir()
    with pytest.raises(InputError, match="more than 3 folders"):
        list(folders_below(str(tmp_path)))
