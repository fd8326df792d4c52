"""What every page is made of: the templates, text made harmless, one write."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitedge.core import files
from vitedge.core.errors import InputError
from vitedge.core.terminal import printable
from vitedge.show.table import PAGE

if TYPE_CHECKING:
    from jinja2 import Environment

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may do with a page, whatever slipped into it: no script, no network."""
LARGEST_BYTES = 2_000_000
LONGEST, LONGEST_TEXT = 160, 4000
"""Characters of a name, and of any text, that are shown; with the tables' most rows they keep a
page small."""
MOST_ROWS = 1000
SIGNS = {"failed": "✗", "inconclusive": "?", "passed": "✓"}
"""So that an answer does not hang on its colour; the worst first."""


def check_writable(path: Path) -> None:
    """Refuse, before any work, a path that no page can be written to."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"`html='{path}'` is no HTML file's name", fix="let it end in .html")
    files.check_writable(path, "`html`")


def write(page: str, path: Path) -> None:
    """Write a page in one rename. Raises InputError."""
    files.write(path, page)


def render(template: str, **values: Any) -> str:
    """A template of this folder with `values`, all of them escaped but markup."""
    return _environment().get_template(template).render(values)


def short(text: str) -> str:
    """A text from a file, printable and no longer than a name."""
    return printable(text if len(text) <= LONGEST else f"{text[:LONGEST]}…").replace("\n", "�")


def answer(outcome: str) -> str:
    """An answer with its sign."""
    return f"{SIGNS[outcome]} {outcome}"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def harmless(value: object) -> object:
        text = isinstance(value, str) and not isinstance(value, Markup)
        return printable(str(value)[:LONGEST_TEXT]) if text else value

    def breakable(text: str) -> Markup:
        """A name that may break after its separators."""
        html = escape(short(text))
        for separator in "/._":
            html = html.replace(separator, f"{separator}<wbr>")
        return Markup(html)

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=harmless,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"short": short, "breakable": breakable, "answer": answer}
    constants = {"PAGE": PAGE, "POLICY": Markup(POLICY), "SIGNS": SIGNS, "MOST_ROWS": MOST_ROWS}
    environment.globals |= constants
    return environment
