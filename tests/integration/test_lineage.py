"""Every family of the lineage exports and quantizes; shallow here, at full depth in the manual."""

import pytest

from tests.support.lineage import ROWS, run

pytestmark = pytest.mark.usefixtures("peers")

MIN_SQNR_DB = 20


@pytest.mark.parametrize(
    "row", [pytest.param(r, id=r.name, marks=[pytest.mark.heavy] * (not r.fits_ci)) for r in ROWS]
)
def test_a_model_of_the_lineage_exports_and_quantizes(row, tmp_path):
    result = run(row, tmp_path, shallow=True)
    assert 0 < result.parity < 1e-4
    for target, int8 in result.int8.items():
        assert int8.sqnr_db >= MIN_SQNR_DB, target
        assert int8.quantized >= 8, target
        assert int8.box_iou is None or int8.box_iou >= 0.9, target
    if row.spared:
        return
    on_ort, on_openvino = result.int8.values()
    assert set(on_openvino.kept) <= {"ConvTranspose"}  # of which no target has an INT8 kernel
    assert "MatMul" not in on_ort.kept  # of the others the runtime has no INT8 kernel
