"""A gate's verdict on the terminal, and the worst of several answers."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.support.verdicts import check, judged, verdict
from vitedge.gate.verdict import Answer, Verdict, worst
from vitedge.show.terminal import gate


def printed(verdict: Verdict, width: int = 120) -> str:
    shown = io.StringIO()
    Console(file=shown, width=width, markup=False, highlight=False).print(gate.verdict(verdict))
    return shown.getvalue()


def test_each_check_is_a_row_with_its_figures_beside_the_limit() -> None:
    two_artifacts = verdict(
        judged(
            check(),
            check("sqnr_db", bound="min", limit=30.0, value=None, interval=None, answer="failed"),
        ),
        judged(
            check("speedup", bound="min", limit=1.1, value=1.3, interval=(1.2, 1.41)), artifact="b"
        ),
    )
    lines = [line.split() for line in printed(two_artifacts).splitlines()[3:] if line.strip()]
    assert lines == [
        ["vit-int8", "drop", "0.14", "pp", "-0.2…0.4", "≤", "0.5", "pp", "━━━●━━┃······", "passed"],
        ["SQNR", "–", "≥", "30", "dB", "failed"],
        ["b", "speed-up", "1.3×", "1.2…1.41", "≥", "1.1×", "······┃·━━●━━", "passed"],
    ]


def test_what_did_not_pass_says_why_and_the_answer_comes_last() -> None:
    inconclusive = verdict(
        judged(check(), check("p90_ms", answer="inconclusive", reason="[b]80 runs[/b] would tell"))
    )
    assert list(gate.reasons(inconclusive)) == [
        "vit-int8, p90: [b]80 runs[/b] would tell",
        "gate: inconclusive",
    ]


def test_names_from_elsewhere_are_no_markup_and_no_escape_sequences() -> None:
    hostile = verdict(judged(check(), artifact="[red]x[/red]\x1b[2J"))
    assert "[red]x[/red][2J" in printed(hostile)
    assert "\x1b" not in printed(hostile)


@pytest.mark.parametrize(
    ("answers", "answer"),
    [
        ((), "passed"),
        (("passed", "passed"), "passed"),
        (("passed", "inconclusive"), "inconclusive"),
        (("inconclusive", "failed", "passed"), "failed"),
    ],
)
def test_the_worst_answer_decides(answers: tuple[Answer, ...], answer: Answer) -> None:
    assert worst(answers) == answer
