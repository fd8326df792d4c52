"""A rescaled file computes the same, or is refused; what it was made from is left as it was."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto

from tests.support.graphs import FUSED, IMAGES, NORM, build, run
from vitedge.core.errors import InputError
from vitedge.graph.channels import Channels
from vitedge.graph.equalize import check, rescale
from vitedge.graph.run import shapes, tapped
from vitedge.graph.trace import find


def doubled(path):
    """Every free channel of `path` at twice its scale."""
    channels = find(ir.load(path), shapes(path, IMAGES[0]))
    scale = np.where(channels.root != 0, 2.0, 1.0) ** channels.sign
    rescale(path, channels, scale, path.with_name("equalized.onnx"))
    return channels, path.with_name("equalized.onnx")


def test_a_rescaled_file_computes_the_same_and_holds_only_what_changed(tmp_path):
    source = build(tmp_path, FUSED)
    path = tmp_path / "external.onnx"
    model = onnx.load(source)
    external = {"save_as_external_data": True, "location": "external.onnx.data"}
    onnx.save(model, path, **external, size_threshold=80)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    _, rescaled = doubled(path)
    want, got = run(source), run(rescaled)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
    want, got = want[:1], got[:1]
    error = check(path, rescaled, IMAGES[0], want)
    assert error == pytest.approx(np.abs(got - want).max() / np.abs(want).max())
    assert error <= 1e-5
    for name, content in before.items():
        assert (tmp_path / name).read_bytes() == content
    beside = {file.name for file in tmp_path.iterdir()} - before.keys()
    assert beside == {"equalized.onnx", "equalized.onnx.data"}
    stored = onnx.load(rescaled, load_external_data=False).graph.initializer
    places = {t.name: t.external_data[0].value for t in stored if t.external_data}
    assert {name for name, place in places.items() if place == "equalized.onnx.data"} == {
        "LayerNormalization_n/equalized_1",
        "LayerNormalization_n/equalized_2",
        "MatMul_product/equalized_1",
        "Add_qkv/equalized_1",
        "MatMul_projected/equalized_1",
    }
    changed = [tensor for tensor in stored if "/equalized_" in tensor.name]
    assert {tensor.data_type for tensor in changed} == {TensorProto.FLOAT}
    written = sum(np.prod(tensor.dims) * 4 for tensor in changed)
    assert (tmp_path / "equalized.onnx.data").stat().st_size == written


def test_a_graph_that_magnifies_rounding_is_refused_by_the_place(tmp_path):
    body = f"{NORM}\n p = MatMul(n, w)\n s = Sin(p)\n y = Tanh(s)"
    path = build(tmp_path, body)
    channels, rescaled = doubled(path)
    scale = np.where(channels.root != 0, 1.1, 1.0)  # no power of two: its inverse is rounded
    rescale(path, channels, scale, rescaled)
    assert check(path, rescaled, IMAGES[0], run(path, IMAGES[:1])) <= 1e-4
    (p,) = tapped(path, ["p"])(IMAGES[0])
    body = (
        f"{NORM}\n p = MatMul(n, w)\n d = Sub(p, p0)\n m = Mul(d, huge)\n s = Sin(m)\n y = Tanh(s)"
    )
    path = build(tmp_path, body, p0=p * np.float32(1.0001), huge=np.float32(1e7))
    rescale(path, channels, scale, rescaled)
    with pytest.raises(InputError, match=r"equalizing changed .* from Tanh_y on") as caught:
        check(path, rescaled, IMAGES[0], run(path, IMAGES[:1]))
    assert 'equalize = "off"' in caught.value.fix


def test_a_scale_that_is_not_undone_is_refused(tmp_path):
    path = build(tmp_path, f"{NORM}\n p = MatMul(n, w)\n y = Add(p, b)")
    channels, rescaled = doubled(path)
    broken = Channels(channels.factors[:2], root=channels.root, sign=channels.sign)  # not w
    rescale(path, broken, np.where(channels.root != 0, 2.0, 1.0), rescaled)
    with pytest.raises(InputError, match="equalizing changed what the model computes"):
        check(path, rescaled, IMAGES[0], run(path, IMAGES[:1]))
