"""What the agent on a device may answer: typed, bounded and in time, as from a stranger."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

LINE_BYTES = 64 * 2**20
"""Of an answer, at most; a report has some 10 kB."""
BANNER_BYTES = 2**20
"""Of what a login shell prints before the agent greets, at most."""
TEXT_LENGTH = 1000
"""Of what is wrong and of its fix, at most: what is longer is cut."""

Bytes = Annotated[int, Meta(ge=0, le=2**53)]


class Machine(msgspec.Struct, frozen=True):
    """The device, as the agent's greeting describes it."""

    cache: Annotated[str, Meta(min_length=1, max_length=4096)]
    free_bytes: Bytes


class Status(msgspec.Struct, frozen=True):
    """A job, as `poll` describes it."""

    log: str
    """What it said since the offset that was asked for."""
    offset: Bytes
    """From where to ask next."""
    exit: Annotated[int, Meta(ge=-64, le=255)] | None
    """None while it runs; a signal's number, negative, where one has ended it."""
    result: str = ""


class _Refusal(msgspec.Struct, frozen=True):
    what: Annotated[str, Meta(min_length=1)]
    fix: str


TYPES: dict[str, Any] = {
    "hello": Machine,
    "held": dict[Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")], Bytes],
    "write": bool,
    "install": Annotated[str, Meta(pattern=r"\Avenv-[0-9a-f]{16}\Z")],
    "start": None,
    "poll": Status,
    "stop": None,
}
"""Of each verb's answer."""
LIMITS_S = {
    "hello": 60.0,
    "held": 3600.0,  # while another client copies and installs
    "write": 600.0,
    "install": 3600.0,
    "start": 600.0,
    "poll": 60.0,
    "stop": 60.0,
}
"""Longest time to each answer, seconds."""


class RefusedError(Exception):
    """The agent cannot do what it was asked: what is wrong, and how to mend it."""


def decode(verb: str, line: bytes) -> Any:
    """The answer to `verb`, of its type.

    Raises RefusedError, and ValueError where it is no answer to that.
    """
    try:
        parts = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        if "answer" in parts:
            return msgspec.json.decode(parts["answer"], type=TYPES[verb])
        refusal = msgspec.json.decode(line, type=_Refusal)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    raise RefusedError(refusal.what[:TEXT_LENGTH], refusal.fix[:TEXT_LENGTH])
