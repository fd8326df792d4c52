"""`vitedge bench --device`: against a real sshd on loopback, with a real install on the device."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from tests.support import sabotage
from tests.support.keys import pair
from tests.support.machine import ONNXRUNTIME
from tests.support.sshd import SSHD, Device
from vitedge.core import catalog
from vitedge.core.bundle import open_bundle
from vitedge.core.errors import LimitError, UnavailableError
from vitedge.core.progress import SILENT
from vitedge.measure.remote.address import parse_address
from vitedge.measure.remote.bench import bench
from vitedge.measure.remote.connection import Connection, Patience
from vitedge.measure.remote.upload import bundle_files, send

pytestmark = pytest.mark.skipif(
    SSHD is None or sys.platform != "linux",
    reason="needs OpenSSH's server, and Linux to look at it",
)

ROOT = Path(__file__).parents[2]
HASTY = Patience(reconnect_s=10, lease_s=3, poll_s=0.1)
LONG = ["--duration", "60", "--threads", "1"]  # s: until something stops it
NOBODY = "ssh://127.0.0.1:1"
SHORT = ["--duration", "0.1"]


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """One that serves. All workers of the test run share what is installed there."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    server = Device(tmp_path_factory.mktemp("sshd"), shared / "device-cache")
    serve(server)
    yield server
    server.lose_power()


@pytest.fixture
def user(device, monkeypatch):
    """The environment of a user whose ssh configuration knows the device."""
    environment = device.client()
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    return environment


@pytest.fixture
def int8(bundles):
    return bundles["onnxruntime", "int8"]


def running(device, what):
    lines = []
    for pid in device.processes():
        with suppress(OSError):
            lines.append(Path(f"/proc/{pid}/cmdline").read_text())
    return any(what in line for line in lines)


def wait_for(condition, limit_s=60):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


def serve(device):
    device.start(PIP_CONSTRAINT=ROOT / "constraints.txt")


def timing(device):
    """Whether a bench on the device has begun."""
    return running(device, "vitedge\0bench")


def bench_on(address, bundle, options=SHORT, patience=HASTY):
    command = ["bench", open_bundle(bundle), *options, "--json"]
    (measured,) = bench([parse_address(address)], command, SILENT, patience)
    return measured


def refused(device, bundle):
    measured = bench_on(device.address, bundle)
    assert measured.error and not measured.reports
    return measured.error


@pytest.fixture
def in_background(device, user, int8):
    """Begin a bench from this process; once it times there, returns what waits for its end."""
    with ThreadPoolExecutor(1) as pool:

        def begin(options=LONG, **patience):
            hasty = replace(HASTY, **patience)
            result = pool.submit(bench_on, device.address, int8, options, hasty)
            wait_for(lambda: timing(device))
            return result

        yield begin


def stored(device):
    """What the device keeps, by inode."""
    cache = device.cache / "vitedge"
    return {path: path.stat().st_ino for path in (*cache.glob("files/*"), *cache.glob("venv-*/*"))}


def test_benches_on_every_device_at_once_and_copies_and_installs_once(
    device, user, bundles, tmp_path, vitedge_process, vitedge
):
    for precision in ("fp32", "int8"):
        bundle = bundles["onnxruntime", precision]
        shutil.copytree(bundle, tmp_path / bundle.name)
    artifact = tmp_path / bundle.name
    same_machine = [device.address, device.other_address]
    devices = [word for address in (*same_machine, NOBODY) for word in ("--device", address)]
    options = (*devices, "--threads", 1, "--duration", 0.3, "--json")
    ran = vitedge_process("bench", artifact, *options, code=3, **user)
    assert f"error: cannot reach {NOBODY}" in ran.stderr
    assert "waiting for another vitedge (pid " in ran.stderr
    assert not device.processes()
    assert not list((device.cache / "vitedge" / "jobs").iterdir())

    entries = ran.document["devices"]
    assert [entry["device"] for entry in entries] == same_machine
    for entry in entries:
        (report,) = entry["reports"]
        assert report["latency"]["speedup"] > 0 and report["host"]["threads"] == 1
        assert report["parity"]["agreement"] == 1 and not report["parity"]["broken"]
        assert report["device"] == entry["device"]
    kept = [json.loads(path.read_text()) for path in artifact.glob("report-*.json")]
    assert {report["device"] for report in kept} == set(same_machine)
    assert "latency" not in json.loads((artifact / "report.json").read_text())

    before = stored(device)
    target = tmp_path / "mine.toml"  # a user's own file names the address
    text = (ROOT / "targets" / f"{ONNXRUNTIME}.toml").read_text()
    target.write_text(f'device = "{device.address}"\n{text}')
    keys = pair(tmp_path, "release")
    for path in (artifact, artifact.with_name(artifact.name.replace("int8", "fp32"))):
        vitedge("sign", path, "--key", keys.private)
    trust = ("--trust", keys.public)  # checked here: the device has no such key
    photograph = tmp_path / "a cat.jpg"
    Image.new("RGB", (900, 600), "teal").save(photograph)
    files = ("--end-to-end", photograph)
    said = vitedge("bench", artifact, "--device", target, *trust, *SHORT, *files, **user).stdout
    assert "end to end of 1 image of 0.54 megapixels (a cat.jpg)" in said
    assert f"on {device.address.removeprefix('ssh://')}" in said
    assert f"{device.address}: digits on onnx" in said
    assert before.items() <= stored(device).items()
    assert len(list(device.cache.glob("vitedge/venv-*"))) == 1


