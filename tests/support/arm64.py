"""A 64-bit Arm machine in a folder: Debian's Python with ONNX Runtime and vitedge, run by QEMU.

Nothing of it is installed on this machine. Numbers are what Arm computes; times mean nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EMULATOR = "qemu-aarch64-static"
DEBIAN = ("python3.11", "libstdc++6", "libgomp1")
ONNXRUNTIME = "onnxruntime==1.23.2"
"""1.32 dies at its import under QEMU 7.2."""
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")


class Arm64:
    """The machine in `folder`, which is filled: 400 MB."""

    def __init__(self, folder: Path) -> None:
        self._root, self._packages = folder / "root", folder / "packages"
        self._unpack(folder / "apt")
        self._install(folder)

    def python(self, code: str, *arguments: object, cpu: str) -> str:
        """What `code` prints on a `cpu` that QEMU knows, on one thread."""
        place = ("-E", f"PYTHONPATH={self._packages}", "-E", "OMP_NUM_THREADS=1")
        python = self._root / "usr/bin/python3.11"
        return _run(EMULATOR, "-L", self._root, "-cpu", cpu, *place, python, "-c", code, *arguments)

    def _unpack(self, apt: Path) -> None:
        """Debian's packages and all that they need, by an apt of its own."""
        for part in ("state/lists/partial", "cache/archives/partial"):
            (apt / part).mkdir(parents=True)
        status = apt / "status"
        status.touch()
        settings = {
            **{"APT::Architecture": "arm64", "APT::Architectures": "arm64"},
            **{"APT::Sandbox::User": "root", "Debug::NoLocking": "1"},
            **{"Dir::State": apt / "state", "Dir::State::status": status},
            "Dir::Cache": apt / "cache",
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        _run("apt-get", *options, "-qq", "update")
        _run(
            *("apt-get", *options, "-qq", "--yes", "--no-install-recommends"),
            *("--download-only", "install", *DEBIAN),
        )
        for package in (apt / "cache/archives").glob("*.deb"):
            _run("dpkg", "-x", package, self._root)

    def _install(self, folder: Path) -> None:
        """vitedge's wheel and what a device with ONNX Runtime needs beside it."""
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
        _run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
        (wheel,) = folder.glob("*.whl")
        platforms = [word for name in PLATFORMS for word in ("--platform", name)]
        _run(
            *(*pip, "install", "--target", self._packages, *platforms, "--only-binary=:all:"),
            *("--python-version", "3.11", wheel, ONNXRUNTIME),
        )


def _run(*command: object) -> str:
    words = [str(word) for word in command]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(words, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout
