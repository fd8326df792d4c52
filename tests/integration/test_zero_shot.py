"""--classes: an ordinary classifier of a model of images and texts; without, its image encoder."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.support import two_towers
from tests.support.two_towers import CLASSES, FAMILIES, SIDE, library_logits
from vitedge.core.errors import InputError
from vitedge.models.api import load, request, shapes_of
from vitedge.models.sources.hf_towers import TEXTS

pytestmark = pytest.mark.usefixtures("peers")

PIXELS = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def hub(tmp_path_factory, peers):
    """A folder of each family."""
    folders = {}
    for family in FAMILIES:
        folders[family] = tmp_path_factory.mktemp(family)
        two_towers.save(family, folders[family])
    return folders


@pytest.fixture
def clip(tmp_path):
    """A CLIP of one's own, to be spoilt."""
    return two_towers.save("clip", tmp_path)


def answer(content):
    with torch.no_grad():
        return content(PIXELS)


def refusal(source, **parameters):
    """What the user is told, the fix included."""
    with pytest.raises(InputError) as caught:
        load(f"hf:{source}", **parameters)
    assert caught.value.fix
    return f"{caught.value.what}; {caught.value.fix}"


# -- what comes out -----------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["", "{}, a sketch of {}"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_librarys_own(hub, family, prompt):
    model = load(f"hf:{hub[family]}", classes=CLASSES, prompt=prompt)
    texts = (prompt or "a photo of a {}").replace("{}", "{0}")
    want = library_logits(hub[family], PIXELS, prompt=texts)
    assert want.std(0).min() > 1e-2 and want.std(1).min() > 1e-2  # there is something to be equal
    assert torch.allclose(answer(model.content), want, rtol=1e-4, atol=1e-4 * want.abs().max())
    assert (model.identity.task, model.identity.labels) == ("classification", CLASSES)
    assert model.outputs == ("logits",)


def test_many_classes_are_read_in_parts(hub):
    words = ["circle", "square", "triangle", "star", "ring", "white", "photo"]
    classes = [f"{a} {b} {c}" for a in words for b in words for c in words[:2]]
    assert len(classes) > TEXTS
    model = load(f"hf:{hub['clip']}", classes=classes)
    want = library_logits(hub["clip"], PIXELS, classes)
    assert torch.allclose(answer(model.content), want, rtol=1e-4, atol=1e-4 * want.abs().max())


def test_the_text_tower_is_left_behind(hub):
    model = load(f"hf:{hub['siglip']}", classes=CLASSES)
    names = [name for name, _ in model.content.named_parameters()]
    assert names and not any("text" in name for name in names)
    (note,) = [note for note in model.identity.notes if "text tower" in note]
    assert "SiglipModel" in note and "5 classes" in note and "'a photo of a {}'" in note


@pytest.mark.parametrize("task", [None, "features"])
@pytest.mark.parametrize("family", FAMILIES)
def test_without_classes_it_is_the_image_encoder(hub, family, task):
    import transformers

    model = load(f"hf:{hub[family]}", task=task)
    peer = transformers.AutoModel.from_pretrained(hub[family]).eval()
    with torch.no_grad():
        want = peer.get_image_features(pixel_values=PIXELS).pooler_output
    got = answer(model.content)
    assert torch.allclose(got, want / want.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)
    assert (model.identity.task, model.identity.labels) == ("features", ())
    assert torch.allclose(got.norm(dim=1), torch.ones(3))


def test_another_resolution_is_interpolated(hub, tmp_path):
    file = tmp_path / "large.toml"
    file.write_text("height = 48\nwidth = 64\n")
    model = load(f"hf:{hub['clip']}", classes=CLASSES, preprocess=file)
    with torch.no_grad():
        assert model.content(torch.zeros(1, 3, 48, 64)).shape == (1, len(CLASSES))


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_looked_at_by_its_shapes_alone(hub, family):
    known = shapes_of(
        request(f"hf:{hub[family]}", weights=None, preprocess=None, task=None, classes=CLASSES)
    )
    assert known.identity.labels == CLASSES
    whole = load(f"hf:{hub[family]}", classes=CLASSES)
    shapes = {name: value.shape for name, value in known.content.state_dict().items()}
    assert shapes == {name: value.shape for name, value in whole.content.state_dict().items()}


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cat\ndog\ncat\n", "line 3 is 'cat', as 1 is"),
        ("cat\n  cat \n", "line 2 is 'cat', as 1 is"),
        ("cat\n\ndog\n", "line 2 is empty"),
        ("cat\n \t\n", "line 2 is empty"),
        ("", "names no class"),
        ("cat\nCat\n", "classes 'cat' and 'Cat' are the same text to its tokenizer"),
        ("cat\n" + "dog " * 50 + "\n", "takes texts of 48 tokens, and these classes are longer"),
        (b"\xff\xfe", "`classes`: cannot read"),
    ],
)
def test_classes_that_are_none(hub, tmp_path, text, says):
    file = tmp_path / "labels.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert says in refusal(hub["clip"], classes=file)


