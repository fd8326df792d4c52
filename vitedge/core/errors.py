"""What can go wrong, as one tree: every error knows its exit code and how to mend it.

VitedgeError
├── LimitError          1  an artifact broke a limit the user set
├── InputError          2  the user's mistake: bad input, bad flag
│   └── SharedError     2  the model, the images or the disk: of no use to any target
├── UnavailableError    3  a dependency or hardware is missing
└── InconclusiveError   4  what was measured proves nothing
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class VitedgeError(Exception):
    """Base of all errors shown to a user without a traceback.

    `what` says what is wrong and where; `fix` says what to do about it.
    """

    exit_code = 1
    exports: object = None
    """The `Exports` of an export that wrote other bundles all the same."""

    def __init__(self, what: str, *, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


class LimitError(VitedgeError):
    """An artifact does not meet a limit the user asked for."""

    exit_code = 1


class InputError(VitedgeError):
    """Something the user gave is wrong: a file, a flag, a name, an image."""

    exit_code = 2


class SharedError(InputError):
    """What all targets share is of no use: the model, the images or the disk."""


class UnavailableError(VitedgeError):
    """A package or a piece of hardware this step needs is not here."""

    exit_code = 3


class InconclusiveError(VitedgeError):
    """What was measured cannot tell whether an artifact is sound."""

    exit_code = 4


LISTED = 30


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a fix hint for the unknown `name`: the closest known one, or those there are."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    more = f", … ({len(known)})" if len(known) > LISTED else ""
    return f"choose one of: {', '.join(known[:LISTED])}{more}"


def first_few(names: Sequence[str]) -> str:
    """Up to five names, and whether there are more."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def error_line(error: BaseException) -> str:
    """The first line of a library's message; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def missing(package: str, extra: str) -> UnavailableError:
    """The error for an optional package that is not installed."""
    return UnavailableError(
        f"this step needs the package '{package}', which is not installed",
        fix=f"pip install 'vitedge[{extra}]'",
    )
