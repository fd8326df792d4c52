"""Limits in the repository, and on the command line in their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.gate.conftest import KEPT, gate
from vitedge.core.errors import InputError
from vitedge.gate import config


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


VITEDGE = """
[gate]
confidence = 0.9
max_drop_pp = 1.0

[[gate.artifacts]]
path = "slow/report.json"
min_speedup = 2.0

[[gate.artifacts]]
path = "*/report.json"
"""


def test_several_artifacts_are_judged_by_limits_of_their_own_and_the_command_line_last(write):
    write("fast"), write("slow")
    Path("vitedge.toml").write_text(VITEDGE)
    verdict = gate()
    assert (verdict.confidence, verdict.answer) == (0.9, "failed")
    checks = {judged.path: [check.metric for check in judged.checks] for judged in verdict.judged}
    assert checks == {"slow/report.json": ["drop_pp", "speedup"], "fast/report.json": ["drop_pp"]}
    assert gate(min_speedup=1.2).answer == "passed"


def test_pyproject_toml_has_a_table_for_it(write):
    write("fast")
    Path("pyproject.toml").write_text(
        '[project]\nname = "x"\n[tool.vitedge.gate]\nmax_drop_pp = 1\nartifacts = '
        '[{ path = "fast/report.json" }]\n'
    )
    assert gate().answer == "passed"
    Path("pyproject.toml").write_text('[project]\nname = "x"\n')
    with pytest.raises(InputError, match="nothing to judge"):
        gate()
    with pytest.raises(InputError, match=r"has no \[tool.vitedge.gate\]"):
        config.load(Path("pyproject.toml"))


def test_the_baseline_lies_where_the_file_says(write):
    path = write("fast", kept=KEPT)
    Path("vitedge.toml").write_text('[gate]\nmax_drop_pp = 2\nbaseline = "accepted.npz"\n')
    gate(path, accept=True)
    assert [judged.against for judged in gate(path).judged] == ["fp32", "accepted.npz"]


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("[gate]\nmax_dorp_pp = 1\n", "max_dorp_pp", "max_drop_pp"),
        ('[[gate.artifacts]]\npth = "a"\npath = "b"\n', "pth", "path"),
        ("[gates]\n", "gates", "gate"),
        ('[gate]\nmax_drop_pp = "1"\n', "vitedge.toml: Expected", "Settings"),
        ("[gate]\nconfidence = 95\n", "confidence", ""),
        ("[gate]\nmax_drop_pp = -1\n", "max_drop_pp", ""),
        ("[gate\n", "not valid TOML", ""),
        ("[gate]\nmax_drop_pp = inf\n", "vitedge.toml: gate.max_drop_pp inf", "number"),
        (
            '[gate]\nartifacts = [{ path = "a", min_speedup = inf }]\n',
            "vitedge.toml: gate.artifacts.min_speedup inf",
            "number",
        ),
        ("[gate]\nmin_sqnr_db = nan\n", "gate.min_sqnr_db nan", "number"),
        ('[gate]\nmax_drop_pp = 1\nartifacts = [{ path = "" }]\n', "artifact ''", "folder"),
        ('[gate]\nmax_drop_pp = 1\nartifacts = [{ path = "a**b" }]\n', "a**b", ""),
        ('[gate]\nmax_drop_pp = 1\nartifacts = [{ path = "nowhere/*" }]\n', "nowhere", "export"),
    ],
)
def test_a_file_that_says_what_no_gate_knows_is_refused(text, said, hint):
    Path("vitedge.toml").write_text(text)
    with pytest.raises(InputError) as raised:
        gate()
    assert said in raised.value.what
    assert hint in raised.value.fix


@pytest.mark.parametrize("confidence", [0.0, 0.5, 1.0, 95.0, float("nan")])
def test_a_confidence_that_is_none_is_refused(write, confidence):
    with pytest.raises(InputError, match="`confidence="):
        gate(write(), max_drop_pp=1, confidence=confidence)


BY_FOLDER = """
[gate]
max_drop_pp = 1.0

[[gate.artifacts]]
path = "slow"
data = "pictures.npz"
min_speedup = 2.0

[[gate.artifacts]]
path = "gone"
"""


@pytest.mark.parametrize(
    ("listed", "named"), [("slow", "slow/report.json"), ("slow/report.json", "slow")]
)
def test_an_entry_holds_for_a_folder_and_for_its_report(write, listed, named):
    path = write("slow")
    Path("vitedge.toml").write_text(BY_FOLDER.replace('path = "slow"', f'path = "{listed}"'))
    entry = config.load(None).entry(Path(named))
    assert (entry.min_speedup, entry.data) == (2.0, "pictures.npz")
    with pytest.raises(InputError, match="no artifact to measure"):
        gate(path)  # a report cannot be validated on the entry's images


def test_artifacts_that_are_named_need_not_wait_for_others(write):
    path = write("slow")
    Path("vitedge.toml").write_text(BY_FOLDER.replace('data = "pictures.npz"\n', ""))
    assert gate(path).answer == "failed"
    with pytest.raises(InputError, match="'gone' is not there"):
        gate()
