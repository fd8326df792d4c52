"""A limit is declared once: options, keys and the action's inputs are those of `Limits`."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import typer
import yaml

from vitedge.cli.flags import flag
from vitedge.cli.main import app
from vitedge.core.errors import InputError
from vitedge.gate import config
from vitedge.gate.limits import LIMITS

ROOT = Path(__file__).parents[3]
ACTION = ROOT / ".github" / "actions" / "gate"
DESCRIPTIONS = {flag(name).removeprefix("--"): limit.description for name, limit in LIMITS.items()}
OPTIONS = {
    parameter.opts[-1].removeprefix("--"): parameter
    for parameter in typer.main.get_group(app).commands["gate"].params
}


def test_the_command_line_has_an_option_for_each():
    assert {name: OPTIONS[name].help for name in DESCRIPTIONS} == DESCRIPTIONS


def test_the_action_has_an_input_for_each_option():
    text = (ACTION / "action.yml").read_text(encoding="utf-8")
    assert runpy.run_path(str(ACTION / "limits.py"))["with_limits"](text) == text, "make action"
    inputs = yaml.safe_load(text)["inputs"]
    assert {name: inputs[name]["description"] for name in DESCRIPTIONS} == DESCRIPTIONS
    assert inputs.keys() - OPTIONS.keys() == {"artifacts", "allow-inconclusive", "version"}
    assert OPTIONS.keys() - inputs.keys() <= {"sources", "json", "help"}


def test_the_manual_tells_of_each():
    page = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    assert [name for name in DESCRIPTIONS if f"`--{name}" not in page] == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "`max_drop_pp=nan` is no limit: expected float >= 0.0"),
        (float("inf"), "`max_drop_pp=inf` is no limit"),
        (-1.0, "`max_drop_pp=-1` is no limit: expected float >= 0.0"),
    ],
)
def test_a_limit_that_is_none_is_refused(value, said):
    with pytest.raises(InputError) as raised:
        config.options({"max_drop_pp": value})
    assert (raised.value.what, raised.value.fix) == (said, "give a number")
