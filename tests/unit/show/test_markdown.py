"""The Markdown summary: what it shows, and that names in it stay text."""

from __future__ import annotations

import html
import re

from tests.support.verdicts import HOSTILE, check, judged, verdict
from vitedge.gate.verdict import Verdict
from vitedge.show.ci import markdown
from vitedge.show.ci.ruler import ruler


def rows(text: str) -> list[list[str]]:
    """The table's rows, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [line[1:-1].split("|") for line in lines[2:]]


def test_the_table_has_the_worst_first_and_says_why(mixed: Verdict) -> None:
    text = markdown.render(mixed)
    assert text.startswith("### ❌ vitedge gate: failed\n\n|artifact|check|measured|")
    table = rows(text)
    assert [row[6].split()[-1] for row in table] == [
        *("failed", "failed", "inconclusive"),
        *("passed", "passed", "passed"),
    ]
    assert [cell for row in table for cell in row[1:5]][8:] == [
        *("speed-up", "1.08×", "0.95 to 1.24", "≥ 1.1×"),
        *("drop", "0.14 pp", "-0.2 to 0.4", "≤ 0.5 pp"),
        *("p90", "2.5 ms", "2.25 to ∞", "≤ 5 ms"),
        *("size", "1.5 MB", "", "≤ 25 MB"),
    ]
    assert table[0][1:5] == ["SQNR", "not measured", "", "≥ 30 dB"]
    assert "- vit-int8, speed-up: too close to 1.1: 430 rounds would tell" in text
    assert "one-sided 95% bound" in text


def test_an_sqnr_without_noise_is_infinite_and_not_missing() -> None:
    equal = check("sqnr_db", bound="min", limit=30.0, value=float("inf"), interval=None)
    ((_, *cells),) = rows(markdown.render(verdict(judged(equal))))
    assert cells == ["SQNR", "∞ dB", "", "≥ 30 dB", "", "✅ passed"]


def test_the_ruler_shows_on_which_side_of_the_limit_the_interval_lies() -> None:
    assert ruler(check()) == "━━━●━━┃······"
    assert ruler(check(limit=0.1)) == "━━━━━━╋●━━━━━"
    assert ruler(check(limit=-1.0)).startswith("······┃")
    assert ruler(check(value=0.5, interval=None)) == "······●······"
    assert ruler(check(interval=(-float("inf"), 0.4))) == "●━━━━·┃······"
    assert ruler(check(value=None)) == ""


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
