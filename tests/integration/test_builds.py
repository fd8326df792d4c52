"""torch and torchvision of two builds: what `doctor` and the errors say, and what `hf:` does."""

import json
import re

import pytest

from vitedge.core import builds
from vitedge.models.sources import imports

INDEX = "https://download.pytorch.org/whl"


@pytest.fixture
def installed(tmp_path):
    """A folder with packages of these versions, as pip leaves them; none does load."""

    def install(torch, torchvision, *, pin):
        for name, version, needs in (("torch", torch, ""), ("torchvision", torchvision, pin)):
            if not version:
                continue
            info = tmp_path / f"{name}-{version.partition('+')[0]}.dist-info"
            for folder in (tmp_path / name, info):
                folder.mkdir()
            (tmp_path / name / "__init__.py").write_text("raise RuntimeError('does not exist')")
            (tmp_path / name / "version.py").write_text(f"__version__ = '{version}'\n")
            required = f"Requires-Dist: torch (=={needs})\n" if needs else ""
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version.partition('+')[0]}\n"
                f"{required}"
            )
        return tmp_path

    return install


@pytest.mark.parametrize(
    ("torch", "torchvision", "pin", "command"),
    [
        (
            *("2.13.0+cpu", "0.28.0+cu130", "2.13.0"),
            f"pip install --force-reinstall --no-deps torchvision==0.28.0 --index-url {INDEX}/cpu",
        ),
        (
            *("2.13.0+cu130", "0.27.0+cu130", "2.12.0"),
            f"pip install --upgrade torch==2.13.0 torchvision --index-url {INDEX}/cu130",
        ),
        ("2.13.0+cu126", "0.28.0+cu128", "2.13.0", ""),  # of one major version: that loads
        ("2.13.0", "0.28.0", "2.13.0", ""),  # macOS
        ("2.5.0a0+872d972e41.nv24.8", "0.20.0a0+afc54f7", "", ""),  # a vendor's
    ],
)
def test_doctor_names_both_builds_and_what_mends_them(
    installed, vitedge_process, torch, torchvision, pin, command
):
    ran = vitedge_process(
        "doctor", "--json", PYTHONPATH=str(installed(torch, torchvision, pin=pin))
    )
    (check,) = (c for c in json.loads(ran.stdout)["checks"] if c["name"] == "torchvision")
    assert check["status"] == ("no" if command else "yes")
    assert torchvision in check["detail"] and check["detail"].endswith(command)
    assert not command or torch in check["detail"]


def test_a_torchvision_that_does_not_load_is_no_obstacle_to_hf(
    hf_folder, tmp_path, vitedge_process
):
    (tmp_path / "broken" / "torchvision").mkdir(parents=True)
    module = tmp_path / "broken" / "torchvision" / "__init__.py"
    module.write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    ran = vitedge_process("inspect", f"hf:{hf_folder}", PYTHONPATH=str(module.parents[1]))
    assert re.search("torchvision .*: transformers goes on without it", ran.stdout)


def test_a_torchvision_that_does_not_load_is_named_to_those_that_need_it(
    installed, vitedge_process
):
    place = installed("", "0.28.0+cu118", pin="2.13.0")
    ran = vitedge_process("inspect", "timm:test_vit", PYTHONPATH=str(place), code=3)
    assert "torchvision 0.28.0+cu118 does not fit torch" in ran.stderr
    assert "fix: pip install --force-reinstall --no-deps torchvision==0.28.0" in ran.stderr


def test_a_package_that_a_model_needs_is_named(tmp_path, vitedge):
    config = {"architectures": ["DinatForImageClassification"], "model_type": "dinat"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    said = vitedge("inspect", f"hf:{tmp_path}", code=3).stderr
    assert "needs the package 'natten'" in said and "fix: pip install natten" in said


def test_timm_is_asked_for_where_it_is_not_there_beside_a_torchvision_that_does_not_fit(
    monkeypatch,
):
    monkeypatch.setattr(builds, "misfit", lambda: "torchvision does not fit torch")
    said = "TimmWrapperConfig requires the timm library but it was not found"
    error = imports.unimportable("transformers", "hf", ImportError(said))
    assert error.fix.startswith("pip install --upgrade 'vitedge[timm]', then pip install")