def test_a_file_of_classes_may_come_from_anywhere(hub, tmp_path):
    file = tmp_path / "labels.txt"
    file.write_bytes("\ufeffcircle\r\nwhite   ring".encode())
    assert load(f"hf:{hub['clip']}", classes=file).identity.labels == ("circle", "white ring")
    assert "`classes`: cannot read" in refusal(hub["clip"], classes=tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"prompt": "a photo of a {}"}, "pass `classes`"),
        ({"classes": CLASSES, "prompt": "a photo"}, "has no {} where the class stands"),
        ({"classes": CLASSES, "labels": CLASSES}, "drop `labels`"),
        ({"classes": CLASSES, "task": "features"}, "drop `task`"),
        ({"task": "classification"}, "pass `classes`"),
    ],
)
def test_parameters_that_do_not_go_together(hub, parameters, says):
    assert says in refusal(hub["siglip"], **parameters)


@pytest.mark.parametrize("model", ["", "timm:vit_tiny_patch16_224", "model.onnx"])
def test_other_models_have_no_text_tower(model):
    with pytest.raises(InputError, match="has no text tower"):
        load(model, classes=CLASSES)


def test_a_classifier_of_transformers_has_none_either(hf_folder):
    said = refusal(hf_folder, classes=CLASSES)
    assert "ViTForImageClassification has no text tower" in said and "drop `classes`" in said


@pytest.mark.parametrize("classes", [None, CLASSES])
def test_a_text_tower_that_is_not_there_is_missed_where_it_is_needed(clip, classes):
    state = load_file(clip / "model.safetensors")
    images = {k: v for k, v in state.items() if not k.startswith(("text_", "logit_"))}
    save_file(images, clip / "model.safetensors", {"format": "pt"})
    if classes:
        said = refusal(clip, classes=classes)
        assert "does not fit the model" in said and "missing (logit_scale, text_model." in said
    else:
        assert load(f"hf:{clip}").identity.task == "features"


def test_an_image_tower_that_is_not_whole_is_refused(clip):
    state = load_file(clip / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, clip / "model.safetensors", {"format": "pt"})
    assert "1 missing (visual_projection.weight)" in refusal(clip)


def test_a_tokenizer_that_is_not_there_or_anothers(clip, hub):
    (clip / "tokenizer.json").rename(clip / "aside.json")
    assert "has no tokenizer that can be read" in refusal(clip, classes=CLASSES)
    (clip / "tokenizer.json").write_text("{")
    assert "has no tokenizer that can be read" in refusal(clip, classes=CLASSES)
    (clip / "aside.json").replace(clip / "tokenizer.json")
    config = json.loads((clip / "config.json").read_text())
    config["text_config"]["vocab_size"] = 5
    (clip / "config.json").write_text(json.dumps(config))
    said = refusal(clip, classes=CLASSES, random_weights=True)
    assert "its text tower knows 5" in said


def test_images_of_open_size_are_no_image_alone(tmp_path):
    """SigLIP 2's NaFlex takes patches, a mask and their places."""
    import transformers

    text = {**two_towers.TOWER, "vocab_size": 9, "projection_size": 32}
    config = transformers.Siglip2Config(
        vision_config={**two_towers.TOWER, "patch_size": 8, "num_patches": 16}, text_config=text
    )
    transformers.Siglip2Model(config).save_pretrained(tmp_path)
    assert "it needs `pixel_attention_mask`, `spatial_shapes`" in refusal(tmp_path)


# -- as a user runs it --------------------------------------------------------------------------


def test_the_artifact_is_an_ordinary_classifier(hub, tmp_path, vitedge):
    """Exported, measured by top-1, gated, asked; its labels are the classes."""
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(CLASSES) + "\n")
    rng = np.random.default_rng(0)
    model = load(f"hf:{hub['clip']}", classes=CLASSES)
    images = rng.integers(0, 256, (40, SIDE, SIDE, 3), np.uint8)
    with torch.no_grad():  # as the model itself sees them, so that top-1 is 100%
        logits = model.content(torch.tensor(images).permute(0, 3, 1, 2) / 127.5 - 1)
    answers = logits.argmax(1).numpy()
    assert len(set(answers)) > 1
    np.savez(tmp_path / "val.npz", images=images, labels=answers)
    rest = rng.integers(0, 256, (8, SIDE, SIDE, 3), np.uint8)
    np.savez(tmp_path / "calib.npz", images=rest)
    done = vitedge(
        *("export", f"hf:{hub['clip']}", "--classes", labels, "--target", "onnxruntime-cpu"),
        *("--int8", "--calib-data", tmp_path / "calib.npz", "--eval-data", tmp_path / "val.npz"),
        *("--duration", 0, "--output", tmp_path / "artifacts"),
    )
    assert "text tower made its last layer of 5 classes" in done.stderr
    bundles = sorted((tmp_path / "artifacts").iterdir())
    for bundle in bundles:
        assert (bundle / "labels.txt").read_text().split("\n")[:5] == list(CLASSES)
    reports = {b.name: json.loads((b / "report.json").read_text())["accuracy"] for b in bundles}
    (fp32,) = [report for name, report in reports.items() if name.endswith("fp32")]
    assert fp32["metric"] == "top1" and fp32["artifact"] == 1.0
    Image.fromarray(images[0]).save(tmp_path / "one.png")
    said = vitedge("predict", bundles[0], tmp_path / "one.png", "--top", 1).stdout
    assert CLASSES[answers[0]] in said
    gated = vitedge("gate", *bundles, "--max-drop", 100)
    assert "passed" in gated.stdout
