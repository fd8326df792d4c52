"""The host is described from real /proc and cgroup text of the machines we ship to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from vitedge import host
from vitedge.host import Host, describe, int8_note, usable_cores

ZEN3 = """processor	: 0
vendor_id	: AuthenticAMD
model name	: AMD EPYC 7763 64-Core Processor
flags		: fpu sse2 avx f16c avx2 vaes vpclmulqdq
processor	: 1
model name	: something else
"""
SAPPHIRE_RAPIDS = """model name	: Intel(R) Xeon(R) Platinum 8488C
flags		: fpu avx avx2 avx512f avx_vnni avx512_bf16 avx512_vnni amx_bf16 amx_tile amx_int8
"""
RASPBERRY_PI_5 = """processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimddp
CPU part	: 0xd0b

Revision	: d04170
Model		: Raspberry Pi 5 Model B Rev 1.0
"""
RASPBERRY_PI_4 = """Features	: fp asimd evtstrm crc32 cpuid
Model		: Raspberry Pi 4 Model B Rev 1.4
"""
GRAVITON_3 = """Features	: fp asimd asimdhp asimddp sve svei8mm svebf16 i8mm bf16 dgh rng
"""


@pytest.mark.parametrize(
    ("cpuinfo", "name", "isa"),
    [
        (ZEN3, "AMD EPYC 7763 64-Core Processor", ("avx2",)),
        (
            SAPPHIRE_RAPIDS,
            "Intel(R) Xeon(R) Platinum 8488C",
            ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "avx512_bf16"),
        ),
        (RASPBERRY_PI_5, "Raspberry Pi 5 Model B Rev 1.0", ("asimddp",)),
        (RASPBERRY_PI_4, "Raspberry Pi 4 Model B Rev 1.4", ()),
        (GRAVITON_3, None, ("asimddp", "i8mm", "bf16")),
        ("", None, None),
    ],
)
def test_cpuinfo(cpuinfo, name, isa):
    assert host._parse_cpuinfo(cpuinfo) == (name, isa)


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
    note = int8_note(msgspec.structs.replace(describe(1), isa=isa))
    assert (note is not None) == warned
    if note:
        assert "INT8" in note and note.endswith(".")


def test_describe_this_machine_and_survive_json():
    here = describe(threads=2)
    assert here.cpu and here.os and here.machine
    assert here.threads == 2
    assert 1 <= here.cores <= (os.cpu_count() or 1)
    assert here.memory_bytes is None or here.memory_bytes > 2**28
    assert here.runtimes["onnxruntime"].count(".") >= 1
    assert msgspec.json.decode(msgspec.json.encode(here), type=Host) == here


def test_describing_imports_no_runtime():
    code = (
        "import sys; from vitedge.host import describe; describe(1); "
        "assert not {'onnxruntime', 'openvino', 'torch', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_usable_cores_honours_affinity():
    code = (
        "import os; from vitedge.host import usable_cores; "
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); assert usable_cores() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert usable_cores() <= len(os.sched_getaffinity(0))


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


V1_GROUP = {"proc/self/cgroup": "3:cpuset:/\n2:cpu,cpuacct:/pod/app\n0::/"}


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        # v2: the tightest of the group and those above it
        (
            {
                "proc/self/cgroup": "0::/pod/app",
                "sys/fs/cgroup/cpu.max": "max 100000",
                "sys/fs/cgroup/pod/cpu.max": "50000 100000",
                "sys/fs/cgroup/pod/app/cpu.max": "90000 100000",
            },
            0.5,
        ),
        # v2 in a container: its own group is the root
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "25000 100000"}, 0.25),
        # v1, and the path of the host's namespace is not mounted
        (
            {
                **V1_GROUP,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "30000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            0.3,
        ),
        # no limit
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, None),
        (
            {
                **V1_GROUP,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        ({}, None),  # no cgroups
    ],
)
def test_cgroup_quota(tmp_path, files, quota):
    assert host._cgroup_quota(tree(tmp_path, files)) == (quota or os.cpu_count())
