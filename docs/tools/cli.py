"""The reference of the command line, a page for each command, from Typer itself."""

from __future__ import annotations

import re

import typer
import typer.cli

from vitedge.cli.main import app

FOLDER = "cli"


def pages() -> dict[str, str]:
    """Name of each page in docs/, and its Markdown."""
    group = typer.main.get_command(app)
    context = group.make_context("vitedge", ["--help"], resilient_parsing=True)
    text = typer.cli.get_docs_for_click(obj=group, ctx=context, name="vitedge")
    start, *commands = re.split(r"(?m)^## (?=`vitedge )", text)
    head, listed = start.split("**Commands**:")
    names = re.findall(r"(?m)^\* `([\w-]+)`:", listed)
    lines = []
    markdown = {}
    for name, command in zip(names, commands, strict=True):
        title, body = command.split("\n", 1)
        markdown[f"{FOLDER}/{name}.md"] = f"# {title}\n{_level_up(body).rstrip()}\n"
        lines.append(f"| [{name}]({name}.md) | {_first_sentence(body)} |")
    table = "\n".join(["| command | does |", "|---|---|", *lines])
    markdown[f"{FOLDER}/index.md"] = f"{head.rstrip()}\n\n{table}\n"
    return markdown


def _level_up(body: str) -> str:
    """Headings of subcommands, one level up."""
    return re.sub(r"(?m)^##(#+ `vitedge )", r"#\1", body)


def _first_sentence(body: str) -> str:
    paragraph = body.strip().split("\n\n")[0]
    return " ".join(paragraph.split()).rstrip(".")
