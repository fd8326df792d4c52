"""The Markdown summary: what it shows, and that names in it stay text."""

from __future__ import annotations

import html
import re

from tests.support.verdicts import HOSTILE, check, judged, verdict
from vitedge.gate.verdict import Verdict
from vitedge.show.checks import NamedCheck, ruler
from vitedge.show.ci import markdown


def rows(text: str) -> list[list[str]]:
    """The table's rows, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [line[1:-1].split("|") for line in lines[2:]]


def test_the_table_has_the_worst_first(mixed: Verdict) -> None:
    answers = [row[6].split()[-1] for row in rows(markdown.render(mixed))]
    assert answers == [*["failed"] * 2, "inconclusive", *["passed"] * 3]


def test_an_sqnr_without_noise_is_infinite_and_not_missing() -> None:
    equal = check("sqnr_db", bound="min", limit=30.0, value=float("inf"), interval=None)
    ((_, *cells),) = rows(markdown.render(verdict(judged(equal))))
    assert cells == ["SQNR", "∞ dB", "", "≥ 30 dB", "", "✅ passed"]


def test_the_ruler_shows_on_which_side_of_the_limit_the_interval_lies() -> None:
    for changes, picture in (
        ({}, "━━━●━━┃······"),
        ({"limit": 0.1}, "━━━━━━╋●━━━━━"),
        ({"limit": -1.0}, "······┃··━━●━"),
        ({"value": 0.5, "interval": None}, "······●······"),
        ({"interval": (-float("inf"), 0.4)}, "●━━━━·┃······"),
        ({"value": None}, ""),
    ):
        assert ruler(NamedCheck("a", check(**changes))) == picture


def test_a_hostile_name_stays_text_in_its_cell() -> None:
    text = markdown.render(
        verdict(judged(check(answer="failed", reason=HOSTILE), artifact=HOSTILE))
    )
    (row,) = rows(text)
    assert len(row) == 7
    shown = html.unescape(row[0])
    assert shown.startswith("a|b `c` <script>alert('x')</script> [d](http://e.evil) www.evil.com")
    assert not re.search(r"[<>`\[\]@|$\\*]|://|www\.|&(?!#\d+;)", row[0])
    assert not {"\x00", "\x1b", "\u202e"} & set(text)
    assert len([line for line in text.splitlines() if line.startswith("#")]) == 1


def test_a_name_with_underscores_is_left_readable() -> None:
    assert markdown.escape("vit_base_patch16-int8") == "vit_base_patch16-int8"


def test_a_summary_keeps_within_its_room_and_counts_what_it_left_out() -> None:
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
