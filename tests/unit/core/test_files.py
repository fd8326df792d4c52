"""Files a user asks for."""

from pathlib import Path

import pytest

from vitedge.core import files
from vitedge.core.errors import InputError


@pytest.mark.parametrize(
    "bad",
    [
        *("nowhere/page.xml", ".", "/dev/null", "/proc/page.xml", "file.txt/page.xml", "/"),
        "long" * 64,
    ],
)
def test_a_path_that_cannot_be_written_is_refused_at_once(tmp_path, bad, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("a file, no folder")
    with pytest.raises(InputError, match=rf"cannot write {bad} \(`junit`\)") as raised:
        files.check_writable(Path(bad), "`junit`")
    assert raised.value.fix
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_checking_leaves_an_existing_file_as_it_is(tmp_path):
    old = tmp_path / "old.xml"
    old.write_text("old")
    files.check_writable(old, "`junit`")
    files.check_writable(tmp_path / "new.xml", "`junit`")
    assert [path.name for path in tmp_path.iterdir()] == ["old.xml"]
    assert old.read_text() == "old"


def test_a_file_is_replaced_whole_and_a_link_to_it_stays_one(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    link = tmp_path / "link.txt"
    link.symlink_to("real.txt")
    files.write(link, "naïve \udc80")
    assert link.is_symlink()
    assert (tmp_path / "real.txt").read_bytes() == "naïve ?".encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.txt", "real.txt"]


def test_a_folder_that_went_away_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        files.write(tmp_path / "gone" / "page.xml", "text")
