"""What of the manual is generated."""

from __future__ import annotations

from pathlib import Path

from docs.tools import cli, errors

DOCS = Path(__file__).parents[1]


def generated() -> dict[str, str]:
    """Name of each page in docs/, and its Markdown."""
    return cli.pages() | errors.pages()
