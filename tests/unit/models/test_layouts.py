"""Weights of every library load into our ViT and give that library's logits."""

import re
from dataclasses import replace

import pytest
import torch

from tests.support.small_vits import (
    CLASSES,
    CONFIG,
    TIMM,
    assert_parity,
    load,
    refusal,
    trained,
    write,
)
from vitedge.core.errors import InputError
from vitedge.models.sources import checkpoints
from vitedge.models.sources.layouts import to_timm
from vitedge.models.zoo import ZOO
from vitedge.models.zoo.vit import VisionTransformer

pytestmark = pytest.mark.usefixtures("peers")

HUGGING_FACE = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "num_labels": CLASSES,
    "layer_norm_eps": 1e-6,
}
TORCHVISION = {
    "image_size": 32,
    "patch_size": 8,
    "num_layers": 2,
    "num_heads": 3,
    "hidden_dim": 48,
    "mlp_dim": 96,
    "num_classes": CLASSES,
}


def timm_vit(**changes):
    from timm.models.vision_transformer import VisionTransformer as Timm

    return trained(Timm(**TIMM | changes))


# -- timm, DeiT, MAE ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_models_of_one_name_are_one_model(tmp_path, name):
    import timm

    peer = trained(timm.create_model(name, depth=2, num_classes=CLASSES))
    path = write(tmp_path / "w.pt", {"model": peer.state_dict()})
    assert_parity(load(path, replace(ZOO[name].config, depth=2)), peer, (224, 224))


def test_a_fine_tuned_mae_loads(tmp_path):
    import timm

    peer = timm.create_model("vit_base_patch16_224", global_pool="avg", depth=1, img_size=64)
    path = write(tmp_path / "w.pt", trained(peer).state_dict())
    config = replace(ZOO["vit_base_patch16_224.mae"].config, depth=1, image_size=(64, 64))
    assert_parity(load(path, config), peer, (64, 64))


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_the_encoder_of_maes_pre_training_loads_without_its_decoder(tmp_path, pool):
    peer = timm_vit(num_classes=0)
    decoder = {
        "mask_token": torch.ones(1, 1, 32),
        "decoder_embed.weight": torch.ones(32, 48),
        "decoder_pos_embed": torch.ones(1, 17, 32),
        "decoder_blocks.0.norm1.weight": torch.ones(32),
    }
    path = write(tmp_path / "w.pth", {"model": {**peer.state_dict(), **decoder}})
    assert_parity(load(path, replace(CONFIG, pool=pool)), peer)


# -- Hugging Face ---------------------------------------------------------------------------------

NAMES = pytest.mark.parametrize("names", ["hub", "installed"])


def hugging_face(kind, **settings):
    import transformers

    model = getattr(transformers, kind)
    return trained(model(model.config_class(**HUGGING_FACE, **settings)))


def save(peer, folder, names):
    """As the hub's files are (`save_pretrained` writes these) or as the installed version names."""
    if names == "installed":
        return write(folder / "w.pt", peer.state_dict())
    peer.save_pretrained(folder)
    return folder / "model.safetensors"


@NAMES
@pytest.mark.parametrize(
    ("kind", "distilled"),
    [
        ("ViTForImageClassification", False),
        ("DeiTForImageClassification", True),
        ("DeiTForImageClassificationWithTeacher", True),
    ],
)
def test_hugging_face_classifiers_load(tmp_path, kind, distilled, names):
    peer = hugging_face(kind)
    ours = load(save(peer, tmp_path, names), replace(CONFIG, distilled=distilled))
    assert_parity(ours, lambda x: peer(x).logits)


def test_the_hubs_names_are_those_of_its_files(tmp_path):
    """The names of google/vit-base-patch16-224 itself, whatever transformers writes today."""
    state = checkpoints.read_tensors(
        save(hugging_face("ViTForImageClassification"), tmp_path, "hub")
    )
    block = "vit.encoder.layer.1."
    assert {
        "vit.embeddings.cls_token",
        f"{block}attention.attention.query.weight",
        f"{block}attention.output.dense.bias",
        f"{block}intermediate.dense.weight",
        f"{block}output.dense.weight",
        f"{block}layernorm_before.weight",
        "vit.layernorm.weight",
        "classifier.weight",
    } <= state.keys()


@NAMES
def test_a_hugging_face_encoder_gives_its_class_token(tmp_path, names):
    peer = hugging_face("ViTModel")  # with pooler
    ours = load(save(peer, tmp_path, names), CONFIG)
    assert_parity(ours, lambda x: peer(x).last_hidden_state[:, 0])


@NAMES
def test_a_hugging_face_mae_gives_its_class_token(tmp_path, names):
    peer = hugging_face("ViTMAEForPreTraining", mask_ratio=0.0, decoder_num_hidden_layers=1)
    in_order = torch.arange(16.0).expand(4, -1)
    ours = load(save(peer, tmp_path, names), CONFIG)
    assert_parity(ours, lambda x: peer.vit(x, noise=in_order).last_hidden_state[:, 0])


# -- torchvision ----------------------------------------------------------------------------------


def torchvision_vit(**changes):
    from torchvision.models.vision_transformer import VisionTransformer as Torchvision

    return trained(Torchvision(**TORCHVISION | changes))


@pytest.mark.parametrize("names", ["published", "installed"])
def test_torchvisions_vit_loads(tmp_path, names):
    peer = torchvision_vit()
    state = peer.state_dict()
    if names == "published":  # the files of vit_b_16 and its kin are older than MLPBlock
        number = {"0": "linear_1", "3": "linear_2"}
        state = {
            re.sub(r"mlp\.([03])\.", lambda at: f"mlp.{number[at[1]]}.", name): tensor
            for name, tensor in state.items()
        }
    assert_parity(load(write(tmp_path / "w.pth", state), CONFIG), peer)


# -- no layout of a ViT of ours -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["timm", "torchvision"])
def test_a_head_behind_another_layer_is_refused_rather_than_misread(tmp_path, kind):
    if kind == "timm":
        extra = {"pre_logits.fc.weight": torch.ones(48, 48), "pre_logits.fc.bias": torch.ones(48)}
        state = timm_vit().state_dict() | extra
    else:
        state = torchvision_vit(representation_size=48).state_dict()
    error = refusal(write(tmp_path / "w.pt", state))
    assert "unexpected (pre_logits.fc." in error.what
    assert "pre_logits" in error.fix


def test_what_is_no_vit_passes_untouched():
    from torchvision.models import resnet18

    state = resnet18().state_dict()
    converted = to_timm(state)
    assert list(converted) == list(state)
    assert all(converted[name] is tensor for name, tensor in state.items())


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"embedding/kernel": torch.ones(())},
        {"vit.embeddings.patch_embeddings.projection.weight": torch.ones(2)},
        {
            "embeddings.patch_embeddings.projection.weight": torch.ones(2),
            "layers.0.attention.q_proj.weight": torch.ones(2, 2),
            "layers.0.attention.k_proj.weight": torch.ones(3, 2),
            "layers.0.attention.v_proj.weight": torch.ones(2, 2),
        },
        {"embedding/kernel": torch.ones(2), "head/kernel": torch.ones(2, 2, 2, 2, 2)},
    ],
    ids=["empty", "scalar", "few", "unequal", "deep"],
)
def test_broken_layouts_are_left_for_the_check_of_names_and_shapes(tmp_path, state):
    converted = to_timm(state)
    assert len(converted) == len(state)
    with pytest.raises(InputError):
        checkpoints.load_into(VisionTransformer(CONFIG), converted, tmp_path)
