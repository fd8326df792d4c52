"""Artifacts for Arm, run on Arm: `make arm`. Emulated, so that nothing is said of latency."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.support.arm64 import EMULATOR, Arm64

pytestmark = pytest.mark.heavy
TARGET = "onnxruntime-arm"
LEAST_DB = {"fp32": 130.0, "fp16": 70.0, "int8": 45.0}
"""Measured: 133.6, 72.6 and 47.4."""
PARITY = """
import json, platform, sys
from pathlib import Path
from vitedge.core.bundle import open_bundle
from vitedge.measure.accuracy import parity
machine = platform.machine()
for path in sys.argv[1:]:
    measured = parity.check(open_bundle(Path(path))).parity
    print(json.dumps([machine, measured.numerics.sqnr_db, measured.agreement, measured.broken]))
"""


@pytest.fixture(scope="module")
def arm(tmp_path_factory):
    missing = [tool for tool in (EMULATOR, "apt-get", "dpkg") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: run 'make arm' on Debian or Ubuntu")
    return Arm64(tmp_path_factory.mktemp("arm64"))


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory, vitedge):
    output = tmp_path_factory.mktemp("artifacts")
    vitedge("export", "digits", "--target", TARGET, "--int8", "--output", output)
    return {precision: output / f"digits-{TARGET}-{precision}" for precision in LEAST_DB}


@pytest.mark.parametrize("cpu", ["cortex-a76", "max"])
def test_an_arm_cpu_computes_what_was_exported(arm, artifacts, cpu):
    lines = arm.python(PARITY, *artifacts.values(), cpu=cpu).splitlines()
    for precision, line in zip(artifacts, lines, strict=True):
        machine, level_db, agreement, broken = json.loads(line)
        print(f"{cpu}, {precision}: {level_db:.1f} dB")
        assert (machine, broken, agreement) == ("aarch64", "", 1.0)
        assert level_db >= LEAST_DB[precision]
