"""Which model a checkpoint belongs to, at which resolution, and what does not fit."""

from dataclasses import replace

import pytest
import torch

from tests.support.small_vits import CONFIG, TIMM, assert_parity, load, refusal, trained, write
from vitedge.core.errors import InputError
from vitedge.models.sources import checkpoints
from vitedge.models.zoo import ZOO
from vitedge.models.zoo.build import build
from vitedge.models.zoo.vit import VisionTransformer

pytestmark = pytest.mark.usefixtures("peers")

# -- another resolution ---------------------------------------------------------------------------


@pytest.mark.parametrize("prefix_tokens", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (14, 14), (30, 40), (5, 9), (1, 1)], ids=str)
def test_positions_are_interpolated_as_timm_does(prefix_tokens, dtype, grid):
    from timm.layers import resample_abs_pos_embed

    positions = torch.randn(1, prefix_tokens + 14 * 14, 24).to(dtype)
    ours = checkpoints.resample_positions(positions, prefix_tokens, grid)
    theirs = resample_abs_pos_embed(positions, list(grid), num_prefix_tokens=prefix_tokens)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(64, 64), (16, 16), (24, 56)], ids=str)
def test_a_checkpoint_loads_at_any_resolution(tmp_path, size):
    from timm.models.vision_transformer import VisionTransformer as Timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    state = trained(Timm(**TIMM)).state_dict()
    peer = Timm(**{**TIMM, "img_size": size}).eval()
    peer.load_state_dict(checkpoint_filter_fn(dict(state), peer))
    ours = load(write(tmp_path / "w.pt", state), replace(CONFIG, image_size=size))
    assert_parity(ours, peer, size)


# -- what does not fit ----------------------------------------------------------------------------


def shapes_of(name, **changes):
    with torch.device("meta"):
        return build(replace(ZOO[name].config, **changes)).state_dict()


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("vit_base_patch32_224", "head"),
        ("vit_small_r26_s32_224", "head"),
        ("resnet18", "fc"),
        ("vt_resnet18", "fc"),
        ("fpn_resnet50", "classifier"),
    ],
)
def test_the_number_of_classes_is_the_checkpoints(tmp_path, name, head):
    state = shapes_of(name)
    state |= {f"{head}.{part}": state[f"{head}.{part}"][:5] for part in ("weight", "bias")}
    config = checkpoints.adapt(ZOO[name].config, state)
    assert config.num_classes == 5
    with torch.device("meta"):
        checkpoints.load_into(build(config), state, tmp_path)
    assert checkpoints.fitting_archs(state) == [name]


@pytest.mark.parametrize(
    ("name", "changes", "fitting"),
    [
        ("vit_base_patch32_384", {}, ["vit_base_patch32_384"]),
        ("deit_tiny_distilled_patch16_224", {}, ["deit_tiny_distilled_patch16_224"]),
        ("vit_large_patch16_224.mae", {"num_classes": 9}, ["vit_large_patch16_224.mae"]),
        ("vit_tiny_patch16_224", {}, ["vit_tiny_patch16_224", "deit_tiny_patch16_224"]),
        ("vit_huge_patch14_224", {"image_size": (518, 518)}, ["vit_huge_patch14_224"]),
        ("vit_huge_patch14_224", {"depth": 31}, []),
    ],
    ids=str,
)
def test_the_architecture_of_a_checkpoint_is_found_by_its_shapes(name, changes, fitting):
    assert checkpoints.fitting_archs(shapes_of(name, **changes)) == fitting


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("vit_base_patch32_384", "of 'vit_base_patch32_384'; pass `arch='vit_base_patch32_384'`"),
        (
            "vit_tiny_patch16_224",
            "of 'vit_tiny_patch16_224' and 'deit_tiny_patch16_224', of different",
        ),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused_with_its_name(tmp_path, name, fix):
    state = shapes_of(name)
    digits = VisionTransformer(checkpoints.adapt(ZOO["digits"].config, state))
    with pytest.raises(InputError) as caught:
        checkpoints.load_into(digits, state, tmp_path / "w.pt")
    assert "misshaped (blocks.0.attn.proj.bias" in caught.value.what
    assert fix in caught.value.fix
    assert f"`arch='{name}'`" in caught.value.fix


@pytest.mark.parametrize(
    ("variant", "listed"),
    [
        ("registers", "unexpected (reg_token)"),
        ("layer scale", "unexpected (blocks.0.ls1.gamma"),
        ("no qkv bias", "missing (blocks.0.attn.qkv.bias"),
        ("not square", "1 misshaped (pos_embed (1, 16, 48), not (1, 17, 48))"),
    ],
)
def test_a_variant_of_vit_is_refused(tmp_path, variant, listed):
    from timm.models.vision_transformer import VisionTransformer as Timm

    changes = {
        "registers": {"reg_tokens": 4, "no_embed_class": True},
        "layer scale": {"init_values": 1e-5},
        "no qkv bias": {"qkv_bias": False},
    }
    state = Timm(**TIMM, **changes.get(variant, {})).state_dict()
    if variant == "not square":
        state["pos_embed"] = state["pos_embed"][:, 1:]
    assert listed in refusal(write(tmp_path / "w.pt", state)).what
