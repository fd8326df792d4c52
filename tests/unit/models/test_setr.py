"""SETR has the paper's sizes, and its decoders read what it says they do."""

import pytest
import torch

from tests.support.small_vits import assert_learns
from vitedge.models.sources import checkpoints
from vitedge.models.zoo import ZOO
from vitedge.models.zoo.build import build
from vitedge.models.zoo.configs import SETRConfig
from vitedge.models.zoo.costs import COSTS

PUBLISHED = {  # millions of parameters: table 2 of the paper
    ("naive", "large"): 305.67,
    ("pup", "large"): 318.31,
    ("mla", "large"): 310.57,
    ("naive", "base"): 87.69,
    ("pup", "base"): 97.64,
    ("mla", "base"): 92.59,
}
SMALL = {"depth": 4, "width": 24, "mlp_width": 48, "heads": 2, "decoder_width": 8, "num_classes": 5}


def small(decoder, patch=16, image=(64, 96), **shape):
    torch.manual_seed(0)
    return build(SETRConfig(image, patch, decoder=decoder, first_width=12, **(SMALL | shape)))


@pytest.mark.parametrize(("decoder", "size"), PUBLISHED)
def test_parameters_are_the_published_ones(decoder, size):
    parameters, _ = COSTS[f"setr_{decoder}_{size}_patch16_768"]
    tolerance = 0.001 if size == "large" else 0.005
    assert parameters / 1e6 == pytest.approx(PUBLISHED[decoder, size], rel=tolerance)


@pytest.mark.parametrize("patch", [4, 8, 16])
@pytest.mark.parametrize("decoder", ["naive", "pup", "mla"])
def test_logits_are_of_every_class_and_every_part_learns(decoder, patch):
    model = small(decoder, patch)
    images = torch.randn(2, 3, 64, 96)
    logits = model(images)
    step = {"naive": patch, "pup": 2, "mla": 4}[decoder]
    assert logits.shape == (2, 5, 64 // step, 96 // step)
    logits.square().mean().backward()
    assert_learns(model)


@torch.inference_mode()
def test_mla_reads_four_layers_top_down_and_the_others_the_last():
    """What a layer adds reaches the streams at and below it, and no stream above."""
    model = small("mla").eval()
    assert model.config.layers == (1, 2, 3, 4)
    first = model.decoder.first
    maps = [torch.randn(1, 24, 4, 6) for _ in range(4)]
    base = model.decoder([*maps])
    seen = []
    for index, second in enumerate(model.decoder.second):
        second.register_forward_pre_hook(
            lambda _, given, index=index: seen.append((index, given[0]))
        )
    assert torch.equal(model.decoder([*maps]), base)
    streams = dict(seen)
    reduced = [layer(x) for layer, x in zip(first, maps, strict=True)]
    for index in range(4):
        torch.testing.assert_close(streams[index], sum(reduced[index:]))
    assert small("pup").config.layers == small("naive").config.layers == (4,)


@torch.inference_mode()
def test_the_last_doubling_may_be_the_readers():
    """A 1×1 classifier before or after a bilinear step is the same."""
    model = small("pup").eval()
    x = torch.randn(1, 8, 32, 48)
    classify = model.decoder.classifier

    def larger(y):
        return torch.nn.functional.interpolate(
            y, scale_factor=2, mode="bilinear", align_corners=False
        )

    torch.testing.assert_close(larger(classify(x)), classify(larger(x)))


def test_positions_of_another_size_are_interpolated_and_classes_read_from_weights(tmp_path):
    trained = small("naive", image=(64, 64), num_classes=7)
    path = tmp_path / "weights.pt"
    torch.save(trained.state_dict(), path)
    state = checkpoints.read(path)
    asked = SETRConfig((96, 128), 16, decoder="naive", first_width=12, **SMALL)
    config = checkpoints.adapt(asked, state)
    assert config.num_classes == 7
    model = build(config)
    checkpoints.load_into(model, checkpoints.at_resolution(config, state), path)
    assert model.pos_embed.shape == (1, 6 * 8, 24)


def test_cards_say_what_they_are():
    card = ZOO["setr_mla_large_patch16_768"].card()
    assert card["task"] == "segmentation" and card["num_classes"] == 19
    assert card["input_size"] == [768, 768, 3]
