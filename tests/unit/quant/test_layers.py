"""What each layer loses, against the same worked out by hand in NumPy."""

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.support import graphs
from tests.support.ptq import ptq
from vitedge.core import catalog
from vitedge.core.errors import InputError
from vitedge.graph.macs import contracted
from vitedge.graph.run import Runner
from vitedge.models.zoo import ZOO
from vitedge.quant.layers import examine

TARGET = msgspec.structs.replace(catalog.targets()["openvino-vnni"].quantization, attention=("qk",))
RECIPE = msgspec.structs.replace(catalog.calibrations()["default"], num_samples=32, equalize="off")
LAYER = "blocks.2.mlp.fc1/MatMul"
BEFORE = "blocks.1.mlp.fc2/MatMul"


@pytest.fixture(scope="module")
def fp32(digits_graph):
    return digits_graph("dynamic").path


@pytest.fixture(scope="module")
def images(calibration_batches):
    (pair,) = calibration_batches(2, 2)
    return pair


@pytest.fixture(scope="module")
def int8(fp32, calibration_batches, tmp_path_factory):
    model, _ = ptq(fp32, calibration_batches(32, 16), RECIPE, TARGET)
    path = tmp_path_factory.mktemp("int8") / "model.onnx"
    onnx.save(model, path)
    return path


def layers(int8):
    graph = onnx.load(int8, load_external_data=False).graph
    return [node.name for node in graph.node if node.op_type in ("MatMul", "Gemm", "Conv")]


@pytest.fixture(scope="module")
def figures(fp32, int8, images):
    return examine(fp32, int8, layers(int8), images)


def tensors(path, names, images):
    """The tensors called `names`, of a graph run as it is written."""
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    tapped = path.with_name("with_tensors.onnx")
    onnx.save(model, tapped)
    values = Runner(tapped, as_written=True)(images)
    tapped.unlink()
    return values


def node_of(model, name):
    return next(node for node in model.graph.node if node.name == name)


def changed(int8, folder, factor):
    """The INT8 graph with the activation scale of LAYER multiplied."""
    model = onnx.load(int8)
    name = node_of(model, LAYER).input[0].removesuffix(".dequantized") + ".scale"
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(
        numpy_helper.from_array(np.float32(factor) * numpy_helper.to_array(tensor), name)
    )
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def test_the_figures_of_a_layer_are_those_worked_out_by_hand(fp32, int8, images, figures, sqnr_db):
    node = node_of(onnx.load(fp32, load_external_data=False), LAYER)
    twin = node_of(onnx.load(int8), LAYER)
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(int8).graph.initializer}
    name, weight = node.input[0], twin.input[1].removesuffix(".dequantized")
    scale, scales = stored[f"{name}.scale"], stored[f"{weight}.scale"]
    x, y = tensors(fp32, [name, node.output[0]], images)
    levels = np.rint(x / scale)
    rounded = np.clip(levels, -128, 127) * scale
    product = rounded @ (stored[f"{weight}.quantized"] * scales)
    (reached,) = tensors(int8, [twin.output[0]], images)

    got = figures[LAYER]
    assert got.activation_scales == (pytest.approx(float(scale)),)
    assert got.weight_scales == pytest.approx((scales.min(), scales.max()))
    assert got.clipped_share == pytest.approx(np.mean(np.abs(x - rounded) > 0.51 * scale))
    assert got.sqnr_db == pytest.approx(sqnr_db(y, product), abs=0.01)
    assert got.accumulated_sqnr_db == pytest.approx(sqnr_db(y, reached), abs=0.01)
    assert 20 < got.sqnr_db < 60
    power, noise = (np.square(v, dtype=np.float64).sum(axis=-1) for v in (y, y - product))
    by_token = 10 * np.log10(power / noise)
    assert got.token_sqnr_db == pytest.approx(by_token.min(), abs=0.02)
    assert got.macs == x[0].size * y.shape[-1]
    assert sum(layer.macs for layer in figures.values()) == ZOO["digits"].card()["macs"]


def test_error_gathers_from_the_first_int8_layer_on(figures):
    reached = [layer.accumulated_sqnr_db for layer in figures.values()]
    first = next(i for i, layer in enumerate(figures.values()) if layer.weight_scales)
    assert reached[:first] == [None] * first and None not in reached[first:]


