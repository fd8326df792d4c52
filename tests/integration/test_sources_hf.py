"""hf: from directories that transformers saved: what it makes of them, and what it refuses."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from vitedge.core.errors import InputError, UnavailableError
from vitedge.core.spec import Preprocess
from vitedge.models.sources import ModelRequest, resolve

pytestmark = pytest.mark.usefixtures("peers")

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def saved(tmp_path):
    """Save `ARCHITECTURE(CONFIG(SMALL and these settings))` with random weights, and its folder."""
    import transformers

    def save(architecture, config, **settings):
        torch.manual_seed(0)
        settings = getattr(transformers, config)(**(SMALL | settings))
        module = getattr(transformers, architecture)(settings)
        with torch.no_grad():  # where layers start as constants, a model hides what it leaves out
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
        folder = tmp_path / architecture
        module.save_pretrained(folder)
        size = {"height": 32, "width": 32}
        transformers.ViTImageProcessor(size=size).save_pretrained(folder)
        return folder

    return save


def answer(source, pixels=PIXELS, **request):
    """What the model of a folder gives."""
    content = resolve(ModelRequest(f"hf:{source}", **request)).content
    with torch.inference_mode():
        return content(pixels)


def peer_of(folder, kind, **options):
    """What transformers itself makes of a folder."""
    import transformers

    return getattr(transformers, kind).from_pretrained(folder, **options).eval()


def same(got, want):
    return got.shape == want.shape and torch.allclose(got, want, rtol=1e-5, atol=1e-6)


def refusal(source, kind=InputError, **request):
    """What the user is told, the fix included."""
    with pytest.raises(kind) as caught:
        resolve(ModelRequest(f"hf:{source}", **request))
    assert caught.value.fix
    return f"{caught.value.what} {caught.value.fix}"


def edit_config(folder, **settings):
    """Write `settings` into the folder's config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


# -- what is read -------------------------------------------------------------------------------


def test_a_folder_brings_weights_preprocessing_and_labels(hf_folder):
    known = resolve(ModelRequest(f"hf:{hf_folder}")).identity
    assert (known.name, known.task) == ("my-vit", "classification")
    assert known.labels == ("tench", "goldfish", "white shark")
    assert known.trained
    assert known.preprocess == Preprocess(
        height=32,
        width=32,
        resize="exact",
        interpolation="bilinear",
        crop_rounding="down",
        mean=(0.4, 0.5, 0.6),
    )
    peer = peer_of(hf_folder, "ViTForImageClassification")
    assert same(answer(hf_folder), peer(PIXELS).logits)


def test_a_processors_file_holds_the_image_processor_too(hf_folder):
    """As AutoProcessor saves it since transformers 5."""
    own = resolve(ModelRequest(f"hf:{hf_folder}")).identity.preprocess
    file = hf_folder / "preprocessor_config.json"
    nested = {"image_processor": json.loads(file.read_text()), "processor_class": "AProcessor"}
    file.unlink()
    (hf_folder / "processor_config.json").write_text(json.dumps(nested))
    assert resolve(ModelRequest(f"hf:{hf_folder}")).identity.preprocess == own
    (hf_folder / "processor_config.json").write_text("{}")
    assert "has no preprocessor_config.json" in refusal(hf_folder)


