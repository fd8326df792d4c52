"""Legal graphs that few exporters write: branches, loops, sequences, functions around weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

BRANCHES = """
    middle = ReduceMean <keepdims = 0> (pixels)
    bright = Greater(middle, zero)
    y = If(bright) <
        then_branch = bright () => (float[B, 16, 32] a) { a = MatMul(x, w) },
        else_branch = dark () => (float[B, 16, 32] b) { t = MatMul(x, w) b = Neg(t) }
    >
"""
BODIES = {
    "If": BRANCHES,
    "If that shares its weight": f"{BRANCHES.replace('y = If', 'i = If')} m = MatMul(x, w)"
    " y = Add(i, m)",
    "If that is constant": """
        never = Constant <value = bool {0}> ()
        y = If(never) <
            then_branch = one () => (float[B, 16, 32] a) { a = Neg(x) },
            else_branch = two () => (float[B, 16, 32] b) { b = MatMul(x, w) }
        >
    """,
    "Loop": """
        trips = Constant <value_int = 3> ()
        yes = Constant <value = bool {1}> ()
        y = Loop(trips, yes, x) <body = step (int64 i, bool on, float[B, 16, 32] s)
            => (bool on2, float[B, 16, 32] s2) {
            on2 = Identity(on) d = MatMul(s, w) s2 = Add(s, d)
        }>
    """,
    "Scan": """
        turned = Transpose <perm = [1, 0, 2]> (x)
        first = ReduceMean <axes = [0], keepdims = 0> (turned)
        last, out = Scan <num_scan_inputs = 1, body = step (float[B, 32] s, float[B, 32] e)
            => (float[B, 32] s2, float[B, 32] o) {
            d = MatMul(e, w) s2 = Add(s, d) o = Identity(s2)
        }> (first, turned)
        y = Transpose <perm = [1, 0, 2]> (out)
    """,
    "sequences": """
        half = Constant <value = int64[2] {8, 8}> ()
        zero_index = Constant <value_int = 0> ()
        one = Constant <value_int = 1> ()
        parts = SplitToSequence <axis = 1> (x, half)
        a = SequenceAt(parts, zero_index)
        b = SequenceAt(parts, one)
        swapped = SequenceConstruct(b, a)
        joined = ConcatFromSequence <axis = 1> (swapped)
        y = MatMul(joined, w)
    """,
    "Loop over a sequence": """
        empty = SequenceEmpty <dtype = 1> ()
        trips = Constant <value_int = 2> ()
        yes = Constant <value = bool {1}> ()
        grown = Loop(trips, yes, empty) <body = step (int64 i, bool on, seq(float[B, 16, 32]) s)
            => (bool on2, seq(float[B, 16, 32]) s2) {
            on2 = Identity(on) d = MatMul(x, w) s2 = SequenceInsert(s, d)
        }>
        both = ConcatFromSequence <axis = 2> (grown)
        y = MatMul(both, wide)
    """,
    "function": "y = mine.block(x, w)",
}
FUNCTION = """
<domain: "mine", opset_import: ["": 17]> block (x, w) => (y) {
    m = ReduceMean <axes = [-1]> (x)
    d = Sub(x, m)
    two = Constant <value = float {2}> ()
    s = Pow(d, two)
    v = ReduceMean <axes = [-1]> (s)
    e = Constant <value = float {0.00001}> ()
    ve = Add(v, e)
    r = Sqrt(ve)
    n = Div(d, r)
    y = MatMul(n, w)
}
"""


def write(what: str, path: Path) -> Path:
    """A classifier of 32×32 pixels with one of `BODIES` between two Linears, at opset 17."""
    model = parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17, "mine": 1]>
    g (float[B, 3, 32, 32] pixels) => (float[B, 10] logits) {{
        patches = Conv <strides = [8, 8]> (pixels, patch)
        rows = Reshape(patches, shape)
        raw = Transpose <perm = [0, 2, 1]> (rows)
        norm = LayerNormalization <epsilon = 0.000001> (raw, gamma)
        x = MatMul(norm, enter)
        {BODIES[what]}
        pool = ReduceMean <axes = [1], keepdims = 0> (y)
        logits = MatMul(pool, head)
    }}{FUNCTION if what == "function" else ""}""")
    random = np.random.default_rng(0)
    shapes = {
        "patch": (32, 3, 8, 8),
        **dict.fromkeys(("enter", "w"), (32, 32)),
        "head": (32, 10),
        "wide": (64, 32),
    }
    constants = {n: random.normal(0, dims[1] ** -0.5, dims) for n, dims in shapes.items()}
    constants |= {"gamma": np.linspace(0.1, 20, 32), "zero": np.array(0.0)}
    stored = {name: value.astype(np.float32) for name, value in constants.items()}
    stored["shape"] = np.array([0, 32, 16])
    text = str(model.graph)
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name)
        for name, value in stored.items()
        if f'"{name}"' in text
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
