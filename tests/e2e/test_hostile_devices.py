"""A device that is no friend: whatever it answers, one line says so, in time."""

import os
import sys
import time
from pathlib import Path

import pytest

from tests.support.sshd import SSHD, Device
from vitedge.core.bundle import open_bundle
from vitedge.core.progress import SILENT
from vitedge.measure.remote import answers
from vitedge.measure.remote.address import parse_address
from vitedge.measure.remote.bench import bench
from vitedge.measure.remote.connection import Patience

pytestmark = pytest.mark.skipif(SSHD is None or os.name != "posix", reason="needs sshd")

HASTY = Patience(reconnect_s=2, lease_s=3, poll_s=0.05)
STRANGER = """
import json, sys, time
to, of = sys.stdout.buffer, sys.stdin.buffer
def say(line):
    to.write(line if isinstance(line, bytes) else json.dumps(line).encode())
    to.write(b"\\n")
    to.flush()
def asked():
    request = json.loads(of.readline())
    of.read(request.get("bytes", 0))
    return request
of.read(int(of.readline()))
greeting = of.readline().strip(b"\\n")
def greet(machine):
    to.write(greeting)
    say(machine)
HERE = {"answer": {"cache": "/there", "free_bytes": 10**12}}
RIGHT = {"held": {}, "write": True, "install": "venv-" + 16 * "0", "start": None, "stop": None}
DONE = {"log": "", "offset": 0, "exit": 0}
def serve(**wrong):
    greet(HERE)
    while True:
        verb = asked()["verb"]
        say({"answer": {**RIGHT, **wrong}[verb]})
"""
CASES = {
    "prints for ever": ("while True: to.write(b'line\\n' * 1000)", "and no greeting"),
    "is silent": ("time.sleep(60)", "has not answered 'hello' for 1 s"),
    "stops listening": ("greet(HERE); time.sleep(60)", "has not answered 'held' for 1 s"),
    "an endless line": ("greet(HERE)\nwhile True: to.write(b'0' * 10**6)", "a line of 1 MiB"),
    "no JSON": ("greet(HERE); asked(); say(b'hello')", "JSON is malformed"),
    "an empty line": ("greet(HERE); asked(); say(b'')", "agent does"),
    "an empty answer": ("greet(HERE); asked(); say({})", "missing required field `what`"),
    "nested": ("greet(HERE); asked(); say(b'{\"answer\":' + b'[' * 10**5)", "agent does"),
    "another type": ("serve(held=[1])", "Expected `object`"),
    "a negative size": ("serve(held={64 * 'a': -1})", ">= 0"),
    "no name of a folder": ("serve(install='/etc')", "matching regex"),
    "no machine": ("greet({'answer': {'cache': '', 'free_bytes': 1}})", "length >= 1"),
    "an unknown signal": ("serve(poll={**DONE, 'exit': -1000})", ">= -64"),
    "no report": ("serve(poll={**DONE, 'result': ''})", "cut short"),
    "no reports": (
        "serve(poll={**DONE, 'result': '{\"reports\": []}'})",
        "0 reports for 1 bundles",
    ),
    "a list": ("serve(poll={**DONE, 'result': '[]'})", "cut short"),
    "a refusal of any length": (
        "greet(HERE); asked(); say({'what': 'x' * 10**5, 'fix': 'y' * 10**5})",
        "xxx",
    ),
}


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    server = Device(tmp_path_factory.mktemp("sshd"), tmp_path_factory.mktemp("cache"))
    key = (server.folder / "user_key.pub").read_text()
    command = f'command="{sys.executable} {server.folder}/stranger.py" {key}'
    (server.folder / "authorized_keys").write_text(command)
    server.start()
    yield server
    server.lose_power()


@pytest.mark.parametrize(("deed", "said"), CASES.values(), ids=CASES)
def test_what_a_stranger_answers_is_held_to_type_size_and_time(
    deed, said, device, bundles, monkeypatch
):
    monkeypatch.setenv("PATH", device.client()["PATH"])
    monkeypatch.setattr(answers, "LINE_BYTES", 2**20)
    for verb in answers.LIMITS_S:
        monkeypatch.setitem(answers.LIMITS_S, verb, 1.0)
    (device.folder / "stranger.py").write_text(STRANGER + deed)
    bundle = open_bundle(Path(bundles["onnxruntime", "int8"]))
    began_s = time.monotonic()
    command = ["bench", bundle, "--duration", "0.1", "--json"]
    (measured,) = bench([parse_address(device.address)], command, SILENT, HASTY)
    assert not measured.reports and measured.error
    assert said in measured.error.what and device.address in measured.error.what
    assert len(measured.error.what) < 3000 and "\n" not in measured.error.what
    assert time.monotonic() - began_s < 10
