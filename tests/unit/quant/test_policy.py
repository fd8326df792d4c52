"""Which operators of a real ViT go to INT8, by the structure of the graph alone."""

from collections import Counter

import msgspec
import onnx
import pytest
from onnx import ModelProto

from vitedge.core.spec import Quantization
from vitedge.quant.policy import decide

BLOCKS = 4


def dialect(attention=(), operators=("MatMul", "Gemm")):
    return Quantization(
        activations="uint8", weights="full", attention=attention, operators=operators
    )


EVERYTHING = dialect(("qk", "pv"), operators=("MatMul", "Gemm", "Conv"))


@pytest.fixture(scope="module", params=[1, "dynamic"], ids=["static", "dynamic"])
def model(request, digits_graph):
    return onnx.load(digits_graph(request.param).path, load_external_data=False)


def counts(layers):
    return Counter((layer.role, layer.quantized) for layer in layers)


def test_every_product_of_the_vit_gets_one_decision_with_its_reason(model):
    layers = decide(model, dialect())
    products = [n.name for n in model.graph.node if n.op_type in ("MatMul", "Gemm", "Conv")]
    assert [layer.node for layer in layers] == products
    assert all(layer.why for layer in layers)
    why = {layer.role: layer.why for layer in layers if not layer.quantized}
    assert "attention" in why["qk"] and "attention" in why["pv"] and "Conv" in why["conv"]
    assert counts(layers) == {
        ("linear", True): 4 * BLOCKS + 1,  # qkv, proj, fc1, fc2; the head
        ("qk", False): BLOCKS,
        ("pv", False): BLOCKS,
        ("conv", False): 1,
    }
    linear = [layer.node.rsplit("/")[0] for layer in layers if layer.role == "linear"]
    names = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert linear == [*(f"blocks.{i}.{name}" for i in range(BLOCKS) for name in names), "head"]


def test_the_residual_stream_and_the_nonlinearities_are_never_candidates(model):
    assert {d.op for d in decide(model, EVERYTHING)} == {"MatMul", "Gemm", "Conv"}


@pytest.mark.parametrize(
    ("target", "quantized"),
    [
        (dialect(("qk",)), {"linear", "qk"}),
        (dialect(("pv",)), {"linear", "pv"}),
        (EVERYTHING, {"linear", "qk", "pv", "conv"}),
    ],
)
def test_a_target_widens_int8_to_what_its_kernels_take(model, target, quantized):
    layers = decide(model, target)
    assert {d.role for d in layers if d.quantized} == quantized


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"attention_head_sizes": (16, 32)}, ""),
        ({"attention_max_tokens": 65}, ""),
        ({"attention_head_sizes": (16, 64)}, "heads of 32 channels"),
        ({"attention_max_tokens": 64}, "65 tokens"),
    ],
)
def test_attention_stays_float_where_the_target_cannot_fuse_it(model, limits, why):
    target = msgspec.structs.replace(dialect(("qk", "pv")), **limits)
    attention = [d for d in decide(model, target) if d.role in ("qk", "pv")]
    assert len(attention) == 2 * BLOCKS
    assert {d.quantized for d in attention} == {not why}
    assert all(why in d.why for d in attention)


def test_roles_do_not_depend_on_names(model):
    anonymous = ModelProto()
    anonymous.CopyFrom(model)
    tensors = {}
    for index, node in enumerate(anonymous.graph.node):
        node.name = f"n{index}"
        for names in (node.input, node.output):
            names[:] = [tensors.setdefault(name, f"t{len(tensors)}") for name in names]
    for tensor in anonymous.graph.initializer:
        tensor.name = tensors.setdefault(tensor.name, f"t{len(tensors)}")
    roles = [decision.role for decision in decide(model, dialect())]
    assert [decision.role for decision in decide(anonymous, dialect())] == roles


