"""Weights of every library load into our ViT and give that library's logits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from vitedge.core.errors import InputError  # noqa: E402
from vitedge.models.sources import checkpoints  # noqa: E402
from vitedge.models.sources.layouts import to_timm  # noqa: E402
from vitedge.models.zoo import ZOO  # noqa: E402
from vitedge.models.zoo.configs import ViTConfig  # noqa: E402
from vitedge.models.zoo.vit import VisionTransformer  # noqa: E402

Module = Callable[[Any], Any]
Loaded = Callable[[Path, Any], Any]

CONFIG = ViTConfig((32, 32), 8, depth=2, width=48, mlp_width=96, heads=3)  # and 1,000 classes
CLASSES = 7
TIMM = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 48,
    "depth": 2,
    "num_heads": 3,
    "mlp_ratio": 2,
    "num_classes": CLASSES,
}
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


@pytest.fixture(autouse=True)
def installed(peers: None) -> None:
    for peer in ("timm", "transformers", "torchvision"):
        pytest.importorskip(peer)


def write(path: Path, state: Mapping[str, Any]) -> Path:
    torch.save(dict(state), path)
    return path


# -- timm, DeiT, MAE ------------------------------------------------------------------------------


def test_timms_vit_loads(
    tmp_path: Path, trained: Module, loaded: Loaded, assert_parity: Any
) -> None:
    from timm.models.vision_transformer import VisionTransformer as Timm

    peer = trained(Timm(**TIMM))
    assert_parity(loaded(write(tmp_path / "w.pt", peer.state_dict()), CONFIG), peer, 32)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_models_of_one_name_are_one_model(
    tmp_path: Path, name: str, trained: Module, loaded: Loaded, assert_parity: Any
) -> None:
    import timm

    peer = trained(timm.create_model(name, depth=2, num_classes=CLASSES))
    path = write(tmp_path / "w.pt", {"model": peer.state_dict()})
    assert_parity(loaded(path, replace(ZOO[name].config, depth=2)), peer, 224)


def test_deits_two_heads_load(
    tmp_path: Path, trained: Module, loaded: Loaded, assert_parity: Any
) -> None:
    from timm.models.deit import VisionTransformerDistilled

    peer = trained(VisionTransformerDistilled(**TIMM))
    path = write(tmp_path / "w.pth", {"model": peer.state_dict()})
    assert_parity(loaded(path, replace(CONFIG, distilled=True)), peer, 32)


def test_a_fine_tuned_mae_loads(
    tmp_path: Path, trained: Module, loaded: Loaded, assert_parity: Any
) -> None:
    import timm

    peer = timm.create_model("vit_base_patch16_224", global_pool="avg", depth=1, img_size=64)
    peer = trained(peer)
    config = replace(ZOO["vit_base_patch16_224.mae"].config, depth=1, image_size=(64, 64))
    assert_parity(loaded(write(tmp_path / "w.pt", peer.state_dict()), config), peer, 64)


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_the_encoder_of_maes_pre_training_loads_without_its_decoder(
    tmp_path: Path, pool: Any, trained: Module, loaded: Loaded, assert_parity: Any
) -> None:
    from timm.models.vision_transformer import VisionTransformer as Timm

    peer = trained(Timm(**{**TIMM, "num_classes": 0}))
    decoder = {
        "mask_token": torch.ones(1, 1, 32),
        "decoder_embed.weight": torch.ones(32, 48),
        "decoder_pos_embed": torch.ones(1, 17, 32),
        "decoder_blocks.0.norm1.weight": torch.ones(32),
    }
    path = write(tmp_path / "w.pth", {"model": {**peer.state_dict(), **decoder}})
    assert_parity(loaded(path, replace(CONFIG, pool=pool)), peer, 32)


# -- Hugging Face ---------------------------------------------------------------------------------


def save(peer: Any, folder: Path, names: str) -> Path:
    """As the hub's files are (`save_pretrained` writes these) or as the installed version names."""
    if names == "installed":
        return write(folder / "w.pt", peer.state_dict())
    peer.save_pretrained(folder)
    return folder / "model.safetensors"


