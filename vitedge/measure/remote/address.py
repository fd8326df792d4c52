"""Where a device is: an ssh address, or a target's file that names one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vitedge.core.errors import InputError
from vitedge.core.spec import SSH_ADDRESS, Target
from vitedge.core.toml import load_toml

FORM = "ssh://[user@]host[:port]"


@dataclass(frozen=True)
class Address:
    """What ssh connects to; `host` may be an alias of the user's own OpenSSH configuration."""

    text: str
    """As the user wrote it."""
    destination: str
    """`host` or `user@host`."""
    port: int | None
    """None: what the configuration says."""

    @property
    def slug(self) -> str:
        """Part of a file's name: `orin`, `root@orin-2222`."""
        return re.sub(r"[^A-Za-z0-9._@]+", "-", self.text.removeprefix("ssh://")).strip("-")


def parse_address(text: str) -> Address:
    """The address `ssh://[user@]host[:port]`, or that in the target's file `text`.

    Raises InputError where it is neither.
    """
    if text.endswith(".toml"):
        address = load_toml(Path(text), Target).device
        if not address:
            raise InputError(f"{text} names no device", fix=f'add: device = "{FORM}"')
        return parse_address(address)
    match = re.fullmatch(SSH_ADDRESS, text)
    if not match or not 0 < int(match["port"] or 22) < 2**16:
        raise InputError(
            f"`device={text!r}` is no address", fix=f"pass {FORM}, or a target's .toml with one"
        )
    destination = f"{match['user']}@" if match["user"] else ""
    destination += match["host"].strip("[]")
    return Address(text, destination, int(match["port"]) if match["port"] else None)
