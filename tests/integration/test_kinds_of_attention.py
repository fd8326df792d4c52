"""Models whose attention is no plain ViT's, small, from timm, quantized as a user does it."""

from collections import Counter

import numpy as np
import pytest

import vitedge as ve
from tests.support.machine import TARGETS

pytestmark = pytest.mark.usefixtures("peers")

PREPROCESS = ve.Preprocess(height=32, width=32, mean=(0.5,) * 3, std=(0.5,) * 3)
SMALL = {"img_size": 32, "num_classes": 5, "depth": 1}


def tnt():
    from timm.models.tnt import TNT

    return TNT(**SMALL, embed_dim=32, inner_dim=8, num_heads_inner=2, num_heads_outer=2)


def cait():
    from timm.models.cait import Cait

    sizes = {"patch_size": 8, "embed_dim": 32, "num_heads": 4, "depth_token_only": 1}
    return Cait(**SMALL, **sizes, init_values=1.0)


def pooled_by_attention():
    """As SigLIP's encoder: a learned query pools the tokens."""
    from timm.models import VisionTransformer

    sizes = {"patch_size": 8, "embed_dim": 32, "num_heads": 2, "class_token": False}
    return VisionTransformer(**SMALL, **sizes, global_pool="map")


def sequencer():
    from timm.models.sequencer import Sequencer2d

    sizes = {"layers": (1, 1), "patch_sizes": (8, 1), "embed_dims": (16, 16)}
    sizes |= {"hidden_sizes": (8, 8), "mlp_ratios": (2.0, 2.0)}
    return Sequencer2d(num_classes=5, img_size=32, **sizes)


ATTENTIONS = {("linear", True), ("conv", True), ("qk", False), ("pv", False)}
MODELS = {
    "im2col (TNT)": (tnt, "openvino", ATTENTIONS),
    "talking heads (CaiT)": (cait, "onnxruntime", {("heads", False), ("qk", False)}),
    "a pooling head (SigLIP)": (pooled_by_attention, "onnxruntime", {("qk", False)}),
    "LSTMs (Sequencer)": (sequencer, "openvino", {("recurrent", False), ("linear", True)}),
}


@pytest.mark.parametrize(
    ("build", "runtime", "roles"),
    [
        pytest.param(*MODELS[name], id=name, marks=[pytest.mark.heavy] * ("TNT" not in name))
        for name in MODELS
    ],
)
def test_every_operator_gets_its_role_and_int8_is_close(tmp_path, build, runtime, roles):
    from tests.support.small_vits import trained

    if runtime not in TARGETS:
        pytest.skip(f"{runtime} has no target here")
    model = ve.load(trained(build()), preprocess=PREPROCESS, labels=list("abcde"), name="model")
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    settings = {"calibration": "fast", "calib_data": images, "duration_s": 0}
    (*_, made) = ve.export(
        model,
        targets=[TARGETS[runtime]],
        precision="int8",
        output=tmp_path,
        progress=ve.SILENT,
        **settings,
    )
    assert made.report.numerics.sqnr_db > 20
    layers = made.bundle.manifest.quantization.layers
    counts = Counter((layer.role, layer.quantized) for layer in layers)
    assert roles <= set(counts)
    assert counts["qk", False] == counts["pv", False]
    assert counts["product", False] == 0
    assert all(layer.figures.macs for layer in layers)
