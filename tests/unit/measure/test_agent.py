"""The agent on a device, spoken to as a client does: one copies, the others wait."""

from __future__ import annotations

import hashlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vitedge.measure.remote import agent

CONTENT = b"weights" * 1000
PARCEL = {"shelf": "bundles", "key": "a1b2"}


class Client:
    """One connection: an agent in a process of its own."""

    def __init__(self, cache: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, agent.__file__],
            env={**os.environ, "XDG_CACHE_HOME": str(cache)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout and self.process.stdout.readline().startswith(agent.GREETING)

    def ask(self, verb: str, payload: bytes = b"", **arguments: Any) -> None:
        assert self.process.stdin
        if payload:
            arguments["bytes"] = len(payload)
        request = json.dumps({"verb": verb, **PARCEL, **arguments}).encode()
        self.process.stdin.write(request + b"\n" + payload)
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())["answer"]

    def answered(self, within_s: float) -> bool:
        return bool(select.select([self.process.stdout], [], [], within_s)[0])


@pytest.fixture
def clients(tmp_path: Path) -> Iterator[tuple[Client, Client]]:
    both = Client(tmp_path), Client(tmp_path)
    yield both
    for client in both:
        client.process.communicate(timeout=10)


def test_two_clients_do_not_write_into_each_others_copy(
    clients: tuple[Client, Client], tmp_path: Path
) -> None:
    first, second = clients
    first.ask("held")
    assert first.answer() == {"whole": False, "bytes": {}}
    second.ask("held")
    assert not second.answered(0.5)
    first.ask("write", CONTENT, name="model.onnx", offset=0)
    first.answer()
    first.ask("seal", files={"model.onnx": hashlib.sha256(CONTENT).hexdigest()})
    assert first.answer() == []
    assert second.answer() == {"whole": True, "bytes": {}}
    assert (tmp_path / "vitedge" / "bundles" / "a1b2" / "model.onnx").read_bytes() == CONTENT


def test_who_waits_goes_on_when_the_other_is_gone(clients: tuple[Client, Client]) -> None:
    first, second = clients
    first.ask("held")
    first.answer()
    first.ask("write", CONTENT[:10], name="model.onnx", offset=0)
    first.answer()
    second.ask("held")
    first.process.kill()
    assert second.answer() == {"whole": False, "bytes": {"model.onnx": 10}}
