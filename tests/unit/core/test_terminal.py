"""Whatever stands in a file, a terminal and a log get text."""

import io
import sys

import pytest
from rich.console import Console

from vitedge.core import terminal
from vitedge.core.progress import steps
from vitedge.core.terminal import TextOnly, printable, shortened

STEERING = ["\x1b[31m", "\x07", "\x08", "\x7f", "\x9b31m", "\u202e", "\u2066", "\u2028", "\ud800"]


@pytest.mark.parametrize("sign", STEERING, ids=ascii)
def test_nothing_that_steers_is_printed(sign):
    stream = io.StringIO()
    print(f"a{sign}b\nc", file=TextOnly(stream))
    printed = stream.getvalue()
    assert sign not in printed
    assert printed.startswith("a�")
    assert printed.endswith("b\nc\n")
    assert printable(printed) == printed


def test_what_people_write_is_left_alone():
    text = "zèbre 猫 × – ✓\n"
    stream = io.StringIO()
    TextOnly(stream).write(text)
    assert stream.getvalue() == text


def test_bars_of_libraries_go_back_to_where_they_stood():
    stream = io.StringIO()
    guarded = TextOnly(stream)
    guarded.write("\r50% a\rb")
    guarded.write("\x1b[A")
    assert stream.getvalue() == "\r50% a�b\x1b[A"


def test_rich_draws_below():
    stream = io.StringIO()
    Console(file=TextOnly(stream), force_terminal=True).print("[red]x")
    assert "\x1b[31mx" in stream.getvalue()


def test_both_streams_are_text_only_once(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    terminal.text_only()
    terminal.text_only()
    assert isinstance(sys.stderr.rich_proxied_file, io.StringIO)
    print("\x1b]0;x", file=sys.stderr)
    assert sys.stderr.getvalue() == "�]0;x\n"


def test_notes_and_bars_say_text(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    below = Terminal()
    monkeypatch.setattr(sys, "stderr", TextOnly(below))
    with steps() as progress:
        progress("layer \x9bevil", 1, 2, "[bold]\x07")
        progress.note("of \u202eevil")
        print("a library's \x1b]0;warning", file=sys.stderr)
    drawn = below.getvalue()
    assert "\x9b" not in drawn
    assert "\u202e" not in drawn
    assert "\x1b]0;" not in drawn
    assert "of �evil" in drawn
    assert isinstance(sys.stderr, TextOnly)
    assert sys.stderr.rich_proxied_file is below


def test_long_texts_are_cut():
    assert shortened("x" * 5000) == "x" * 999 + "…"
    assert shortened("short") == "short"
