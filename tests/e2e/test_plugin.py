"""The example of a plug-in, installed by pip: runtime, source and package kind are vitedge's."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where pip has installed it, apart from everything else."""
    folder = tmp_path_factory.mktemp("site")
    words = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    subprocess.run(
        [*words, "--no-build-isolation", "--target", folder, PLUGIN],
        check=True,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    return folder


@pytest.fixture(scope="module")
def artifact(site, vitedge_process):
    """A model of its source, for its runtime."""
    vitedge_process(
        *("export", "patches:16", "--target", PLUGIN / "desk.toml", "--int8", "--duration", 0),
        *("--calib-data", "random", "--calibration", "fast", "--output", site / "out"),
        PYTHONPATH=str(site),
    )
    return site / "out" / "patches16-desk-int8"


def test_its_model_runs_on_its_runtime(artifact, site, vitedge_process, tmp_path):
    image = tmp_path / "grey.png"
    Image.new("RGB", (80, 80), (99, 99, 99)).save(image)
    ran = vitedge_process("predict", artifact, image, "--top", 3, "--json", PYTHONPATH=str(site))
    (prediction,) = ran.document["predictions"]
    scores = [likely["score"] for likely in prediction["top"]]
    assert len(scores) == 3 and 0 < scores[0] <= 1
    checks = vitedge_process("doctor", "--json", PYTHONPATH=str(site)).document["checks"]
    assert {"abacus": "yes"}.items() <= {check["name"]: check["status"] for check in checks}.items()


def test_its_package_kind_is_one_of_ours(artifact, site, vitedge_process, tmp_path):
    package = ("package", artifact, "--as")
    folder = tmp_path / "archive"
    vitedge_process(*package, "zip", "--output", folder, PYTHONPATH=str(site))
    with zipfile.ZipFile(folder / "artifact.zip") as archive:
        assert set(archive.namelist()) == {"model.abacus", "labels.txt"}
    ran = vitedge_process(
        *package, "triton", "--output", tmp_path / "t", code=2, PYTHONPATH=str(site)
    )
    assert "which a package of kind 'triton' does not take" in ran.stderr


def test_its_own_errors_are_one_message(site, vitedge_process, tmp_path):
    words = ("export", "patches:7", "--target", PLUGIN / "desk.toml", "--output", tmp_path)
    ran = vitedge_process(*words, code=2, PYTHONPATH=str(site))
    assert "patches:7 is no patch size" in ran.stderr and "divisor of 64" in ran.stderr


def test_a_source_that_does_not_load_is_named(site, vitedge_process, tmp_path):
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vitedge.sources]\nbroken = no_such_module:load\n")
    words = ("export", "broken:x", "--target", "onnxruntime", "--output", tmp_path / "out")
    ran = vitedge_process(*words, code=3, PYTHONPATH=str(tmp_path))
    assert "the source 'broken' does not load: No module named 'no_such_module'" in ran.stderr


def test_without_it_its_names_are_unknown(vitedge, tmp_path):
    ran = vitedge("export", "patches:16", "--target", "onnxruntime", "--output", tmp_path, code=2)
    assert "unknown model 'patches:16'" in ran.stderr