def parsed(body):
    """A graph of `body`, from q, k, v and gate to y."""
    return onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        attention (float[2,2] q, float[2,2] k, float[2,2] v, float[2,2] gate) => (float[2,2] y)
        <float[2,2] learned = {{1, 2, 3, 4}}, float half = {{0.5}}, float[2] mask = {{0, -9}}>
        {{ {body} }}
    """)


def test_a_product_of_activations_outside_attention_stays_float():
    """A softmax reads it, and not alone."""
    model = parsed("s = MatMul(q, k)  y = Softmax(s)  r = Relu(s)")
    (decision,) = decide(model, EVERYTHING)
    assert (decision.role, decision.quantized) == ("product", False)
    assert "outside attention" in decision.why


@pytest.mark.parametrize(
    ("body", "roles"),
    [
        (
            "s = MatMul(q, k)  d = Div(s, half)  m = Add(d, mask)  p = Softmax(m)"
            "  c = Cast <to = 1> (p)  y = MatMul(c, v)",
            ["qk", "pv"],
        ),
        ("s = MatMul(learned, k)  p = Softmax(s)  y = MatMul(p, v)", ["qk", "pv"]),
        ("s = MatMul(q, k)  p = Softmax(s)  m = Mul(p, half)  y = MatMul(m, v)", ["qk", "pv"]),
        ("s = MatMul(q, k)  p = Softmax(s)  m = Mul(gate, p)  y = MatMul(m, v)", ["qk", "product"]),
        ("s = MatMul(q, k)  p = Softmax(s)  y = MatMul(v, p)", ["qk", "product"]),
        ("s = MatMul(q, k)  y = Softmax(s)", ["qk"]),
        ("p = Softmax(q)  y = MatMul(p, v)", ["pv"]),
    ],
    ids=[
        *("scaled, masked and cast", "a learned query", "probabilities scaled", "gated"),
        *("on the right", "a map alone", "of no product"),
    ],
)
def test_attention_is_found_by_its_structure_whole_or_half(body, roles):
    assert [decision.role for decision in decide(parsed(body), dialect())] == roles


HEADED = """
    <ir_version: 8, opset_import: ["": 17]>
    attention (float[1,2,4,3] q, float[1,2,3,4] k, float[1,2,4,3] v, float[1,4,12] x) => (float y)
    <float[2,2] mix = {1, 2, 3, 4}, float[2] bias = {1, 2},
     float[2,2,1,1] mix1x1 = {1, 2, 3, 4}, int64[4] perm_shape = {1, 4, 2, 6},
     float[1,1,2,3] stack = {1, 2, 3, 4, 5, 6}, float[3,3] matrix = {1, 2, 3, 4, 5, 6, 7, 8, 9}>
"""
LINEAR_MIX = """
    t{0} = Transpose <perm = [0, 2, 3, 1]> ({0})
    m{0} = MatMul(t{0}, mix)
    b{0} = Add(m{0}, bias)
    {0}_mixed = Transpose <perm = [0, 3, 1, 2]> (b{0})
