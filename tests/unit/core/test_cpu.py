"""The CPU is described from real /proc and sysfs text of the machines we ship to."""

import msgspec
import pytest

from vitedge.core.cpu import (
    Clocking,
    clocking,
    frequencies_mhz,
    parse_cpuinfo,
)

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
    assert parse_cpuinfo(cpuinfo) == (name, isa)


CPU = "sys/devices/system/cpu"


def policy(index, governor, current, lowest, highest):
    """What cpufreq says of a group of cores, frequencies in kHz."""
    folder = f"{CPU}/cpufreq/policy{index}"
    return {
        f"{folder}/scaling_governor": governor,
        f"{folder}/scaling_cur_freq": str(current),
        f"{folder}/cpuinfo_min_freq": str(lowest),
        f"{folder}/scaling_max_freq": str(highest),
    }


LAPTOP = {
    **policy(0, "powersave", 2100000, 400000, 4700000),
    f"{CPU}/intel_pstate/no_turbo": "0",
    f"{CPU}/smt/active": "1",
}
ORIN = {
    **policy(0, "schedutil", 729600, 115200, 1510400),
    **policy(4, "performance", 1510400, 115200, 1510400),
}
VIRTUAL = {
    "proc/cpuinfo": "processor\t: 0\ncpu MHz\t\t: 2445.430\nprocessor\t: 1\ncpu MHz\t\t: 2600.0\n",
    f"{CPU}/smt/active": "0",
}


SLOW = Clocking(governor="powersave", current_mhz=2100, min_mhz=400, max_mhz=4700)
MIXED = Clocking(
    governor="performance, schedutil", current_mhz=1510.4, min_mhz=115.2, max_mhz=1510.4
)


@pytest.mark.parametrize(
    ("files", "clocks"),
    [
        (LAPTOP, msgspec.structs.replace(SLOW, turbo=True, smt=True)),
        (ORIN, MIXED),
        (VIRTUAL, Clocking(current_mhz=2600, smt=False)),
        ({}, Clocking()),
    ],
    ids=["laptop", "orin", "virtual", "nothing"],
)
def test_clocks(tree, files, clocks):
    assert clocking(tree(files)) == clocks


def test_a_boost_switch_of_amd_and_the_frequency_of_every_core(tree):
    assert clocking(tree({f"{CPU}/cpufreq/boost": "0"})).turbo is False
    assert frequencies_mhz(tree(VIRTUAL)) == [2445.43, 2600]