def test_a_lost_connection_is_taken_up_again(device, in_background, capsys):
    result = in_background(["--duration", "1.5", "--threads", "1"])
    device.cut()
    measured = result.result(60)
    assert measured.error is None
    assert measured.reports[0].latency.n > 0
    said = capsys.readouterr().err
    assert "connection lost, trying again" in said and "connected again" in said


@contextmanager
def connected(address):
    connection = Connection(parse_address(address), SILENT, HASTY)
    yield connection
    connection.close()


def test_a_copy_goes_on_where_it_stopped(device, user, small_bundle, tmp_path):
    bundle = open_bundle(small_bundle(tmp_path / "large", os.urandom(3 * 2**20)))
    files = bundle_files(bundle)
    model = files["model.onnx"]
    half, size = model.path.read_bytes()[: 2 * 2**20], 3 * 2**20
    with connected(device.address) as connection:
        assert connection.call("write", half, sha=model.sha256, offset=0, size=size)
        device.cut()
        total = sum(file.path.stat().st_size for file in files.values())
        assert send(files, connection, SILENT) == total - len(half)
        assert send(files, connection, SILENT) == 0


CLIENT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from tests.e2e.test_devices import LONG, bench_on
bench_on(sys.argv[1], Path(sys.argv[2]), LONG)
"""


def stop_the_user(device, bundle, how, condition):
    """End a process that benches for long, once `condition` holds."""
    process = subprocess.Popen([sys.executable, "-c", CLIENT, device.address, bundle], cwd=ROOT)
    wait_for(condition)
    process.send_signal(how)
    assert process.wait(60) != 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_running_when_the_user_stops(device, user, int8, how):
    stop_the_user(device, int8, how, lambda: timing(device))
    if how == signal.SIGINT:
        assert not timing(device)
    wait_for(lambda: not device.processes())
    assert not list((device.cache / "vitedge" / "jobs").iterdir())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_install_ends_with_its_client(other, int8, how):
    other.start()
    stop_the_user(other, int8, how, lambda: running(other, "-m\0venv"))
    wait_for(lambda: not other.processes())


def test_power_lost_in_the_middle_is_said(device, in_background):
    result = in_background()
    device.lose_power()
    serve(device)
    error = result.result(60).error
    assert isinstance(error, UnavailableError)
    assert "lost power" in error.what and device.address in error.what


def test_a_device_that_stays_away_is_said(device, in_background):
    result = in_background(reconnect_s=1)
    device.lose_power()
    error = result.result(60).error
    serve(device)
    assert isinstance(error, UnavailableError)
    assert "is gone" in error.what and "refused" in error.what


def test_an_artifact_for_another_machine_is_refused_there(
    device, user, small_bundle, tmp_path, vitedge
):
    target = msgspec.structs.replace(catalog.targets()[ONNXRUNTIME], machines=("riscv64",))
    folder = small_bundle(tmp_path / "elsewhere", target=target)
    said = vitedge("bench", folder, "--device", device.address, code=3, **user).stderr
    assert device.address in said and "riscv64" in said and "fix: " in said
    assert not device.processes()


def test_a_broken_baseline_fails_there_too(device, user, bundles, tmp_path):
    int8 = sabotage.reference(bundles, tmp_path, sabotage.classes_swapped)
    error = refused(device, int8)
    assert isinstance(error, LimitError) and device.address in error.what
    assert "FP32 baseline is broken" in error.what
    assert f"{int8.name.replace('int8', 'fp32')} does not give its own" in error.what


# -- devices that cannot be reached --------------------------------------------------------------


@pytest.fixture
def other(tmp_path, monkeypatch):
    """A device with nothing on it, that does not serve yet."""
    server = Device(tmp_path, tmp_path / "cache")
    monkeypatch.setenv("PATH", server.client()["PATH"])
    yield server
    server.lose_power()


def test_aliases_and_jump_hosts_of_the_users_configuration_work(other):
    other.start()
    where = f" HostName 127.0.0.1\n Port {other.port}\n"
    other.client(f"Host jump\n{where}Host orin\n{where} ProxyJump jump")
    with connected("ssh://orin") as connection:
        assert connection.call("hello").cache == str(other.cache / "vitedge")
    assert (other.folder / "sshd.log").read_text().count("Accepted publickey") == 2


def test_a_device_that_refuses_is_said_at_once(other, int8, vitedge):
    said = vitedge("bench", int8, "--device", other.address, code=3, PATH=os.environ["PATH"])
    assert f"cannot reach {other.address}" in said.stderr and "refused" in said.stderr
    assert "ssh -p" in said.stderr


@pytest.mark.parametrize(
    ("key", "what", "fix"),
    [
        ("known_hosts", "the host key of .* is not known", "compare its fingerprint"),
        ("host_key", "another host key than the one you know.*known_hosts:1$", "that line"),
        ("user_key", "does not let you in", "ssh-copy-id"),
        ("no python", "has no python3", "install Python 3.10"),
        ("an old python", "has Python 3.8.1, and vitedge needs 3.10$", "install a newer one"),
    ],
)
def test_why_a_device_does_not_serve_is_said_and_it_is_not_touched(other, int8, key, what, fix):
    known = other.folder / "known_hosts"
    if key == "known_hosts":
        known.write_text("")
    elif key.endswith("_key"):
        other.make_key(key)
    elif key == "an old python":  # says so, and ssh passes it on
        (other.folder / "bin" / "ssh").write_text("#!/bin/sh\necho '3.8.1 (default)' >&2; exit 1\n")
    before = known.read_text()
    other.start(PATH=other.folder / "nothing" if key == "no python" else os.environ["PATH"])
    error = refused(other, int8)
    assert re.search(what, error.what) and fix in error.fix
    assert known.read_text() == before and not other.cache.exists()


def left_bytes(device):
    return sum(path.stat().st_size for path in device.cache.rglob("*") if path.is_file())


def test_a_disk_that_fills_is_said_and_freed(other, int8):
    other.start(file_bytes=2**20)
    error = refused(other, int8)
    assert "too large" in error.what and "free some space" in error.fix
    assert not left_bytes(other)


def test_a_file_altered_on_the_way_is_not_opened(other, int8):
    relay = other.folder / "relay.py"
    relay.write_text(
        "import os, subprocess, sys\n"
        "child = subprocess.Popen(os.environ['SSH_ORIGINAL_COMMAND'], shell=True,\n"
        "                         stdin=subprocess.PIPE)\n"
        "while block := os.read(0, 2**16):\n"
        "    child.stdin.write(block.replace(b'PK\\x05\\x06', b'PK\\x05\\x07'))\n"
        "    child.stdin.flush()\n"
        "child.stdin.close()\n"
        "sys.exit(child.wait())\n"
    )
    key = (other.folder / "user_key.pub").read_text()
    command = f'command="{sys.executable} {relay}" {key}'
    (other.folder / "authorized_keys").write_text(command)
    other.start()
    error = refused(other, int8)
    assert "altered" in error.what and ".whl" in error.what
    assert not left_bytes(other)


@pytest.mark.heavy  # it makes another virtual environment
def test_a_device_without_a_network_takes_wheels_that_were_carried_there(other, int8):
    nothing = {"PIP_INDEX_URL": "http://127.0.0.1:1/", "PIP_CONFIG_FILE": os.devnull}
    other.start(**nothing, PIP_RETRIES=0, PIP_FIND_LINKS="")
    error = refused(other, int8)
    assert "pip could not install" in error.what and "offline" in error.fix
    assert not other.processes()
    needs = ("onnxruntime", "typer", "rich", "numpy", "pillow", "msgspec", "tomli")
    pip = (sys.executable, "-m", "pip", "download", "-qq", "-c", ROOT / "constraints.txt")
    carried = other.cache / "vitedge" / "offline"
    subprocess.run([*pip, "--only-binary=:all:", "-d", carried, *needs], check=True)
    measured = bench_on(other.address, int8)
    assert measured.error is None and measured.reports


def test_what_is_no_address_is_the_users_mistake(int8, vitedge):
    ran = vitedge("bench", int8, "--device", "orin", code=2)
    assert "--device orin is no address" in ran.stderr


@pytest.mark.heavy
def test_a_fleet_is_measured_and_goes_on_where_it_ended(device, user, int8, vitedge, tmp_path):
    artifact = tmp_path / int8.name
    shutil.copytree(int8.parent, tmp_path, dirs_exist_ok=True)
    fleet = tmp_path / "fleet.toml"
    units = (device.address, device.other_address, NOBODY)
    fleet.write_text(
        "max_p50_ms = 1e6\n" + "".join(f'[[devices]]\naddress = "{u}"\n' for u in units)
    )
    command = ("bench", artifact, "--fleet", fleet, *SHORT, "--json")
    first = vitedge(*command, code=3)
    (over,) = json.loads(first.stdout)["fleet"]
    assert (over["units"], over["within"]) == (2, 2) and NOBODY in first.stderr
    reports = [path.read_bytes() for path in sorted(artifact.glob("report-*.json"))]
    again = vitedge(*command, code=3)
    assert "2 of 3 devices were measured before" in again.stderr
    assert [path.read_bytes() for path in sorted(artifact.glob("report-*.json"))] == reports