def test_our_own_vit_reads_the_same_folders_weights(hf_folder):
    """Another road to the same answer, for a model of the zoo's shape."""
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=192, num_attention_heads=3, intermediate_size=768, layer_norm_eps=1e-6
    )
    peer = transformers.ViTForImageClassification(config).eval()
    peer.save_pretrained(hf_folder)
    file = hf_folder / "model.safetensors"
    model = resolve(ModelRequest(str(file), arch="vit_tiny_patch16_224"))
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert same(model.content(pixels), peer(pixels).logits)
    assert model.identity.labels == ("0", "1")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_stored_in_16_bits_compute_in_32(hf_folder, dtype):
    peer_of(hf_folder, "ViTForImageClassification").to(dtype).save_pretrained(hf_folder)
    state = load_file(hf_folder / "model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {dtype}
    peer = peer_of(hf_folder, "ViTForImageClassification", dtype=torch.float32)
    assert same(answer(hf_folder), peer(PIXELS).logits)
    for flags in ({"random_weights": True}, {"weights": hf_folder / "model.safetensors"}):
        assert answer(hf_folder, **flags).dtype == torch.float32


def test_random_weights_need_the_config_alone(hf_folder):
    (hf_folder / "model.safetensors").unlink()
    model = resolve(ModelRequest(f"hf:{hf_folder}", random_weights=True))
    assert not model.identity.trained
    again = resolve(ModelRequest(f"hf:{hf_folder}", random_weights=True))
    assert model.identity.weights_sha256 == again.identity.weights_sha256


def test_a_resolution_the_config_does_not_have_is_interpolated(hf_folder):
    mine = hf_folder / "mine.toml"
    mine.write_text("height = 48\nwidth = 64\n")
    assert answer(hf_folder, torch.zeros(1, 3, 48, 64), preprocess=mine).shape == (1, 3)


@pytest.mark.parametrize("value", [7, None])
def test_labels_need_not_be_text(hf_folder, value):
    edit_config(hf_folder, id2label={"0": "cat", "1": value, "2": "dog"}, label2id={})
    assert resolve(ModelRequest(f"hf:{hf_folder}")).identity.labels == ("cat", str(value), "dog")


# -- weights of one's own -------------------------------------------------------------------


def test_weights_may_have_the_hubs_names_or_those_of_the_modules(hf_folder, tmp_path):
    hub_names = hf_folder / "model.safetensors"
    module = peer_of(hf_folder, "ViTForImageClassification")
    torch.save({f"module.{k}": v for k, v in module.state_dict().items()}, tmp_path / "mine.pt")
    stored = resolve(ModelRequest(f"hf:{hf_folder}")).identity
    want = answer(hf_folder)
    features = answer(hf_folder, task="features")
    for file in (hub_names, tmp_path / "mine.pt"):
        given = resolve(ModelRequest(f"hf:{hf_folder}", weights=file)).identity
        assert given.trained and given.weights_sha256 == stored.weights_sha256
        assert torch.equal(answer(hf_folder, weights=file), want)
        assert torch.equal(answer(hf_folder, weights=file, task="features"), features)


def test_weights_of_another_architecture_are_refused(hf_folder, saved):
    other = saved("BeitForImageClassification", "BeitConfig", num_labels=5) / "model.safetensors"
    said = refusal(hf_folder, weights=other)
    assert str(other) in said
    assert "missing (vit." in said and "unexpected (beit." in said
    assert "misshaped (classifier.bias (5,), not (3,)" in said
    assert "missing (vit." in refusal(hf_folder, weights=other, task="features")


# -- features -----------------------------------------------------------------------------------


FEATURES = {
    "the class token of a classifier's encoder": (
        *("ViTForImageClassification", {}),
        lambda peer: peer.vit(PIXELS).last_hidden_state[:, 0],
    ),
    "a pooler that was saved": ("ViTModel", {}, lambda peer: peer(PIXELS).pooler_output),
    "a pooler that was trained with a classifier": (
        *("BeitForImageClassification", {"num_labels": 5}),
        lambda peer: peer.beit(PIXELS).pooler_output,
    ),
    "a convolutional encoder's, one row an image": (
        *("ResNetModel", {"hidden_sizes": [8, 16], "depths": [1, 1]}),
        lambda peer: peer(PIXELS).pooler_output[:, :, 0, 0],
    ),
    "the encoder's of masked image modeling": (
        *("ViTForMaskedImageModeling", {}),
        lambda peer: peer.vit(PIXELS).last_hidden_state[:, 0],
    ),
}


@pytest.mark.parametrize("kind", FEATURES)
def test_features_are_those_of_the_encoder(saved, kind):
    architecture, settings, features = FEATURES[kind]
    family = architecture.partition("For")[0].removesuffix("Model")
    folder = saved(architecture, f"{family}Config", **settings)
    want = features(peer_of(folder, architecture))
    for task in ("features", None) if architecture.endswith("Model") else ("features",):
        known = resolve(ModelRequest(f"hf:{folder}", task=task)).identity
        assert (known.task, known.labels) == ("features", ())
        assert same(answer(folder, task=task), want)


@pytest.mark.parametrize("task", ["features", None])
def test_a_pooler_that_was_never_trained_is_not_made_up(saved, task):
    folder = saved("ViTModel", "ViTConfig")
    state = load_file(folder / "model.safetensors")
    rest = {name: tensor for name, tensor in state.items() if "pooler" not in name}
    assert len(rest) == len(state) - 2
    save_file(rest, folder / "model.safetensors", {"format": "pt"})
    peer = peer_of(folder, "ViTModel")
    assert same(answer(folder, task=task), peer(PIXELS).last_hidden_state[:, 0])


@pytest.mark.parametrize("kind", ["ViTMAEForPreTraining", "ViTMAEModel"])
def test_features_of_mae_are_of_the_whole_image(saved, kind):
    """transformers itself only shuffles the patches once its mask ratio is 0."""
    folder = saved(kind, "ViTMAEConfig")
    model = resolve(ModelRequest(f"hf:{folder}"))
    assert model.identity.task == "features"
    first = answer(folder)
    assert torch.equal(first, answer(folder))
    peer = peer_of(folder, "ViTMAEModel", mask_ratio=0.0)
    in_order = torch.arange(16.0).expand(2, -1)
    assert same(first, peer(PIXELS, noise=in_order).last_hidden_state[:, 0])
    edit_config(folder, mask_ratio=0.5)
    assert torch.equal(first, answer(folder))


# -- several outputs ----------------------------------------------------------------------------


def test_a_detectors_logits_and_boxes_are_two_outputs(saved):
    folder = saved("YolosForObjectDetection", "YolosConfig", image_size=[32, 32])
    model = resolve(ModelRequest(f"hf:{folder}"))
    assert model.outputs == ("logits", "pred_boxes") and model.identity.task == "detection"
    main, left = model.identity.notes
    assert "'logits' and 'pred_boxes' are what accuracy" in main and "last_hidden_state" in left
    want = peer_of(folder, "YolosForObjectDetection")(PIXELS)
    for got, expected in zip(answer(folder), (want.logits, want.pred_boxes), strict=True):
        assert same(got, expected)


def test_an_encoders_other_outputs_are_kept_when_a_user_names_them(saved):
    folder = saved("ViTModel", "ViTConfig")
    known = resolve(ModelRequest(f"hf:{folder}")).identity
    assert "left out: last_hidden_state (1, 17, 32), class_token (1, 32)" in known.notes[0]
    names = ("last_hidden_state", "pooler_output")
    hidden, pooled = answer(folder, model_output=names)
    want = peer_of(folder, "ViTModel")(PIXELS)
    assert same(hidden, want.last_hidden_state) and same(pooled, want.pooler_output)
    assert "has no output 'logits'" in refusal(folder, model_output=("logits",))


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("model.safetensors", "`random_weights=True`"),
        ("preprocessor_config.json", "has no preprocessor_config.json"),
        ("preprocessor_config.json", "`preprocess=FILE.toml`"),
    ],
)
def test_a_folder_without_one_of_its_files_names_it_and_the_parameter(hf_folder, name, says):
    (hf_folder / name).unlink()
    said = refusal(hf_folder)
    assert name in said and says in said


