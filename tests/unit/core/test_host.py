"""This machine is described without a runtime, and latencies of others are told apart."""

import os
import subprocess
import sys

import msgspec
import pytest

from vitedge.core.cpu import Clocking
from vitedge.core.host import Host, fingerprint, int8_note
from vitedge.core.machine import describe_machine, usable_cores


@pytest.mark.parametrize(
    ("isa", "warned"),
    [
        (("avx2",), True),
        (("avx2", "avx512f"), True),
        ((), True),
        (("avx2", "avx_vnni"), False),
        (("avx2", "avx512f", "avx512_vnni"), False),
        (("asimddp",), False),
        (None, False),
    ],
)
def test_int8_note_where_there_is_no_int8_dot_product(isa, warned):
    note = int8_note(msgspec.structs.replace(describe_machine(1), isa=isa))
    assert (note is not None) == warned
    if note:
        assert "INT8" in note and note.endswith(".")


def test_describe_this_machine_and_survive_json():
    machine = describe_machine(threads=2)
    assert machine.cpu and machine.os and machine.machine
    assert machine.threads == 2
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert machine.memory_bytes is None or machine.memory_bytes > 2**28
    assert machine.runtimes["onnxruntime"].count(".") >= 1
    assert msgspec.json.decode(msgspec.json.encode(machine), type=Host) == machine


def test_describing_imports_no_runtime():
    code = (
        "import sys; from vitedge.core.machine import describe_machine as d; d(1); "
        "assert not {'onnxruntime', 'openvino', 'torch', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_usable_cores_honours_affinity():
    code = (
        "import os; from vitedge.core.machine import usable_cores; "
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); assert usable_cores() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert usable_cores() <= len(os.sched_getaffinity(0))


PI = Host(
    cpu="Raspberry Pi 5 Model B Rev 1.0",
    isa=("asimddp",),
    accelerator=None,
    os="Debian GNU/Linux 12, Linux 6.6.31",
    python="3.11.2",
    runtimes={"onnxruntime": "1.22.0", "torch": "2.9.0"},
    threads=4,
    cores=4,
    memory_bytes=8 << 30,
    governor="performance",
    machine="aarch64",
    gpus=(),
    clocking=Clocking(governor="performance", current_mhz=2400, min_mhz=1500, max_mhz=2400),
    cpu_quota=None,
    memory_limit_bytes=None,
    container=None,
)


@pytest.mark.parametrize(
    ("changes", "alike"),
    [
        ({}, True),
        ({"os": "Debian GNU/Linux 12, Linux 6.6.62", "python": "3.11.9"}, True),
        ({"runtimes": {"onnxruntime": "1.22.0"}}, True),  # torch runs no artifact
        ({"container": "docker", "memory_limit_bytes": 1 << 30}, True),
        ({"clocking": msgspec.structs.replace(PI.clocking, current_mhz=1800)}, True),
        ({"cpu": "Raspberry Pi 4 Model B Rev 1.4"}, False),
        ({"threads": 2}, False),
        ({"cpu_quota": 1.5}, False),
        ({"governor": "ondemand"}, False),
        ({"clocking": msgspec.structs.replace(PI.clocking, max_mhz=1800)}, False),
        ({"runtimes": {"onnxruntime": "1.23.0"}}, False),
    ],
    ids=str,
)
def test_a_fingerprint_is_of_what_decides_a_latency(changes, alike):
    changed = msgspec.structs.replace(PI, **changes)
    assert (fingerprint(changed) == fingerprint(PI)) == alike


def test_a_fingerprint_is_the_same_in_another_process_and_from_a_report():
    code = (
        "from vitedge.core.host import fingerprint; from vitedge.core.machine import "
        "describe_machine; print(fingerprint(describe_machine(threads=2)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    machine = msgspec.json.decode(msgspec.json.encode(describe_machine(threads=2)), type=Host)
    assert done.stdout.strip() == fingerprint(machine)
    assert len(fingerprint(machine)) == 12
