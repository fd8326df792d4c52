"""The sweeps over libraries: what they list, and a few telling rows as a whole sweep runs them."""

import pytest

from tests.support import tiny_timm, tiny_transformers
from tests.support.sweep import TARGETS, Model, measure, shortfall

TELLING = ("vit/ViTForMaskedImageModeling",)
HEAVY = (
    "detr/DetrForObjectDetection",
    "dpt/DPTForDepthEstimation",
    "eomt/EomtForUniversalSegmentation",
)


def test_transformers_lists_models_of_every_task(peers):
    models = tiny_transformers.models()

    assert len({model.architecture for model in models}) == len(models)
    heads = [model.kind for model in models]
    assert len(models) > 86
    for head in ("IMAGE_CLASSIFICATION", "SEMANTIC_SEGMENTATION", "OBJECT_DETECTION", "BACKBONE"):
        assert head in heads


def test_timm_has_its_families(peers):
    families = tiny_timm.families()

    assert families["vision_transformer_relpos", "vit_relpos"]
    assert families["swin_transformer_v2", "swinv2"][0].startswith("swinv2_tiny")


@pytest.mark.parametrize(
    "name", [*TELLING, *(pytest.param(name, marks=pytest.mark.heavy) for name in HEAVY)]
)
def test_a_model_of_transformers_gets_int8_as_it_comes(peers, tmp_path, name):
    model = next(model for model in tiny_transformers.models() if model.name == name)
    folder = tmp_path / model.architecture
    facts = tiny_transformers.write(model, str(folder))

    row = measure(f"hf:{folder}", facts["given"], tmp_path, TARGETS)

    assert [shortfall(row, target) for target in TARGETS] == ["", ""]
    assert not row["lost"]


@pytest.mark.parametrize(
    "names",
    [
        ("deit", "deit", "deit_tiny_patch16_224"),
        # in INT8, OpenVINO gives its logits an axis more
        pytest.param(("byobnet", "resnet_clip", "resnet50_clip"), marks=pytest.mark.heavy),
    ],
)
def test_a_family_of_timm_gets_int8_as_it_comes(peers, tmp_path, names):
    model = Model(*names)
    facts = tiny_timm.write(model, str(tmp_path / model.architecture))

    row = measure(
        f"timm:local-dir:{tmp_path / model.architecture}", facts["given"], tmp_path, TARGETS
    )

    assert [shortfall(row, target) for target in TARGETS] == ["", ""]
