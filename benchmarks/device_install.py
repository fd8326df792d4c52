"""What the device install weighs, and that there are wheels for it on Arm and old Pythons.

`python -m benchmarks.device_install` needs the package index; nothing is left behind.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from vitedge.measure.remote import wheel

MACHINES = ("x86_64", "aarch64")
GLIBC = ("manylinux2014", "manylinux_2_27", "manylinux_2_28", "manylinux_2_31")
"""Tags of wheels that a system as old as JetPack 6 takes (glibc 2.35)."""
PYTHONS = ("3.10", "3.12")
RUNTIMES = ("onnxruntime", "openvino")
LIMIT_MB = 250
"""Of the install with ONNX Runtime on x86-64."""
HEAVY = {"torch", "onnx", "nncf"}


def size_mb(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6


def resolve(package, machine, python, folder):
    """Download what pip would install there, wheels only; returns their names, none if it fails."""
    platforms = [word for tag in GLIBC for word in ("--platform", f"{tag}_{machine}")]
    pip = (sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check")
    only = ("--only-binary=:all:", "--python-version", python, "--dest", str(folder))
    subprocess.run([*pip, *only, *platforms, package], check=False)
    return sorted(path.name.split("-")[0] for path in folder.glob("*.whl"))


def installed(package, folder):
    """A clean venv's site-packages with `package`."""
    venv.create(folder, with_pip=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    before = size_mb(packages)
    pip = (folder / "bin" / "pip", "install", "-qq", "--disable-pip-version-check")
    subprocess.run([*map(str, pip), package], check=True)
    print(f"\ninstalled on this machine: {size_mb(packages) - before:.0f} MB", end="")
    print(f" (limit {LIMIT_MB} MB), and the venv's own pip {before:.0f} MB; the largest:")
    return packages


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        packed = wheel.pack(folder)
        print(f"{'runtime':12} {'machine':8} {'Python':6} {'wheels':>6} {'MB':>5}  heavy ones")
        for runtime in RUNTIMES:
            for machine in MACHINES:
                for python in PYTHONS:
                    there = folder / f"{runtime}-{machine}-{python}"
                    found = resolve(f"{packed}[{runtime}]", machine, python, there)
                    heavy = ", ".join(sorted(HEAVY & set(found))) or "none"
                    size = f"{size_mb(there):5.0f}"
                    print(f"{runtime:12} {machine:8} {python:6} {len(found):6} {size}  {heavy}")
        packages = installed(f"{packed}[onnxruntime]", folder / "venv")
        sizes = {path.name: size_mb(path) for path in packages.iterdir() if path.is_dir()}
        for package, size_of in sorted(sizes.items(), key=lambda pair: -pair[1])[:8]:
            print(f"  {package:20} {size_of:6.1f} MB")


if __name__ == "__main__":
    main()
