"""A verdict for CI: JUnit XML read back as CI systems do, Markdown in which names stay text, and
files that are refused before any work, or all there. What they hold is in the approved files.
"""

from __future__ import annotations

import html
import re
from inspect import signature
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from tests.support.verdicts import HOSTILE, check, judged, verdict
from vitedge.cli import gate
from vitedge.core.errors import InputError
from vitedge.show.checks import NamedCheck, ruler
from vitedge.show.ci import FORMATS, junit, markdown, outputs

# of Jenkins' junit-10.xsd: what an element may hold, and what it may and must say
SHAPE = {
    "testsuites": ({"testsuite"}, {"name", "time", "tests", "failures", "errors"}, set()),
    "testsuite": (
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname", "id"},
        {"name", "tests", "failures", "errors"},
    ),
    "properties": ({"property"}, set(), set()),
    "property": (set(), {"name", "value"}, {"name", "value"}),
    "testcase": (
        {"skipped", "error", "failure", "system-out", "system-err"},
        {"name", "time", "classname", "group"},
        {"name"},
    ),
    "failure": (set(), {"type", "message"}, set()),
    "error": (set(), {"type", "message"}, set()),
    "system-out": (set(), set(), set()),
}


def parse(answers):
    root = ElementTree.fromstring(junit.render(answers).encode())
    for element in root.iter():
        children, may, must = SHAPE[element.tag]
        assert {child.tag for child in element} <= children
        assert must <= set(element.keys()) <= may
    return root