@pytest.mark.parametrize("names", ["hub", "installed"])
@pytest.mark.parametrize(
    ("kind", "distilled"),
    [
        ("ViTForImageClassification", False),
        ("DeiTForImageClassification", True),
        ("DeiTForImageClassificationWithTeacher", True),
    ],
)
def test_hugging_face_classifiers_load(
    tmp_path: Path,
    kind: str,
    distilled: bool,
    names: str,
    trained: Module,
    loaded: Loaded,
    assert_parity: Any,
) -> None:
    import transformers

    model = getattr(transformers, kind)
    peer = trained(model(model.config_class(**HUGGING_FACE)))
    ours = loaded(save(peer, tmp_path, names), replace(CONFIG, distilled=distilled))
    assert_parity(ours, lambda x: peer(x).logits, 32)


def test_the_hubs_names_are_those_of_its_files(tmp_path: Path) -> None:
    """The names of google/vit-base-patch16-224 itself, whatever transformers writes today."""
    import transformers
    from safetensors.torch import load_file

    peer = transformers.ViTForImageClassification(transformers.ViTConfig(**HUGGING_FACE))
    state = load_file(save(peer, tmp_path, "hub"))
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


@pytest.mark.parametrize("names", ["hub", "installed"])
def test_a_hugging_face_encoder_gives_its_class_token(
    tmp_path: Path, names: str, trained: Module, loaded: Loaded, assert_parity: Any
) -> None:
    import transformers

    peer = trained(transformers.ViTModel(transformers.ViTConfig(**HUGGING_FACE)))  # with pooler
    ours = loaded(save(peer, tmp_path, names), CONFIG)
    assert_parity(ours, lambda x: peer(x).last_hidden_state[:, 0], 32)


@pytest.mark.parametrize("names", ["hub", "installed"])
def test_a_hugging_face_mae_gives_its_class_token(
    tmp_path: Path, names: str, trained: Module, loaded: Loaded, assert_parity: Any
) -> None:
    import transformers

    config = transformers.ViTMAEConfig(**HUGGING_FACE, mask_ratio=0.0, decoder_num_hidden_layers=1)
    peer = trained(transformers.ViTMAEForPreTraining(config))
    in_order = torch.arange(16.0).expand(4, -1)
    ours = loaded(save(peer, tmp_path, names), CONFIG)
    assert_parity(ours, lambda x: peer.vit(x, noise=in_order).last_hidden_state[:, 0], 32)


# -- torchvision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["published", "installed"])
def test_torchvisions_vit_loads(
    tmp_path: Path, names: str, trained: Module, loaded: Loaded, assert_parity: Any
) -> None:
    from torchvision.models.vision_transformer import VisionTransformer as Torchvision

    peer = trained(Torchvision(**TORCHVISION))
    state = peer.state_dict()
    if names == "published":  # the files of vit_b_16 and its kin are older than MLPBlock
        number = {"0": "linear_1", "3": "linear_2"}
        state = {
            re.sub(r"mlp\.([03])\.", lambda at: f"mlp.{number[at[1]]}.", name): tensor
            for name, tensor in state.items()
        }
    assert_parity(loaded(write(tmp_path / "w.pth", state), CONFIG), peer, 32)


# -- no layout of a ViT of ours -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["timm", "torchvision"])
def test_a_head_behind_another_layer_is_refused_rather_than_misread(
    tmp_path: Path, kind: str, loaded: Loaded
) -> None:
    from timm.models.vision_transformer import VisionTransformer as Timm
    from torchvision.models.vision_transformer import VisionTransformer as Torchvision

    state = Torchvision(**TORCHVISION, representation_size=48).state_dict()
    if kind == "timm":
        extra = {"pre_logits.fc.weight": torch.ones(48, 48), "pre_logits.fc.bias": torch.ones(48)}
        state = {**Timm(**TIMM).state_dict(), **extra}
    path = write(tmp_path / "w.pt", state)
    with pytest.raises(InputError) as caught:
        loaded(path, CONFIG)
    assert "unexpected (pre_logits.fc." in caught.value.what
    assert "pre_logits" in caught.value.fix


def test_what_is_no_vit_passes_untouched() -> None:
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
def test_broken_layouts_are_left_for_the_check_of_names_and_shapes(
    tmp_path: Path, state: dict[str, Any]
) -> None:
    converted = to_timm(state)
    assert len(converted) == len(state)
    with pytest.raises(InputError):
        checkpoints.load_into(VisionTransformer(CONFIG), converted, tmp_path)