"""


@pytest.mark.parametrize(
    ("body", "roles"),
    [
        (
            f"s = MatMul(q, k) {LINEAR_MIX.format('s')} p = Softmax <axis = 3> (s_mixed)"
            f"{LINEAR_MIX.format('p')} y = MatMul(p_mixed, v)",
            ["qk", "heads", "heads", "pv"],
        ),
        (
            "s = MatMul(q, k)  m = Conv(s, mix1x1)  p = Softmax(m)  c = Conv(p, mix1x1)"
            "  y = MatMul(c, v)",
            ["qk", "heads", "heads", "pv"],
        ),
        ("p = Softmax(q)  y = MatMul(p, matrix)", ["pv"]),
        ("s = MatMul(k, v)  p = Softmax(s)  y = MatMul(p, matrix)", ["qk", "pv"]),
        ("s = MatMul(k, v)  l = MatMul(s, matrix)  y = Softmax(l)", ["product", "linear"]),
        ("r = Relu(v)  t = Transpose <perm = [0, 1, 3, 2]> (r)  y = MatMul(stack, t)", ["product"]),
    ],
    ids=[
        *("heads mixed by Linears", "heads mixed by 1x1 convolutions", "a learned V"),
        *("a learned V of a whole attention", "a classifier", "a constant on the left"),
    ],
)
def test_talking_heads_and_learned_values_are_attention(body, roles):
    decisions = decide(onnx.parser.parse_model(f"{HEADED} {{ {body} }}"), EVERYTHING)
    assert [decision.role for decision in decisions] == roles
    assert {d.quantized for d in decisions if d.role == "heads"} <= {False}
    assert all(d.quantized for d in decisions if d.role in ("qk", "pv", "linear"))


def test_operators_without_an_int8_form_are_told():
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        others (float[5,1,4] x, float[1,4,3,3] image) => (float h, float z, float e)
        <float[1,8,4] w = {0}, float[1,8,2] r = {0}, float[4,2,2,2] c = {0}>
        {
            h = LSTM <hidden_size = 2> (x, w, r)
            z = ConvTranspose (image, c)
            e = Einsum <equation = "sbi,sbi->sb"> (x, x)
        }
    """)
    reasons = {layer.op: (layer.quantized, layer.why) for layer in decide(model, EVERYTHING)}
    assert reasons == {op: (False, f"no INT8 {op}") for op in ("LSTM", "ConvTranspose", "Einsum")}


def test_what_an_if_holds_is_counted_in_float():
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        chosen (float[2,2] x, bool[1] c) => (float[2,2] y)
        <float[2,2] w = {1, 2, 3, 4}>
        {
            h = MatMul (x, w)
            y = If (c) <
                then_branch = yes () => (float[2,2] t) { t = MatMul (h, w) },
                else_branch = no () => (float[2,2] e) { e = Relu (h) }
            >
        }
    """)
    model.graph.node[1].name = "choice"
    outer, inner = decide(model, EVERYTHING)
    assert outer.quantized and not inner.quantized
    assert inner.node == "choice/" and "inside the If 'choice'" in inner.why


def test_weights_are_stored_in_int8_where_a_channel_has_enough_of_them():
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        heads (float[1,9] x, float[1,3] few) => (float[1,2] two, float[1,9] nine, float[9] sum)
        <float[2,9] w = {0}, float[9,3] v = {0}>
        {
            two = Gemm <transB = 1> (x, w)
            nine = Gemm <transB = 1> (few, v)
            sum = Einsum <equation = "bi->i"> (x)
        }
    """)
    layers = decide(model, msgspec.structs.replace(dialect(operators=()), stored=("Gemm",)))
    assert [layer.stored for layer in layers] == [True, False, False]


@pytest.mark.parametrize(
    ("node", "quantized", "why"),
    [
        ("Conv (x, w)", True, "constant weights"),
        ("Conv (x, w, b)", True, "constant weights"),
        ("Conv (x, w, c)", False, "its bias is computed"),
        ("Conv <group = 8> (x, deep)", False, "groups of 1"),
        ("Conv <group = 2> (x, half)", False, "groups of 4"),
    ],
)
def test_a_conv_that_puts_out_int8_has_a_bias_of_constants_and_reads_many_channels(
    node, quantized, why
):
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        convolution (float[1,8,9,9] x, float[8] given) => (float[1,8,9,9] y)
        <float[8,8,1,1] w = {{0}}, float[8,4,1,1] half = {{0}}, float[8,1,3,3] deep = {{0}},
         float[8] b = {{0}}>
        {{ c = Add (given, b) z = {node} y = Sigmoid (z) }}
    """)
    model.graph.node[-1].name = "y"
    target = msgspec.structs.replace(
        dialect(operators=("Conv",)), quantized_outputs=("Conv",), stored=("Conv",)
    )
    (layer,) = decide(model, target)
    assert layer.quantized is quantized and why in layer.why
