"""The zoo's facts are the papers', and the models built from them have exactly these."""

import subprocess
import sys

import pytest
import torch

from tests.support.small_vits import macs_of, params
from vitedge.models.zoo import ZOO
from vitedge.models.zoo.build import build
from vitedge.models.zoo.costs import COSTS
from vitedge.models.zoo.vit import VisionTransformer

PUBLISHED = {  # millions of parameters, GMACs; of the model's own resolution and 1,000 classes
    "vit_tiny_patch16_224": (5.72, 1.26),
    "vit_small_patch16_224": (22.05, 4.61),
    "vit_small_patch32_224": (22.88, 1.15),
    "vit_base_patch16_224": (86.57, 17.58),
    "vit_base_patch32_224": (88.22, 4.41),
    "vit_base_patch16_384": (86.86, 55.54),
    "vit_large_patch16_224": (304.33, 61.6),
    "vit_large_patch32_224": (306.54, 15.39),
    "vit_huge_patch14_224": (632.05, 167.4),
    "resnet18": (11.69, 1.814),
    "resnet34": (21.80, 3.664),
    "resnet50": (25.56, 4.089),
    "resnet101": (44.55, 7.802),
    "detr_resnet50": (41.5, 86.0),  # at the mean size of COCO's photographs
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name):
    millions, gmacs = PUBLISHED[name]
    parameters, multiplications = COSTS[name]
    assert parameters / 1e6 == pytest.approx(millions, rel=0.003)
    assert multiplications / 1e9 == pytest.approx(gmacs, rel=0.02)


@pytest.mark.parametrize("name", ZOO)
def test_the_torch_module_has_the_parameters_and_macs_the_card_says(name):
    config, task = ZOO[name].config, ZOO[name].task
    with torch.device("meta"):  # shapes only
        model = build(config).eval()
        images = torch.empty(1, 3, *config.image_size)
    if task == "detection":
        logits, boxes = model(images)
        classes = config.num_classes + ZOO[name].detection.no_object
        assert logits.shape == (1, config.queries, classes)
        assert boxes.shape == (1, config.queries, 4)
    else:
        step = getattr(config, "logits_step", None)
        positions = [side // step for side in config.image_size] if step else []
        assert (task == "segmentation") == bool(positions)
        assert model(images).shape == (1, config.num_classes, *positions)
    assert (params(model), macs_of(model, images)) == COSTS[name]


@torch.inference_mode()
def test_a_vit_computes_the_equations_of_the_paper():
    """Against torch's own encoder layer, an implementation nobody here has written."""
    torch.manual_seed(0)
    config = ZOO["digits"].config
    model, images = VisionTransformer(config).eval(), torch.randn(2, 3, 32, 32)
    tokens = model.patch_embed.proj(images).flatten(2).mT
    tokens = torch.cat([model.cls_token.expand(2, -1, -1), tokens], dim=1) + model.pos_embed
    names = {"attn.qkv.": "self_attn.in_proj_", "attn.proj": "self_attn.out_proj"}
    names |= {"mlp.fc1": "linear1", "mlp.fc2": "linear2"}
    for block in model.blocks:
        peer = torch.nn.TransformerEncoderLayer(
            config.width,
            config.heads,
            config.mlp_width,
            dropout=0.0,
            activation="gelu",
            layer_norm_eps=1e-6,
            batch_first=True,
            norm_first=True,
        ).eval()
        state = block.state_dict()
        for ours, theirs in names.items():
            state = {name.replace(ours, theirs): tensor for name, tensor in state.items()}
        peer.load_state_dict(state)
        tokens = peer(tokens)
    expected = model.head(model.norm(tokens)[:, 0])
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)


def test_a_card_answers_what_a_user_asks_before_choosing():
    card = ZOO["vit_base_patch16_384"].card()
    assert card["name"] == "vit_base_patch16_384"
    assert card["input_size"] == [384, 384, 3]
    assert card["num_classes"] == 1000
    assert str(card["paper"]).startswith("https://arxiv.org/abs/")


def test_the_zoo_is_read_without_torch():
    code = "import sys, vitedge.models.zoo; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
