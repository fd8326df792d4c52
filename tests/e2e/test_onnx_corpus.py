"""ONNX files as exporters write them come in, compute what they did, and run in INT8."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from benchmarks.onnx_corpus import TARGET, measure
from tests.support import control_flow
from tests.support.graphs import EVERYTHING
from tests.support.onnx_corpus import PREPROCESS, Row, rows
from tests.support.ptq import ptq
from vitedge.core import catalog
from vitedge.core.errors import InputError
from vitedge.core.progress import SILENT
from vitedge.data.calibration import CalibrationImages
from vitedge.export.onnx import export
from vitedge.export.request import images_of
from vitedge.graph.run import Runner
from vitedge.models.sources import ModelRequest, resolve
from vitedge.quant.int8 import Quantizer

RECIPE = msgspec.structs.replace(catalog.calibrations()["fast"], num_samples=4)
ALL = list(rows())
QUICK = [Row("paddle", 11, "open")]


def loaded(folder, path, **parameters):
    (folder / "p.toml").write_text(PREPROCESS)
    return resolve(ModelRequest(str(path), preprocess=folder / "p.toml", **parameters))


@pytest.mark.parametrize(
    "row",
    [*QUICK, *(pytest.param(r, marks=pytest.mark.heavy) for r in ALL if r not in QUICK)],
    ids=str,
)
def test_a_file_computes_what_it_did_and_all_that_is_planned_compiles_to_int8(tmp_path, row):
    pytest.importorskip("tensorrt_rtx")
    error, planned, int8, attention, fused, placed = measure(row, tmp_path)
    assert error <= 1e-4
    assert int8 == planned == placed >= 16
    assert attention == fused == 2


@pytest.mark.parametrize("batch", [2, "dynamic"])
def test_an_open_batch_is_bound_or_stays_open(tmp_path, batch):
    model = loaded(tmp_path, Row("tf2onnx", 13, "open").write(tmp_path))
    exported = export(model, tmp_path, batch, 20)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    together = Runner(exported.path)(images)[0]
    assert exported.max_rel_error <= 1e-5
    if batch == "dynamic":
        alone = [Runner(exported.path)(image[None])[0] for image in images]
        np.testing.assert_allclose(np.concatenate(alone), together, rtol=0, atol=1e-5)


def test_int8_that_a_float16_graph_would_lose_is_an_error_that_names_it(tmp_path):
    model = loaded(tmp_path, Row("paddle", 17, "fixed").write(tmp_path))
    exported = export(model, tmp_path, 1, 17)  # Q/DQ have no float16 form before opset 19
    images = images_of(model.identity, "random", "calibration")
    quantizer = Quantizer(exported, TARGET, CalibrationImages(images, RECIPE, SILENT), SILENT)
    with pytest.raises(InputError, match=r"of \d+ products .* read floats .* MatMul '") as caught:
        quantizer.write(tmp_path / "int8", {})
    assert "opset 19" in caught.value.fix


@pytest.mark.parametrize("what", control_flow.BODIES)
def test_control_flow_and_functions_are_carried_through(tmp_path, what, sqnr_db):
    model = loaded(tmp_path, control_flow.write(what, tmp_path / "mine.onnx"))
    exported = export(model, tmp_path, 1, 20)
    assert exported.max_rel_error <= 1e-5
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (1, 32, 32, 3), np.uint8) for _ in range(4)]
    recipe = msgspec.structs.replace(catalog.calibrations()["default"], num_samples=4)
    int8, _ = ptq(exported.path, images, recipe, EVERYTHING)
    path = tmp_path / "int8.onnx"
    path.write_bytes(int8.SerializeToString())
    want, got = (
        np.concatenate([Runner(p, as_written=True)(image)[0] for image in images])
        for p in (exported.path, path)
    )
    assert sqnr_db(want, got) > 20


def test_branches_run_for_any_batch_after_conversion(tmp_path):
    model = loaded(tmp_path, control_flow.write("If", tmp_path / "mine.onnx"))
    exported = export(model, tmp_path, "dynamic", 20)
    for count in (1, 3):
        images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
        assert Runner(exported.path)(images)[0].shape == (count, 10)
