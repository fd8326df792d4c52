"""DETR computes what the library's own does from the same weights, in either's layout."""

import pytest
import torch

from tests.support.small_vits import assert_learns
from vitedge.core.detections import detections
from vitedge.models.sources import checkpoints
from vitedge.models.zoo import ZOO
from vitedge.models.zoo.build import build
from vitedge.models.zoo.configs import DETRConfig, TrunkConfig
from vitedge.models.zoo.dab_detr import spread_anchors

SMALL = DETRConfig(
    (64, 96),
    TrunkConfig(bottleneck=True, depths=(1, 2, 1, 1), width=8),
    width=32,
    heads=4,
    mlp_width=48,
    encoder_layers=2,
    decoder_layers=2,
    queries=7,
    num_classes=5,
)
IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def peer(peers):
    """transformers' own of the same shape, no two layers of which do the same."""
    import transformers

    torch.manual_seed(0)
    trunk = transformers.ResNetConfig(
        depths=[*SMALL.trunk.depths],
        hidden_sizes=[*SMALL.trunk.widths],
        embedding_size=SMALL.trunk.width,
        out_features=["stage4"],
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=trunk,
        d_model=SMALL.width,
        encoder_layers=SMALL.encoder_layers,
        decoder_layers=SMALL.decoder_layers,
        encoder_attention_heads=SMALL.heads,
        decoder_attention_heads=SMALL.heads,
        encoder_ffn_dim=SMALL.mlp_width,
        decoder_ffn_dim=SMALL.mlp_width,
        num_queries=SMALL.queries,
        num_labels=SMALL.num_classes,
    )
    model = transformers.DetrForObjectDetection(config).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif "query_position" in name:
                tensor.normal_(0, 3)  # else random queries say nearly the same
            elif tensor.is_floating_point():
                noise = 0.1 if "backbone" in name else 0.3
                tensor.add_(noise * torch.randn_like(tensor))
    return model


def loaded(state, tmp_path, config=SMALL):
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    state = checkpoints.read(path)
    model = build(checkpoints.adapt(config, state))
    checkpoints.load_into(model, state, path)
    return model.eval()


@torch.inference_mode()
def assert_same(model, peer):
    want = peer(IMAGES)
    for got, expected in zip(model(IMAGES), (want.logits, want.pred_boxes), strict=True):
        assert got.shape == expected.shape
        assert expected.std(dim=1).mean() > 0.01  # queries differ
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_it_is_the_librarys_from_its_state_dict(peer, tmp_path):
    assert_same(loaded(peer.state_dict(), tmp_path), peer)


def test_and_from_the_file_that_the_library_saves(peer, tmp_path):
    """Under the hub's names, which are others."""
    from safetensors.torch import load_file

    peer.save_pretrained(tmp_path / "hub")
    state = load_file(tmp_path / "hub" / "model.safetensors")
    assert state.keys() != peer.state_dict().keys()
    assert_same(loaded(state, tmp_path), peer)


def test_the_authors_own_layout_is_read(peer, tmp_path):
    """torch.hub's: queries, keys and values in one matrix, a BatchNorm without a counter."""
    ours = loaded(peer.state_dict(), tmp_path)
    original = {}
    for name, tensor in ours.state_dict().items():
        name = name.replace("backbone.", "backbone.0.body.").replace("cross_attn", "multihead_attn")
        for part in ("encoder", "decoder"):
            if name.startswith(f"{part}."):
                name = f"transformer.{part}.layers.{name.partition('.')[2]}"
        name = "transformer.decoder." + name if name.startswith("norm.") else name
        stem, _, kind = name.rpartition(".")
        if stem.endswith("_proj") and stem[-6:-5] == "q":
            stem = stem[:-7]
            parts = [ours_of(ours, name.replace("q_proj", f"{p}_proj")) for p in "qkv"]
            original[f"{stem}.in_proj_{kind}"] = torch.cat(parts)
        elif not (stem[-6:] in ("k_proj", "v_proj") or kind == "num_batches_tracked"):
            original[name] = tensor
    assert_same(loaded({"model": original}, tmp_path), peer)


def ours_of(model, name):
    """A tensor of ours by the authors' name."""
    name = name.replace("transformer.", "").replace("coder.layers.", "coder.")
    return model.state_dict()[name.replace("multihead_attn", "cross_attn")]


def test_every_part_learns():
    torch.manual_seed(0)
    model = build(SMALL)
    logits, boxes = model(IMAGES)
    (logits.square().mean() + boxes.square().mean()).backward()
    zeros = model.decoder[0].self_attn  # objects begin as zeros: all values are its bias
    for parameter in (*zeros.q_proj.parameters(), *zeros.k_proj.parameters()):
        parameter.grad = torch.ones_like(parameter)
    zeros.v_proj.weight.grad = torch.ones_like(zeros.v_proj.weight)
    assert_learns(model)


# -- the embedded one ---------------------------------------------------------------------------


def test_a_small_detector_reads_boxes_layer_by_layer():
    torch.manual_seed(0)
    model = build(ZOO["shapes-detr"].config)
    memory = model.encode(torch.randn(2, 3, 64, 64))
    layers = model.decode(memory, model.query_embed.weight, model.anchors)
    assert len(layers) == model.config.decoder_layers
    for _, boxes in layers:  # before training a box is its anchor
        torch.testing.assert_close(boxes, model.anchors.sigmoid().expand(2, -1, -1))
    sum(part.square().mean() for layer in layers for part in layer).backward()
    model.bbox_embed.layers[0].weight.grad = None  # of a last layer of zeros
    unmoved = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert all(name.startswith(("bbox_embed.layers.0", "box_bias")) for name in unmoved), unmoved


def test_anchors_are_spread_evenly():
    boxes = spread_anchors(20).sigmoid()
    assert boxes.shape == (20, 4)
    distances = torch.cdist(boxes[:, :2], boxes[:, :2]).fill_diagonal_(1)
    assert distances.min() > 0.15 and boxes.min() > 0 and boxes.max() < 1


def test_cards_say_how_outputs_are_read():
    for name, scores in (("detr_resnet50", "softmax"), ("shapes-detr", "sigmoid")):
        model = ZOO[name]
        assert model.task == "detection" and model.detection.scores == scores
    with torch.inference_mode():
        logits, boxes = build(ZOO["shapes-detr"].config).eval()(torch.zeros(1, 3, 64, 64))
    seen = detections(logits[0].numpy(), boxes[0].numpy(), ZOO["shapes-detr"].detection)
    assert len(seen.scores) == 20 and seen.classes.max() < 5
