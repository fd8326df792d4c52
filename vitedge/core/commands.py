"""Commands to copy: pasted into a shell, they are what was meant, whatever a path holds."""

from __future__ import annotations

import shlex


def command(*words: object, **options: object) -> str:
    """A `vitedge` command for a shell, its options by their parameters' names."""
    line = ["vitedge", *map(str, words)]
    for name, value in options.items():
        line.append(f"--{name.replace('_', '-')}")
        line += [] if value is True else [str(value)]
    return shlex.join(line)
