"""What reaches a terminal or a log: text alone, whatever stands in a file."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

LONGEST = 1000
"""Characters of a text that are shown in one place."""
_BARS = re.compile(r"\r|(\x1b\[A)+$")
"""How other libraries' bars go back to where they stood."""


def printable(text: str) -> str:
    """`text` without what would steer a terminal or a page; lines stay lines.

    That is C0, C1, DEL, unpaired surrogates and what turns the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in text)


def shortened(text: str, longest: int = LONGEST) -> str:
    """`text`, cut where it is longer than anybody reads."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


class TextOnly:
    """A stream on which nothing is written but text.

    rich draws on the stream below, `rich_proxied_file`: what it is given has to be text before.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        bars = _BARS.match(text)
        steering = bars[0] if bars else ""
        self.rich_proxied_file.write(steering + printable(text[len(steering) :]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def text_only() -> None:
    """Let stdout and stderr of this process be text only: libraries' warnings, tracebacks too."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, TextOnly):
            setattr(sys, name, TextOnly(stream))
