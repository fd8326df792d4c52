"""The numbers the manual promises: the embedded reference, and what INT8 costs it."""

import pytest

from vitedge.core import report
from vitedge.core.bundle import open_bundle
from vitedge.measure.accuracy.validation import predict_all
from vitedge.runtimes import open_session


def top1(bundle, images):
    with open_session(open_bundle(bundle)) as session:
        logits = predict_all(session, images.images)
    return float((logits.argmax(axis=1) == images.labels).mean())


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_int8_loses_at_most_three_tenths_of_a_point_33_db_above_its_noise(
    bundles, held_out, runtime
):
    fp32, int8 = (top1(bundles[runtime, p], held_out) for p in ("fp32", "int8"))
    assert fp32 >= 0.98
    assert 100 * (fp32 - int8) <= 0.3
    measured = report.read(bundles[runtime, "int8"] / "report.json")
    assert measured.accuracy.fp32 == fp32 and measured.accuracy.artifact == int8
    assert measured.accuracy.n == len(held_out.labels) == 719
    assert measured.numerics.sqnr_db >= 33
