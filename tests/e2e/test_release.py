"""What a release uploads, sdist and wheel, in a clean environment of each Python promised."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_wheel import ROOT, run
from tests.support.freeze import FROZEN, RUNNABLE
from vitedge import __version__

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
ASK = 'import sys; print("%d.%d" % sys.version_info[:2], sys.executable)'


def interpreter(version):
    """A Python of `version`: of this process, of the PATH, or of pyenv or uv; None without one."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        return sys._base_executable
    places = (Path.home() / ".pyenv/versions", Path.home() / ".local/share/uv/python")
    managed = [p for place in places for p in place.glob(f"*{version}.*/bin/python{version}")]
    for candidate in (*managed, shutil.which(f"python{version}")):
        if candidate is None:
            continue
        asked = subprocess.run([candidate, "-c", ASK], capture_output=True, text=True, check=False)
        if asked.returncode == 0 and asked.stdout.startswith(f"{version} "):
            return str(candidate)
    return None


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """sdist, and the wheel that is made of it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.mark.heavy
def test_what_is_uploaded(released):
    assert sorted(path.name for path in released.iterdir()) == [
        f"vitedge-{__version__}-py3-none-any.whl",
        f"vitedge-{__version__}.tar.gz",
    ]
    listed = run("tar", "-tzf", *released.glob("*.tar.gz"), cwd=released).split()
    root = f"vitedge-{__version__}"
    for file in (
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "vitedge/py.typed",
        "targets/tensorrt.toml",
    ):
        assert f"{root}/{file}" in listed
    assert not [name for name in listed if re.search(r"__pycache__|\.venv|/artifacts/", name)]


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["whl", "tar.gz"])
@pytest.mark.parametrize("version", PYTHONS)
def test_it_works_where_nothing_else_is(released, tmp_path, version, kind):
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    (file,) = released.glob(f"*.{kind}")
    run(python, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    binaries = tmp_path / "venv" / "bin"
    # no constraints: these are the versions that a user gets
    run(binaries / "pip", "install", "-q", f"{file}[onnxruntime,trust]", cwd=tmp_path)
    vitedge = binaries / "vitedge"
    said = run(vitedge, "--version", cwd=tmp_path).splitlines()
    assert said[0] == __version__ and said[1].startswith(f"Python {version}.")
    assert said[2].startswith("ONNX Runtime ")
    kept = shutil.copytree(FROZEN / __version__, tmp_path / "set")
    bundle, trust = kept / RUNNABLE, ("--trust", kept / "release.pub")
    parity = json.loads(run(vitedge, "validate", bundle, *trust, "--json", cwd=tmp_path))["parity"]
    assert parity["agreement"] == 1 and not parity["broken"]
    report = json.loads(run(vitedge, "bench", bundle, "--duration", "0.2", "--json", cwd=tmp_path))
    assert report["latency"]["speedup"] > 0 and report["host"]["python"].startswith(version)
    run(vitedge, "gate", bundle, "--max-drop=5", "--baseline", kept / "baseline.npz", cwd=tmp_path)
    run(vitedge, "inspect", bundle, "--html", "page.html", cwd=tmp_path)
    assert len(json.loads(run(vitedge, "targets", "list", "--json", cwd=tmp_path))) >= 5
    checks = json.loads(run(vitedge, "doctor", "--json", cwd=tmp_path))["checks"]
    assert {check["name"]: check["status"] for check in checks}["onnxruntime"] == "yes"
    code = "import vitedge, sys; print(vitedge.__version__, 'numpy' in sys.modules)"
    assert run(binaries / "python", "-c", code, cwd=tmp_path).split() == [__version__, "False"]
