"""The error that another vitedge ended with, from what it said."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from vitedge.core.errors import (
    InconclusiveError,
    InputError,
    LimitError,
    UnavailableError,
    VitedgeError,
)

ERROR, FIX = "error: ", "  fix: "
_SIGNALS = {number.value: number.name for number in signal.Signals}


def process_error(where: str, code: int, messages: Sequence[str]) -> VitedgeError:
    """The error of the kind that the exit code says; below 0 it is a signal's."""
    what = next((line.removeprefix(ERROR) for line in messages if line.startswith(ERROR)), "")
    fix = next((line.removeprefix(FIX) for line in messages if line.startswith(FIX)), "")
    if code < 0:
        what = what or f"killed by {_SIGNALS.get(-code, -code)}; is there memory enough?"
    kinds = (LimitError, InputError, UnavailableError, InconclusiveError)
    kind = next((kind for kind in kinds if what and kind.exit_code == code), VitedgeError)
    last = next((line for line in reversed(messages) if line.strip()), f"exit code {code}")
    return kind(f"{where}: {what or last}", fix=fix)
