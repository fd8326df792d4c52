"""What every page is made of: the document with its style, text made harmless, one write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from vitedge.core import files
from vitedge.core.errors import InputError

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may do with a page, whatever slipped into it: no script, no network."""
LARGEST_BYTES = 2_000_000
LONGEST = 160
"""Characters of a name that are shown; with the tables' most rows it keeps a page small."""


def check_writable(path: Path) -> None:
    """Refuse, before any work, a path that no page can be written to."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--html {path} is no HTML file's name", fix="let it end in .html")
    files.check_writable(path, "--html")


def write(page: str, path: Path) -> None:
    """Write a page in one rename. Raises InputError."""
    files.write(path, page)


def document(title: str, body: Iterable[str]) -> str:
    """The whole page; `title` is plain text, `body` is HTML."""
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return "\n".join(
        (
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{safe(title)}</title>',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>\n{style}</style></head><body><main>",
            *body,
            "</main></body></html>",
            "",
        )
    )


def safe(text: str, longest: int = LONGEST) -> str:
    """Text from a file, as HTML that does nothing: escaped, printable, not too long."""
    short = text if len(text) <= longest else f"{text[:longest]}…"
    return escape("".join(char if char.isprintable() else "�" for char in short))


def scroll(label: str) -> str:
    """The opening tag of a box that scrolls sideways, by keyboard as well."""
    return (
        f'<div class="scroll" tabindex="0" role="group" '
        f'aria-label="{safe(label)}, scrolls sideways">'
    )


def definitions(facts: Mapping[str, str]) -> Iterable[str]:
    """A list of what is what."""
    yield "<dl>"
    for key, value in facts.items():
        yield f"<dt>{safe(key)}</dt><dd>{safe(value, 2000)}</dd>"
    yield "</dl>"
