"""FILE.onnx as nobody's trained ViT: `export --int8` works, or says in one message why not."""

from __future__ import annotations

import shutil

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.support.graphs import NORM, build
from tests.support.machine import ONNXRUNTIME, TARGETS

HEAD = "m = ReduceMean <keepdims = 0> (p, tokens_axis)\n y = Add(m, b)"
PLAIN = f"{NORM}\n p = MatMul(n, w)\n {HEAD}"


def model(folder, body, classes=12, **changed):
    """A graph from uint8 images (1, 8, 8, 3) to logits (1, classes)."""
    path = build(folder, body, tokens_axis=np.array([1]), **changed)
    proto = onnx.load(path)
    logits = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, classes])
    proto.graph.output[0].CopyFrom(logits)
    onnx.save(proto, path)
    return path


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "images.npz", images=rng.integers(100, 256, (8, 8, 8, 3), np.uint8))
    return tmp_path / "images.npz"


def exported(vitedge, path, images, target=ONNXRUNTIME, flags=()):
    """The manifest and the report of its INT8 bundle."""
    output = path.parent / "out"
    flags += ("--int8", "--calibration", "fast", "--num-samples", 8)
    flags += ("--calib-data", images, "--duration", 0)
    vitedge("export", path, "--target", target, *flags, "--output", output)
    (bundle,) = output.glob("*-int8")
    return {
        name: msgspec.json.decode((bundle / f"{name}.json").read_bytes())
        for name in ("manifest", "report")
    }


def failed(vitedge, path, images, *says):
    """What an INT8 export that fails says on stdout, and the names of what it wrote."""
    output = path.parent / "out"
    flags = ("--target", ONNXRUNTIME, "--int8", "--num-samples", 8, "--calib-data", images)
    ran = vitedge("export", path, *flags, "--output", output, code=2)
    assert ran.stderr.count("error: ") == 1 and "\n  fix: " in ran.stderr
    for part in says:
        assert part in ran.stderr
    return ran.stdout, [bundle.name for bundle in output.iterdir()]


def refused(vitedge, path, images, *says):
    assert failed(vitedge, path, images, *says) == ("", [])


def told(vitedge, path, images, *says):
    """FP32 is written, and INT8 is a row with its reason."""
    stdout, written = failed(vitedge, path, images, *says)
    assert written == [f"model-{ONNXRUNTIME}-fp32"]
    (row,) = (line for line in stdout.splitlines() if f"model-{ONNXRUNTIME}-int8" in line)
    assert says[0].split(",")[0][:20] in row


def test_a_layer_that_gives_nan_is_named(vitedge, tmp_path, images):
    body = f"neg = Neg(x)\n s = Sub(neg, b)\n r = Log(s)\n p = MatMul(r, w_plain)\n {HEAD}"
    refused(vitedge, model(tmp_path, body), images, "NaN from Log_r on")


def test_a_layer_that_gives_nan_on_a_calibration_image_is_named(vitedge, tmp_path, images):
    body = f"""
        low = ReduceMin <keepdims = 1> (x, tokens_axis)
        high = ReduceMax <keepdims = 1> (x, tokens_axis)
        range = Sub(high, low)
        normed = Div(x, range)
        p = MatMul(normed, w_plain)
        {HEAD}
    """
    path = model(tmp_path, body)
    with np.load(images) as stored:
        mixed = stored["images"].copy()
    mixed[3] = 0
    np.savez(images, images=mixed)
    refused(vitedge, path, images, "NaN", "Div_normed")


def test_a_model_without_a_layer_to_quantize(vitedge, tmp_path, images):
    body = "m = ReduceMean <keepdims = 0> (x, tokens_axis)\n y = Softmax(m)"
    told(vitedge, model(tmp_path, body), images, "nothing to quantize", "none", "--fp32")


def test_a_model_of_convolutions(vitedge, tmp_path, images, openvino):
    body = """
        h = Conv(pixels, c_grown, b_grown)
        r = Relu(h)
        s = Conv(r, c)
        p = GlobalAveragePool(s)
        y = Flatten(p)
    """
    path = model(tmp_path, body, classes=4)
    made = exported(vitedge, path, images, openvino)
    layers = made["manifest"]["quantization"]["layers"]
    assert [(layer["op"], layer["quantized"]) for layer in layers] == [("Conv", True)] * 2
    assert made["report"]["numerics"]["sqnr_db"] > 25
    shutil.rmtree(tmp_path / "out")
    made = exported(vitedge, path, images, "onnxruntime-cpu")
    layers = made["manifest"]["quantization"]["layers"]
    assert [(layer["quantized"], layer["stored"]) for layer in layers] == [(False, True)] * 2
    assert made["report"]["numerics"]["sqnr_db"] > 35


@pytest.mark.parametrize("runtime", TARGETS)
def test_learned_queries_and_values_are_attention(vitedge, tmp_path, images, runtime):
    """A detector's first decoder layer: Q and V are constants, each a stack of matrices."""
    body = f"""
        {NORM}
        k = MatMul(n, w)
        kt = Transpose <perm = [0, 2, 1]> (k)
        s = MatMul(queries, kt)
        a = Softmax(s)
        c = MatMul(a, values)
        p = MatMul(c, w_plain)
        {HEAD}
    """
    rng = np.random.default_rng(0)
    stack = rng.standard_normal((1, 16, 12)).astype(np.float32)
    path = model(tmp_path, body, queries=stack, values=stack[:, ::-1].copy())
    made = exported(vitedge, path, images, TARGETS[runtime])
    layers = made["manifest"]["quantization"]["layers"]
    roles = [(layer["role"], layer["quantized"]) for layer in layers]
    assert roles == [("linear", True), ("qk", False), ("pv", False), ("linear", True)]
    assert made["report"]["numerics"]["sqnr_db"] > 25


def test_dead_branches_and_shared_weights(vitedge, tmp_path, images):
    body = f"""
        {NORM}
        d = MatMul(n, w_plain)
        e = Relu(d)
        f = MatMul(e, w_v)
        q = MatMul(n, w)
        o = MatMul(x, w_shared)
        o2 = MatMul(o, w_shared)
        p = Add(q, o2)
        {HEAD}
    """
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((12, 12)).astype(np.float32)
    path = model(tmp_path, body, w_shared=shared)
    proto = onnx.load(path)
    proto.graph.output.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, [1, 16, 12]))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(shared, "unused"))
    onnx.save(proto, path)
    made = exported(vitedge, path, images, flags=("--model-output", "y"))
    layers = {layer["node"] for layer in made["manifest"]["quantization"]["layers"]}
    assert layers == {"MatMul_q", "MatMul_o", "MatMul_o2"}
    assert made["report"]["numerics"]["sqnr_db"] > 30
