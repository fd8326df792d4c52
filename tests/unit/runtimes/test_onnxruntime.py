"""A bundle has its graph in ONNX's operators and in ONNX Runtime's own; one of them is loaded."""

from collections import Counter

import numpy as np
import onnx
import pytest

from vitedge.core.bundle import open_bundle
from vitedge.runtimes import onnxruntime, open_session
from vitedge.runtimes.onnxruntime import CONTRIB


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_graph_in_its_own_operators_is_loaded_and_counts(bundles, precision):
    bundle = open_bundle(bundles["onnxruntime", precision])
    assert {"model.onnx", CONTRIB} <= bundle.model_files.keys()  # both are hashed
    assert bundle.size_bytes == (bundle.path / CONTRIB).stat().st_size
    plain, own = (
        Counter(node.domain for node in onnx.load(bundle.path / name).graph.node)
        for name in ("model.onnx", CONTRIB)
    )
    assert set(plain) == {""} and own["com.microsoft"] >= 4


def test_a_version_without_them_takes_the_graph_in_onnx_operators(bundles, monkeypatch):
    bundle = open_bundle(bundles["onnxruntime", "fp32"])
    images = bundle.golden().images[:1]
    with open_session(bundle) as session:
        own = session.run({session.inputs[0].name: images})
    monkeypatch.setattr(onnxruntime, "CONTRIB_SINCE", "99.0")
    assert bundle.size_bytes == (bundle.path / "model.onnx").stat().st_size
    with open_session(bundle) as session:
        plain = session.run({session.inputs[0].name: images})
    for name, want in plain.items():
        np.testing.assert_allclose(own[name], want, rtol=1e-4, atol=1e-4)
        assert not np.array_equal(own[name], want)  # another graph computed it
