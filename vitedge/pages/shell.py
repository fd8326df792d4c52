"""What every page is made of: the document with its style, text made harmless, one atomic write."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from vitedge.errors import InputError

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may do with a page, whatever slipped into it: no script, no network."""
LARGEST_BYTES = 2_000_000
LONGEST = 160
"""Characters of a name that are shown; with the tables' most rows it keeps a page small."""


def check_writable(path: Path) -> None:
    """Refuse, before any work, a path that no page can be written to."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--html {path} is no HTML file's name", fix="let it end in .html")
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {path}", fix="give a file in a folder of your own")


def write(page: str, path: Path) -> None:
    """Write a page in one rename. Raises InputError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(page, encoding="utf-8", errors="replace")
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}", fix="free some space") from error
    finally:
        temporary.unlink(missing_ok=True)


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