def test_a_float_layer_has_no_error_of_its_own(figures):
    for name, layer in figures.items():
        if name.endswith("attn/MatMul_1"):  # P·V stays in float
            assert layer.activation_scales == () and layer.weight_scales is None
            assert layer.sqnr_db is None and layer.clipped_share is None
            assert layer.accumulated_sqnr_db is not None
        elif name.endswith("attn/MatMul"):  # Q·Kᵀ reads two activations
            assert len(layer.activation_scales) == 2 and layer.weight_scales is None
            assert layer.sqnr_db is not None


def test_a_scale_that_is_far_too_small_shows_as_the_worst_layer(
    fp32, int8, images, figures, tmp_path
):
    path = changed(int8, tmp_path, 0.05)
    got = examine(fp32, path, layers(path), images)
    own = {name: layer.sqnr_db for name, layer in got.items() if layer.sqnr_db is not None}
    assert min(own, key=own.__getitem__) == LAYER
    clipped, before = got[LAYER].clipped_share, figures[LAYER].clipped_share
    assert clipped > 0.3 > before
    assert got[BEFORE] == figures[BEFORE]  # what comes before it is as it was
    last, sound = got["head/Gemm"].accumulated_sqnr_db, figures["head/Gemm"].accumulated_sqnr_db
    assert last < sound - 5


def test_a_layer_that_is_not_finite_is_named_and_nothing_left(fp32, int8, images, tmp_path):
    path = changed(int8, tmp_path, float("inf"))
    with pytest.raises(InputError, match=LAYER):
        examine(fp32, path, layers(path), images)
    assert not [path.name for path in fp32.parent.iterdir() if "examined" in path.name]


def test_a_fixed_batch_is_filled_up_with_the_last_image(
    digits_graph, calibration_batches, images, tmp_path
):
    fixed, path = digits_graph(4).path, tmp_path / "model.onnx"
    model, _ = ptq(fixed, calibration_batches(8, 4), RECIPE, TARGET)
    onnx.save(model, path)
    four = np.concatenate([images, images[-1:], images[-1:]])
    (got,) = examine(fixed, path, [LAYER], images).values()
    assert got == examine(fixed, path, [LAYER], four)[LAYER]
    assert got.sqnr_db > 30 and got.macs == 2396160


OTHERS = f"""
    {graphs.NORM}
    p = MatMul(n, w)
    steps = Transpose <perm = [1, 0, 2]> (p)
    hidden, last = LSTM <hidden_size = 5> (steps, lstm_w, lstm_r)
    e = Einsum <equation = "...d,dhk->...hk"> (p, projection)
    up = ConvTranspose <strides = [2, 2]> (pixels, upward)
    a = ReduceMean <keepdims = 0> (hidden)
    b = ReduceMean <keepdims = 0> (e)
    c = ReduceMean <keepdims = 0> (up)
    ab = Add(a, b)
    abc = Add(ab, c)
    y = Mul(p, abc)
"""


def test_macs_of_what_has_no_int8_form(tmp_path):
    rng = np.random.default_rng(0)
    path = graphs.build(
        tmp_path,
        OTHERS,
        lstm_w=rng.normal(size=(1, 20, 12)),
        lstm_r=rng.normal(size=(1, 20, 5)),
        projection=rng.normal(size=(12, 2, 3)),
        upward=rng.normal(size=(3, 4, 2, 2)),
    )
    recipe = msgspec.structs.replace(RECIPE, num_samples=len(graphs.IMAGES))
    model, decided = ptq(path, graphs.IMAGES, recipe, graphs.EVERYTHING)
    onnx.save(model, tmp_path / "int8.onnx")
    names = [layer.node for layer in decided]
    got = examine(path, tmp_path / "int8.onnx", names, graphs.IMAGES[0])
    assert {layer.op: got[layer.node].macs for layer in decided} == {
        "MatMul": graphs.TOKENS * 12 * 12,
        "LSTM": graphs.TOKENS * (20 * 12 + 20 * 5),
        "Einsum": graphs.TOKENS * 12 * 2 * 3,
        "ConvTranspose": 3 * 8 * 8 * 4 * 2 * 2,
    }
    assert [layer.op for layer in decided if layer.quantized] == ["MatMul"]
    assert {got[layer.node].sqnr_db for layer in decided if not layer.quantized} == {None}


@pytest.mark.parametrize(
    ("equation", "summed"),
    [
        ("bhqd,bhkd->bhqk", [(0, 3)]),
        ("b...d,...d->b...", [(0, -1)]),
        ("ij,jk", [(0, 1)]),
        ("ii->i", []),
        ("ij->", [(0, 0), (0, 1)]),
    ],
)
def test_an_einsum_sums_over_what_its_output_lacks(equation, summed):
    assert list(contracted(equation)) == summed
