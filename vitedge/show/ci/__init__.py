"""A verdict in the formats that CI systems read, by the name `--write NAME=FILE` takes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from vitedge.gate.verdict import Verdict
from vitedge.show.ci import benchmark_action, junit, markdown


def _json(verdict: Verdict) -> str:
    return msgspec.json.format(msgspec.json.encode(verdict), indent=2).decode() + "\n"


FORMATS: dict[str, Callable[[Verdict], str]] = {
    "junit": junit.render,
    "markdown": markdown.render,
    "json": _json,
    "smaller-is-better": benchmark_action.smaller_is_better,
    "bigger-is-better": benchmark_action.bigger_is_better,
}