def rows(text):
    """The table's rows, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [line[1:-1].split("|") for line in lines[2:]]


def test_an_inconclusive_check_is_an_error_and_all_are_counted(mixed):
    root = parse(mixed)
    for element in (root, root[0]):
        assert [element.get(key) for key in ("tests", "failures", "errors")] == ["6", "2", "1"]
    (suite,) = parse(verdict(judged()))
    assert suite.get("tests") == "0"


def test_names_stay_the_same_when_the_figures_change():
    def identity(value, limit):
        root = parse(verdict(judged(check(value=value, limit=limit, reason=f"{value}"))))
        return [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]

    assert identity(0.1, 0.5) == identity(0.3, 1.0) == [("vitedge.vit-int8", "max drop_pp")]


def test_a_comparison_with_a_baseline_and_another_folder_have_names_of_their_own():
    several = verdict(
        judged(check()),
        judged(check(), against="last.baseline"),
        judged(check(), artifact="b", path="here/b"),
        judged(check(), artifact="b", path="there/b"),
    )
    assert [suite.get("name") for suite in parse(several)] == [
        *("vit-int8", "vit-int8 against last.baseline", "b (here/b)", "b (there/b)"),
    ]


def test_an_sqnr_without_noise_passes_and_is_infinite():
    equal = check("sqnr_db", bound="min", limit=30.0, value=float("inf"), interval=None)
    root = parse(verdict(judged(equal)))
    properties = {p.get("name"): p.get("value") for p in root.iter("property")}
    assert properties["min sqnr_db.value"] == "inf" and root.get("failures") == "0"
    ((_, *cells),) = rows(markdown.render(verdict(judged(equal))))
    assert cells == ["SQNR", "∞ dB", "", "≥ 30 dB", "", "✅ passed"]


def test_the_ruler_shows_on_which_side_of_the_limit_the_interval_lies():
    for changes, picture in (
        ({}, "━━━●━━┃······"),
        ({"limit": 0.1}, "━━━━━━╋●━━━━━"),
        ({"limit": -1.0}, "······┃··━━●━"),
        ({"value": 0.5, "interval": None}, "······●······"),
        ({"interval": (-float("inf"), 0.4)}, "●━━━━·┃······"),
        ({"value": None}, ""),
    ):
        assert ruler(NamedCheck("a", check(**changes))) == picture


def test_a_hostile_name_is_text_and_has_no_character_that_xml_forbids():
    failed = check(answer="failed", reason=HOSTILE)
    hostile = verdict(judged(failed, artifact=HOSTILE, model=HOSTILE))
    (suite,) = parse(hostile)
    name = suite.get("name") or ""
    assert name.startswith("a|b `c` <script>alert('x')</script>")
    assert name.endswith("]]> &amp; é")
    assert not {"\n", "\x00", "\x1b", "\u202e", "\ufffe"} & set(name)
    text = markdown.render(hostile)
    (row,) = rows(text)
    assert len(row) == 7
    shown = html.unescape(row[0])
    assert shown.startswith("a|b `c` <script>alert('x')</script> [d](http://e.evil) www.evil.com")
    assert not re.search(r"[<>`\[\]@|$\\*]|://|www\.|&(?!#\d+;)", row[0])
    assert not {"\x00", "\x1b", "\u202e"} & set(text)
    assert len([line for line in text.splitlines() if line.startswith("#")]) == 1
    assert markdown.escape("vit_base_patch16-int8") == "vit_base_patch16-int8"


def test_a_summary_keeps_within_its_room_and_counts_what_it_left_out():
    many = verdict(
        *(judged(check(), artifact=f"passed-{i}") for i in range(300)),
        judged(check(answer="failed", reason="é" * 150), artifact="broken"),
    )
    text = markdown.render(many, room_bytes=4000)
    assert len(text.encode()) <= 4000
    table = rows(text)
    assert table[0][0] == "broken"
    assert f"{301 - len(table)} more checks: no room" in text
    assert len(rows(markdown.render(many))) == 301
    assert markdown.render(many, room_bytes=300) == ""


@pytest.mark.parametrize(
    ("junit", "write", "what"),
    [
        ("nowhere/gate.xml", [], r"cannot write nowhere/gate.xml \(`junit`\)"),
        (None, ["markdown=nowhere/a.md"], r"cannot write nowhere/a.md \(`write='markdown'`\)"),
        (None, ["bencher=gate.json"], "unknown format 'bencher'"),
        (None, ["markdown"], "names no file"),
        (None, ["markdown="], "names no file"),
        ("gate.xml", ["markdown=./gate.xml"], "`write='markdown'` and `junit` are both gate.xml"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch, junit, write, what):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=what) as raised:
        outputs.plan(Path(junit) if junit else None, write, {})
    assert raised.value.fix
    assert not [*tmp_path.iterdir()]


def test_every_format_is_written_where_it_was_asked_for(tmp_path, mixed):
    options = [f"{name}={tmp_path / name}" for name in FORMATS if name != "junit"]
    outputs.plan(tmp_path / "junit", options, {}).write(mixed)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FORMATS)
    assert ElementTree.parse(tmp_path / "junit").getroot().get("tests") == "6"
    again = msgspec.json.decode((tmp_path / "json").read_bytes())
    assert again["answer"] == "failed"
    assert again["judged"][0]["checks"][1]["interval"] == [0.95, 1.24]


def test_the_step_summary_is_appended_to_and_another_file_replaced(tmp_path, mixed):
    summary, comment = tmp_path / "summary.md", tmp_path / "comment.md"
    summary.write_text("# of another command\n")
    for _ in range(2):
        environment = {"GITHUB_STEP_SUMMARY": str(summary)}
        outputs.plan(None, [f"markdown={comment}"], environment).write(mixed)
    assert summary.read_text().startswith("# of another command\n")
    assert summary.read_text().count("vitedge gate: failed") == 2
    assert comment.read_text().count("vitedge gate: failed") == 1


def test_a_step_summary_that_is_full_or_not_there_stops_nothing(tmp_path, mixed):
    summary = tmp_path / "of-a-runner-outside-this-container"
    environment = {"GITHUB_STEP_SUMMARY": str(summary)}
    outputs.plan(None, [], environment).write(mixed)
    assert not [*tmp_path.iterdir()]
    summary.write_text("x" * ((1 << 20) - 700))
    outputs.plan(None, [], environment).write(mixed)
    assert summary.stat().st_size <= 1 << 20, "what GitHub takes"
    assert "more checks: no room" in summary.read_text()


def test_the_help_of_the_gate_names_every_format():
    parameter = signature(gate.gate, eval_str=True).parameters["write"]
    (option,) = parameter.annotation.__metadata__
    assert all(name in option.help for name in FORMATS)


@pytest.mark.parametrize("option", ["--html", "--baseline"])
def test_no_file_of_another_option_is_overwritten(tmp_path, option):
    path = tmp_path / "taken"
    with pytest.raises(InputError, match=rf"`junit` and {option} are both .*taken"):
        outputs.plan(path, [], {}, ((path, option),))
    outputs.plan(path, [], {}, ((tmp_path / "gone" / "baseline.npz", "--baseline"),))
