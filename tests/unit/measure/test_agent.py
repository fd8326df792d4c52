"""The agent on a device, spoken to as a client does: one copies, the others wait."""

import hashlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from vitedge.measure.remote import connection

AGENT = Path(connection.__file__).with_name("agent.py")
CONTENT = b"weights" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


class Client:
    """One connection: an agent in a process of its own."""

    def __init__(self, cache):
        self.process = subprocess.Popen(
            [sys.executable, AGENT],
            env={**os.environ, "XDG_CACHE_HOME": str(cache)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.requests, self.answers = self.process.stdin, self.process.stdout
        self.requests.write(b"hello \n")
        self.requests.flush()
        assert self.answers.readline().startswith(b"hello {")

    def ask(self, verb, payload=None, **arguments):
        if payload is not None:
            arguments["bytes"] = len(payload)
        request = json.dumps({"verb": verb, **arguments}).encode()
        self.requests.write(request + b"\n" + (payload or b""))
        self.requests.flush()

    def answer(self):
        return json.loads(self.answers.readline())["answer"]

    def answered(self, within_s):
        return bool(select.select([self.answers], [], [], within_s)[0])


@pytest.fixture
def clients(tmp_path):
    """The first has begun to copy, and the second waits."""
    first, second = Client(tmp_path), Client(tmp_path)
    first.ask("held", files=[SHA])
    assert first.answer() == {SHA: 0}
    first.ask("write", CONTENT[:10], sha=SHA, offset=0, size=len(CONTENT))
    assert first.answer()
    second.ask("held", files=[SHA])
    assert not second.answered(0.5)
    yield first, second
    for client in (first, second):
        client.process.communicate(timeout=10)


def test_two_clients_do_not_write_into_each_others_copy(clients, tmp_path):
    first, second = clients
    first.ask("write", CONTENT[10:], sha=SHA, offset=10, size=len(CONTENT))
    assert first.answer()
    assert (tmp_path / "vitedge" / "files" / SHA).read_bytes() == CONTENT
    plan = {"commands": [], "environment": {}, "lease_s": 1}
    first.ask("start", job="1", venv="", files={"0/model.onnx": SHA}, plan=plan)
    first.answer()
    assert second.answer() == {}


def test_who_waits_goes_on_when_the_other_is_gone(clients):
    first, second = clients
    first.process.kill()
    assert second.answer() == {SHA: 10}


def test_the_cache_is_its_users_alone(tmp_path):
    (tmp_path / "vitedge").mkdir(mode=0o777)
    (tmp_path / "vitedge").chmod(0o777)
    client = Client(tmp_path)
    client.process.communicate(timeout=10)
    for folder in ("", "files", "jobs"):
        assert (tmp_path / "vitedge" / folder).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("linked", ["vitedge", "vitedge/files"])
def test_a_link_in_the_place_of_the_cache_is_refused(linked, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / linked).parent.mkdir(exist_ok=True)
    (tmp_path / linked).symlink_to(tmp_path / "elsewhere")
    ran = subprocess.run(
        [sys.executable, AGENT],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        input=b"hello \n",
        capture_output=True,
        timeout=10,
    )
    answer = json.loads(ran.stdout.removeprefix(b"hello "))
    assert "is a link" in answer["what"] and linked in answer["what"]
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("how", ["changed", "linked"])
def test_what_lies_in_the_cache_is_hashed_again_before_it_is_used(how, tmp_path):
    client = Client(tmp_path)
    client.ask("held", files=[SHA])
    client.answer()
    client.ask("write", CONTENT, sha=SHA, offset=0, size=len(CONTENT))
    assert client.answer()
    file = tmp_path / "vitedge" / "files" / SHA
    if how == "linked":
        (tmp_path / "other").write_bytes(CONTENT)
        file.unlink()
        file.symlink_to(tmp_path / "other")
    else:
        file.write_bytes(CONTENT[::-1])
    plan = {"commands": [], "environment": {}, "lease_s": 1}
    client.ask("start", job="1", venv="", files={"0/model.onnx": SHA}, plan=plan)
    refused = json.loads(client.answers.readline())
    assert "was changed" in refused["what"] and not file.is_symlink() and not file.exists()
    client.process.communicate(timeout=10)
