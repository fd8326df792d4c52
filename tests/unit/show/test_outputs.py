"""Where a verdict is written: refused before any work, or all of it there."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from vitedge.cli import gate
from vitedge.core.errors import InputError
from vitedge.gate.verdict import Verdict
from vitedge.show.ci import FORMATS, outputs


@pytest.mark.parametrize(
    ("junit", "write", "what"),
    [
        ("nowhere/gate.xml", [], r"cannot write nowhere/gate.xml \(`junit`\)"),
        (
            None,
            ["markdown=nowhere/gate.md"],
            r"cannot write nowhere/gate.md \(`write='markdown'`\)",
        ),
        (None, ["bencher=gate.json"], "unknown format 'bencher'"),
        (None, ["markdown"], "names no file"),
        (None, ["markdown="], "names no file"),
        ("gate.xml", ["markdown=./gate.xml"], "`write='markdown'` and `junit` are both gate.xml"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    junit: str | None,
    write: list[str],
    what: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=what) as raised:
        outputs.plan(Path(junit) if junit else None, write, {})
    assert raised.value.fix
    assert not [*tmp_path.iterdir()]


def test_every_format_is_written_where_it_was_asked_for(tmp_path: Path, mixed: Verdict) -> None:
    options = [f"{name}={tmp_path / name}" for name in FORMATS if name != "junit"]
    outputs.plan(tmp_path / "junit", options, {}).write(mixed)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FORMATS)
    assert ElementTree.parse(tmp_path / "junit").getroot().get("tests") == "6"
    again = msgspec.json.decode((tmp_path / "json").read_bytes())
    assert again["answer"] == "failed"
    assert again["judged"][0]["checks"][1]["interval"] == [0.95, 1.24]


def test_the_step_summary_is_appended_to_and_another_file_replaced(
    tmp_path: Path, mixed: Verdict
) -> None:
    summary, comment = tmp_path / "summary.md", tmp_path / "comment.md"
    summary.write_text("# of another command\n")
    for _ in range(2):
        environment = {"GITHUB_STEP_SUMMARY": str(summary)}
        outputs.plan(None, [f"markdown={comment}"], environment).write(mixed)
    assert summary.read_text().startswith("# of another command\n")
    assert summary.read_text().count("vitedge gate: failed") == 2
    assert comment.read_text().count("vitedge gate: failed") == 1


def test_a_full_step_summary_stays_within_what_github_takes(tmp_path: Path, mixed: Verdict) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("x" * ((1 << 20) - 700))
    outputs.plan(None, [], {"GITHUB_STEP_SUMMARY": str(summary)}).write(mixed)
    assert summary.stat().st_size <= 1 << 20
    assert "more checks: no room" in summary.read_text()


def test_a_step_summary_that_is_not_there_stops_nothing(tmp_path: Path, mixed: Verdict) -> None:
    gone = {"GITHUB_STEP_SUMMARY": str(tmp_path / "of-a-runner-outside-this-container")}
    outputs.plan(None, [], gone).write(mixed)
    assert not [*tmp_path.iterdir()]


def test_the_help_of_the_gate_names_every_format() -> None:
    parameter = signature(gate.gate, eval_str=True).parameters["write"]
    (option,) = parameter.annotation.__metadata__
    assert all(name in option.help for name in FORMATS)


@pytest.mark.parametrize("option", ["--html", "--baseline"])
def test_no_file_of_another_option_is_overwritten(tmp_path: Path, option: str) -> None:
    path = tmp_path / "taken"
    with pytest.raises(InputError, match=rf"`junit` and {option} are both .*taken"):
        outputs.plan(path, [], {}, ((path, option),))
    outputs.plan(path, [], {}, ((tmp_path / "gone" / "baseline.npz", "--baseline"),))
