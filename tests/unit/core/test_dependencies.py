"""No lower bound, and no pin, lets in a version with a hole that vitedge can be reached by."""

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[3]
CHECKED = "2026-11-30"
"""When the list was last compared with the advisories; `make audit` asks for newer ones."""
HOLES = {
    "torch": ("2.10", "CVE-2026-24747: weights_only=True runs code of a checkpoint"),
    "onnx": ("1.21", "CVE-2026-27489, CVE-2026-34446: external data outside the model's folder"),
    "onnxruntime": (
        "1.24.1",
        "reads external data outside the model's folder (tried up to 1.23.2)",
    ),
    "protobuf": ("6.31.1", "CVE-2025-4565: recursion of a nested message in its Python parser"),
    "jinja2": ("3.1.6", "CVE-2025-27516: a template leaves its sandbox"),
    "transformers": ("4.53", "CVE-2025-2099 and others: regular expressions that never end"),
}
"""The first version without it, and what it is."""
LEFT = {("onnxruntime", "3.10"): "no later one is made for it; every path is checked before"}
"""Bounds that stay below, by package and Python, and why."""


def bounds():
    """Each requirement of each extra on each Python that it is for: package, Python, its least."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for text in (text for group in groups for text in group):
        requirement = Requirement(text)
        for python in ("3.10", "3.11"):
            if requirement.marker and not requirement.marker.evaluate(
                {"python_version": python, "sys_platform": "linux"}
            ):
                continue
            (least,) = [s.version for s in requirement.specifier if s.operator == ">="] or ["0"]
            yield requirement.name.lower(), python, least


@pytest.mark.parametrize("package", HOLES)
def test_no_requirement_lets_in_a_known_hole(package):
    fixed, why = HOLES[package]
    required = {(python, least) for name, python, least in bounds() if name == package}
    assert {python for python, _ in required} == {"3.10", "3.11"}
    low = {
        (python, least)
        for python, least in required
        if Version(least) < Version(fixed) and (package, python) not in LEFT
    }
    assert not low, why


def test_no_pin_has_a_known_hole():
    pins = 0
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        pin, _, marker = line.partition(";")
        name, _, version = pin.strip().partition("==")
        fixed, why = HOLES.get(name.lower(), ("0", ""))
        if not line.startswith("#") and not ("<" in marker and (name, "3.10") in LEFT):
            assert Version(version) >= Version(fixed), why
            pins += name.lower() in HOLES
    assert pins >= len(HOLES) - 1  # transformers has none, or one
