"""Write the gate's limits into action.yml, as `Limits` declares them: `make action`."""

from __future__ import annotations

import re
from pathlib import Path

from vitedge.cli.flags import flag
from vitedge.gate.limits import LIMITS

ACTION = Path(__file__).with_name("action.yml")


def with_limits(action: str) -> str:
    """The text of an action.yml with an input and a variable for each limit, between its marks."""
    limits = {flag(name).removeprefix("--"): limit for name, limit in LIMITS.items()}
    blocks = {
        "inputs": "".join(
            f'  {name}:\n    description: {limit.description}\n    default: ""\n'
            for name, limit in limits.items()
        ),
        "variables": "".join(
            f"        VITEDGE_GATE_{name.upper().replace('-', '_')}: ${{{{ inputs.{name} }}}}\n"
            for name in limits
        ),
    }
    for mark, lines in blocks.items():
        before, start, rest = action.partition(f"# limits' {mark}, by `make action`\n")
        end = re.search(" *# end\n", rest)
        assert start and end
        action = before + start + lines + rest[end.start() :]
    return action


if __name__ == "__main__":
    ACTION.write_text(with_limits(ACTION.read_text(encoding="utf-8")), encoding="utf-8")
