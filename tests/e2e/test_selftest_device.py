"""`vitedge selftest --device`: against a real sshd on loopback, which loses power on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.sshd import SSHD, Device

pytestmark = pytest.mark.skipif(
    SSHD is None or sys.platform != "linux",
    reason="needs OpenSSH's server, and Linux to look at it",
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def device(tmp_path_factory):
    """One that serves; what is installed there is shared with the other tests of devices."""
    base = tmp_path_factory.getbasetemp()
    server = Device(tmp_path_factory.mktemp("sshd"), base / "device-cache")  # each worker's own
    for folder in server.cache.glob("vitedge/selftest-*"):
        shutil.rmtree(folder)
    serve(server)
    yield server
    server.lose_power()


def serve(device):
    device.start(PIP_CONSTRAINT=ROOT / "constraints.txt")


@pytest.fixture
def begin(device, bundles, tmp_path):
    """Start a selftest on the device in a process of its own."""
    pair = [str(bundles["onnxruntime", precision]) for precision in ("fp32", "int8")]
    folder = tmp_path / "evidence"
    words = ["selftest", *pair, "--quick", "--device", device.address, "--output", str(folder)]

    def start():
        return subprocess.Popen(
            [sys.executable, "-m", "vitedge", *words, "--json"],
            env={**os.environ, **device.client()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start, folder


def until(process, text):
    """Read what a process says until it says `text`."""
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"it has not said '{text}'")


def finished(process):
    """The record of one that passes, and all that it says."""
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return json.loads(out), said


def there(device):
    """What a device knows of its selftests."""
    paths = device.cache.glob("vitedge/selftest-*/selftest.json")
    return [json.loads(path.read_text()) for path in paths]


@pytest.mark.heavy
def test_a_device_that_lost_its_power_goes_on_where_it_stopped(device, begin):
    start, folder = begin
    process = start()
    until(process, "passed: validate digits fp32")
    device.lose_power()
    (before,) = there(device)
    kept = [step for step in before["steps"] if step["status"] == "passed"]
    assert before["exit_code"] is None and len(kept) >= 3
    process.kill()  # it would try to connect again for a while
    process.communicate()

    serve(device)
    record, said = finished(start())
    assert f"{device.address}: selftest of" in said and f"{len(kept)} passed before" in said
    assert [step for step in record["steps"] if step["status"] == "passed"][: len(kept)] == kept
    assert record["device"] == device.address and record["device_host"]["cores"]
    assert record["exit_code"] == 0 and len(there(device)) == 1
    assert json.loads((folder / "selftest.json").read_text()) == record
    page = (folder / "selftest.html").read_text()
    assert device.address in page and "bench digits" in page
    reports = list(folder.glob("artifacts/*/*/report-*.json"))
    assert len(reports) == 2
    assert all(json.loads(path.read_text())["device"] == device.address for path in reports)


@pytest.mark.heavy
def test_one_whose_client_was_killed_goes_on_where_it_stopped(device, begin):
    """The device ends the job that nobody asks for after two minutes; the next waits for that."""
    start, folder = begin
    process = start()
    until(process, "passed: parity of digits int8")
    process.kill()
    process.communicate()
    assert json.loads((folder / "selftest.json").read_text())["exit_code"] is None
    began = time.monotonic()
    record, said = finished(start())
    assert record["exit_code"] == 0 and time.monotonic() - began < 200
    assert "passed before, and are not repeated" in said
    assert len(there(device)) == 1