def test_a_folder_without_one_of_its_shards_names_it(hf_folder):
    module = peer_of(hf_folder, "ViTForImageClassification")
    (hf_folder / "model.safetensors").unlink()
    module.save_pretrained(hf_folder, max_shard_size="20KB")
    whole = answer(hf_folder)
    assert same(whole, module.eval()(PIXELS).logits)
    shard = sorted(hf_folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    said = refusal(hf_folder)
    assert shard.name in said and "`random_weights=True`" in said


def test_weights_on_a_hub_that_cannot_be_reached_are_unavailable():
    assert "connect" in refusal("google/vit-base-patch16-224", UnavailableError)


@pytest.mark.parametrize("content", ["[1", "[1]", "\N{SNOWMAN}"])
def test_a_processor_that_cannot_be_read_is_not_called_missing(hf_folder, content):
    (hf_folder / "preprocessor_config.json").write_text(content, encoding="utf-8")
    said = refusal(hf_folder)
    assert "preprocessor_config.json cannot be read" in said and "`preprocess=FILE.toml`" in said


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"id2label": {"0": "cat", "1": "dog"}}, "has 3 classes, and the model 2"),
        ({"id2label": {"0": "a", "2": "c", "5": "f"}}, "class 5 ('f') is none of 0 to 2; no name"),
        ({"id2label": {"1": "a", "2": "b", "3": "c"}}, "class 3 ('c') is none of 0 to 2; no name"),
        ({"id2label": {"zero": "a"}}, "'zero'"),
        ({"num_labels": 4}, "says `num_labels` 4, and its `id2label` names 3"),
        ({"num_labels": 4, "id2label": None}, "has 3 classes, and the model 4"),
    ],
)
def test_a_config_whose_classes_are_not_the_heads_is_refused(hf_folder, settings, says):
    edit_config(hf_folder, label2id=None, **settings)
    assert says in refusal(hf_folder)
    if "none of" in says:  # nothing but names is wrong
        labels = ("a", "b", "c")
        assert resolve(ModelRequest(f"hf:{hf_folder}", labels=labels)).identity.labels == labels


