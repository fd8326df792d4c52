"""A library's message in the words of the command line."""

from __future__ import annotations

import pytest

from tests.conftest import Vitedge
from vitedge.cli.flags import command_line
from vitedge.cli.output import raise_first
from vitedge.core.errors import InputError
from vitedge.core.progress import steps


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("pass `calib_data` with a folder", "pass --calib-data with a folder"),
        ("`calib_data='random'`", "--calib-data random"),
        ("`calib_data=FOLDER`", "--calib-data FOLDER"),
        ("`max_drop_pp=1` or `min_speedup=1.20`", "--max-drop 1 or --min-speedup 1.20"),
        ("`max_p90_ms`, `duration_s`", "--max-p90-ms, --duration"),
        ("`force=True`", "--force"),
        ("`output='a b # c'`, `data='ж'`", "--output 'a b # c', --data 'ж'"),
        ("`batch='dynamic'`, `batch=4`", "--batch dynamic, --batch 4"),
        ("`precision='int8'`, `precision='fp16'`", "--int8, --fp16"),
        ("`precision`", "--int8 or --fp8 or --bf16 or --fp16 or --fp32"),
        ("`target`, `targets`", "--target, --target"),
        ("`targets=['openvino', 'a.toml']`", "--target openvino --target a.toml"),
        ("`scenarios=['offline']`, `sweeps`", "--scenario offline, --sweep"),
        ("there is no `ssh`; set `labels` to 0", "there is no `ssh`; set `labels` to 0"),
        ("a.toml: unknown field `force`", "a.toml: unknown field `force`"),
        ("`force=False`, `a b`, ``", "`force=False`, `a b`, ``"),
    ],
)
def test_parameters_become_flags(text: str, typed: str) -> None:
    assert command_line(text) == typed


def test_errors_and_notes_are_put_so(
    vitedge: Vitedge, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with steps(wording=command_line) as progress:
        progress.note("see `eval_data`")
    assert capsys.readouterr().err == "see --eval-data\n"
    errors = [InputError("`force`"), InputError("`data`", fix="drop `data='digits'`")]
    with pytest.raises(InputError, match="`force`"):
        raise_first(errors)
    assert capsys.readouterr().err == "error: --data\n  fix: drop --data digits\n"

    def refuse(*_: object) -> None:
        raise InputError("no `opset`", fix="pass `opset=20`")

    monkeypatch.setattr("vitedge.core.catalog.targets", refuse)
    said = vitedge("targets", code=2).stderr
    assert said == "error: no --opset\n  fix: pass --opset 20\n"
