"""Steps of an export that are kept: none is done twice, and what comes of it is the same."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from vitedge.core.bundle import sha256
from vitedge.core.errors import LimitError
from vitedge.core.progress import SILENT
from vitedge.core.step_cache import StepCache
from vitedge.export.job import export
from vitedge.export.request import ExportRequest
from vitedge.models.sources import ModelRequest

RECIPE = """
name = "{name}"
description = "of a test"
num_samples = 24
activations = "{activations}"
weights = "minmax"
"""


@pytest.fixture
def recipe(tmp_path):
    def write(name, activations):
        (tmp_path / f"{name}.toml").write_text(RECIPE.format(name=name, activations=activations))
        return str(tmp_path / f"{name}.toml")

    return write


@pytest.fixture
def images(tmp_path):
    """A few digits to evaluate on: all of them take their time."""
    from vitedge.core.spec import Preprocess
    from vitedge.data.open import open_images

    spec = Preprocess(height=32, width=32)
    batch = next(open_images("digits", "evaluation", spec, list("0123456789")).batches(60))
    np.savez(tmp_path / "few.npz", images=batch.images, labels=batch.labels)
    return str(tmp_path / "few.npz")


@pytest.fixture
def run(tmp_path, images):
    """Export digits with a cache; returns what came, and how many steps were made of each kind."""

    def run(calibration, cached=True, **further):
        cache = StepCache(tmp_path / "cache", note=pytest.fail) if cached else None
        request = ExportRequest(
            ModelRequest(),
            targets=("onnxruntime-cpu",),
            precision="int8",
            only=True,
            calibration=calibration,
            eval_data=images,
            duration_s=0,
            output=tmp_path / "out",
            force=True,
            cache=cache,
        )
        exports = export(replace(request, **further), SILENT)
        return exports, dict(cache.made) if cache else {}

    return run


def replace_host(report):
    """Without what is of the moment."""
    return msgspec.structs.replace(report, host=None)


def test_only_what_depends_on_a_change_is_made_again(run, recipe):
    first, second = recipe("first", "minmax"), recipe("second", "mse")
    exports, made = run(first)
    assert made == {"onnx": 1, "statistics": 1, "qdq": 1, "bundle": 2, "validation": 2}
    again, made = run(first)
    assert made == {}
    for one, other in zip(exports, again, strict=True):
        assert one.bundle.manifest == other.bundle.manifest and one.report == other.report
        assert one.notes() == other.notes()
    other, made = run(second)
    assert made == {"qdq": 1, "bundle": 1, "validation": 1}
    uncached, _ = run(second, cached=False)
    for one, same in zip(other, uncached, strict=True):
        assert one.bundle.manifest == same.bundle.manifest
        assert replace_host(one.report) == replace_host(same.report)


@pytest.mark.heavy
def test_damage_is_made_good(run, recipe, tmp_path, monkeypatch):
    exports, _ = run(recipe("first", "minmax"))
    for path in (tmp_path / "cache").glob("bundle/*/model.onnx"):
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
    noted = []
    monkeypatch.setattr(pytest, "fail", noted.append)
    again, made = run(recipe("first", "minmax"))
    assert made == {"bundle": 2, "validation": 2} and any("damaged" in note for note in noted)
    (_, int8), (_, before) = again, exports
    assert sha256(int8.bundle.path / "model.onnx") == before.bundle.model_files["model.onnx"]


@pytest.mark.heavy
def test_a_bound_is_kept_to_whatever_is_cached(run, recipe):
    run(recipe("first", "minmax"))
    with pytest.raises(LimitError):
        run(recipe("first", "minmax"), min_sqnr_db=90.0)