@pytest.mark.parametrize("random_weights", [False, True])
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"architectures": ["BertModel"]},
            "BertModel does not run on an image alone: it needs `input_ids`",
        ),
        ({"architectures": ["SwinModel"]}, "no SwinModel can be made of its config.json"),
        ({"architectures": ["NoSuchModel"]}, "no architecture of transformers (['NoSuchModel'])"),
        ({"architectures": None}, "no architecture of transformers"),
        ({"hidden_act": "zelu"}, "KeyError: 'zelu'"),
        ({"num_channels": 1}, "takes 1-channel images, not RGB"),
        ({"image_size": "large"}, "image_size"),
    ],
)
def test_a_config_that_makes_no_model_is_explained(hf_folder, settings, says, random_weights):
    edit_config(hf_folder, **settings)
    assert says in refusal(hf_folder, random_weights=random_weights)


def test_a_size_the_model_does_not_take_is_refused_before_the_export(saved):
    folder = saved("ViTForMaskedImageModeling", "ViTConfig")
    (folder / "mine.toml").write_text("height = 4\nwidth = 4\n")
    assert "4×4" in refusal(folder, preprocess=folder / "mine.toml")


def test_code_beside_a_config_does_not_run(hf_folder, tmp_path):
    mark = tmp_path / "it ran"
    (hf_folder / "modeling.py").write_text(f"open({str(mark)!r}, 'w')")
    edit_config(hf_folder, model_type="mine", auto_map={"AutoConfig": "modeling.Config"})
    refusal(hf_folder)
    assert not mark.exists()


# -- as a user runs it --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_weights_stored_in_16_bits_become_int8(hf_folder, dtype, tmp_path, vitedge):
    peer_of(hf_folder, "ViTForImageClassification").to(dtype).save_pretrained(hf_folder)
    vitedge(
        *("export", f"hf:{hf_folder}", "--target", "onnxruntime-cpu", "--output", tmp_path / "o"),
        *("--int8", "--calib-data", "random", "--num-samples", 4, "--duration", 0),
    )
    manifests = [json.loads(file.read_text()) for file in tmp_path.glob("o/*/manifest.json")]
    assert {manifest["precision"] for manifest in manifests} == {"fp32", "int8"}
    for manifest in manifests:
        assert [output["dtype"] for output in manifest["outputs"]] == ["float32"]
