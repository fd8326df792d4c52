"""Numbers and names as people read them, alike on a terminal, on a page and in CI."""

from __future__ import annotations

import math
import unicodedata

DASH = "–"
LONGEST = 200
"""Characters of a text from outside that are shown on one line."""


def number(value: float | None, form: str = ".3g") -> str:
    """`value` as `format` writes it by `form`, a dash for None and ∞ without end.

    `g` asks for significant figures, never with an exponent unless under a millionth: 150, 1,234,
    0.00012; what is whole stays whole.
    """
    if value is None:
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if not form.endswith("g") or not abs(value) >= 1e-6:
        return f"{value:{form}}"
    sign, _, digits = form[:-1].partition(".")
    power = math.floor(math.log10(abs(float(f"{value:{form}}"))))
    decimals = max(0, int(digits) - 1 - power)
    text = f"{value:{sign},.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def plain(value: object) -> str:
    """A setting as people write it: `a, b`, `key = value`, 86,567,656."""
    if isinstance(value, dict):
        return ", ".join(f"{key} = {plain(entry)}" for key, entry in value.items()) or DASH
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(entry) for entry in value) or DASH
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def one_line(text: str) -> str:
    """`text` without line breaks, control, unpaired or invisible characters, cut at LONGEST."""
    spaced = " ".join(text.split())
    shown = "".join(char for char in spaced if not unicodedata.category(char).startswith("C"))
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"
