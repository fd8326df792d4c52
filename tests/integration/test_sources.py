"""timm:, hf: and torchvision: from files laid out as on their hubs, and what is refused."""

import json
import pickle
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vitedge.core.errors import InputError, UnavailableError
from vitedge.models.sources import ModelRequest, resolve

pytestmark = pytest.mark.usefixtures("peers")

CLASSES = ("tench", "goldfish", "white shark")


class Shell:
    """What a pickle with code in it looks like; running it leaves a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def timm_folder(tmp_path):
    """A small DeiT with a config.json as timm's hub has it."""
    import timm
    from timm.models import save_for_hf

    torch.manual_seed(0)
    arguments = {"depth": 1, "num_classes": 3}
    module = timm.create_model("deit_tiny_patch16_224", **arguments)
    folder = tmp_path / "my-deit"
    save_for_hf(
        module,
        folder,
        model_config={"label_names": list(CLASSES)},
        model_args=arguments,
        safe_serialization=True,
    )
    return folder


def sized(folder, height, width):
    """A preprocessing of that size."""
    (folder / "mine.toml").write_text(f"height = {height}\nwidth = {width}\n")
    return folder / "mine.toml"


@pytest.fixture(params=["timm", "hf"])
def saved(request):
    """A folder as each library saves it, and how MODEL names it."""
    kind = request.param
    folder = request.getfixturevalue(f"{kind}_folder")
    return f"timm:local-dir:{folder}" if kind == "timm" else f"hf:{folder}", folder


def hub_file(home, name):
    """Where torch keeps the default weights of a torchvision model it has downloaded to `home`."""
    from torchvision import models

    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    url = models.get_model_weights(name).DEFAULT.url
    return folder / url.rpartition("/")[2]


@pytest.fixture
def resnet_file(tmp_path, monkeypatch):
    """ResNet-18's weights where torch keeps downloads: random, in torchvision's layout."""
    from torchvision import models

    torch.manual_seed(0)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = hub_file(tmp_path, "resnet18")
    torch.save(models.resnet18().state_dict(), file)
    return file


def same_answer(model, peer, size):
    """Whether both give the same logits for the same pixels."""
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return torch.allclose(model.content(pixels), peer(pixels), rtol=1e-5, atol=1e-6)


# -- what is read -------------------------------------------------------------------------------


def test_a_timm_folder_brings_weights_preprocessing_and_labels(timm_folder):
    import timm

    model = resolve(ModelRequest(f"timm:local-dir:{timm_folder}"))
    known = model.identity
    assert (known.name, known.task, known.labels) == ("my-deit", "classification", CLASSES)
    assert (known.preprocess.resize_px, known.preprocess.mean[0]) == (248, 0.485)
    peer = timm.create_model(f"local-dir:{timm_folder}", pretrained=True).eval()
    assert same_answer(model, peer, 224)


def test_a_timm_name_knows_imagenets_classes():
    name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    known = resolve(ModelRequest(f"timm:{name}", random_weights=True)).identity
    assert (known.name, len(known.labels)) == (name, 1000)
    assert known.labels[0].startswith("tench")
    assert known.preprocess.mean == (0.5, 0.5, 0.5)


def test_a_torchvision_name_reads_the_file_its_hub_left(resnet_file):
    from torchvision import models

    model = resolve(ModelRequest("torchvision:resnet18"))
    known = model.identity
    assert (known.task, known.labels[0], len(known.labels)) == ("classification", "tench", 1000)
    assert (known.preprocess.resize_px, known.preprocess.interpolation) == (256, "bilinear")
    peer = models.resnet18().eval()
    peer.load_state_dict(torch.load(resnet_file, weights_only=True))
    assert same_answer(model, peer, 224)


def test_a_torchvision_name_may_name_its_weights():
    source = "torchvision:vit_b_16.IMAGENET1K_SWAG_E2E_V1"
    preprocess = resolve(ModelRequest(source, random_weights=True)).identity.preprocess
    assert (preprocess.height, preprocess.resize_px) == (384, 384)


@pytest.mark.parametrize("source", ["timm:deit_tiny_patch16_224", "torchvision:resnet18"])
def test_weights_of_ones_own_go_into_a_librarys_model(tmp_path, source):
    random = resolve(ModelRequest(source, random_weights=True))
    state = {name: tensor + 1 for name, tensor in random.content.state_dict().items()}
    save_file(state, tmp_path / "mine.safetensors")
    mine = resolve(ModelRequest(source, weights=tmp_path / "mine.safetensors"))
    assert mine.identity.trained
    assert mine.identity.weights_sha256 != random.identity.weights_sha256


# -- what is refused ----------------------------------------------------------------------------


def refusal(request, kind=InputError):
    """What the user is told, the fix included."""
    with pytest.raises(kind) as caught:
        resolve(request)
    assert caught.value.fix
    return f"{caught.value.what} {caught.value.fix}"


@pytest.mark.parametrize(
    "source",
    ["timm:vit_tiny_patch16_224", "hf:google/vit-base-patch16-224", "torchvision:vit_b_32"],
)
def test_weights_that_cannot_be_fetched_name_the_flag(source, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    said = refusal(ModelRequest(source), UnavailableError)
    assert source in said and "`random_weights=True`" in said and "`weights=FILE`" in said


def test_timms_labels_that_are_not_the_heads_are_refused(timm_folder):
    config = json.loads((timm_folder / "config.json").read_text())
    config["label_names"] = ["cat", "dog"]
    (timm_folder / "config.json").write_text(json.dumps(config))
    said = refusal(ModelRequest(f"timm:local-dir:{timm_folder}"))
    assert "2 classes" in said and "3 outputs" in said


def test_missing_extra_and_misshaped_tensors_are_listed(saved):
    source, folder = saved
    state = load_file(folder / "model.safetensors")
    names = sorted(name for name in state if name.endswith("bias"))
    for name in names[:6]:
        del state[name]
    state["stray.weight"] = torch.zeros(3)
    state[names[6]] = torch.zeros(7)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    said = refusal(ModelRequest(source))
    assert "6 missing" in said and "…" in said
    assert "1 unexpected (stray.weight)" in said
    assert "1 misshaped" in said and "bias (7" in said


def test_weights_with_nan_are_refused(saved):
    source, folder = saved
    state = load_file(folder / "model.safetensors")
    next(iter(state.values())).view(-1)[0] = float("nan")
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    assert "NaN" in refusal(ModelRequest(source))


def test_code_in_a_folders_weights_does_not_run(saved, tmp_path):
    source, folder = saved
    (folder / "model.safetensors").unlink()
    assert_not_run(source, folder / "pytorch_model.bin", tmp_path / "it ran")


def test_code_in_a_download_does_not_run(resnet_file, tmp_path):
    assert_not_run("torchvision:resnet18", resnet_file, tmp_path / "it ran")


def assert_not_run(source, file, mark):
    file.write_bytes(pickle.dumps({"weight": Shell(mark)}))
    refusal(ModelRequest(source))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (ModelRequest("timm:vit_tinny_patch16_224"), "'vit_tiny_patch16_224'"),
        (ModelRequest("torchvision:vit_b_61"), "'vit_b_16'"),
        (ModelRequest("torchvision:vit_b_16.IMAGENET1K_V7"), "'IMAGENET1K_V1'"),
        (ModelRequest("vit_tinny_patch16_224"), "'vit_tiny_patch16_224'"),
        (ModelRequest("timm:vit_tiny_patch16_224", task="segmentation"), "drop `task`"),
        (ModelRequest("torchvision:resnet18", task="segmentation"), "drop `task`"),
        (
            ModelRequest("vit_tiny_patch16_224", random_weights=True, task="segmentation"),
            "drop `task`",
        ),
        (ModelRequest("", weights=Path("a.pt"), random_weights=True), "exclude"),
        (ModelRequest("timm:vit_tiny_patch16_224", arch="digits"), "`arch` does not apply to"),
    ],
    ids=str,
)
def test_what_is_unknown_or_does_not_belong_together_is_refused(request_, says):
    assert says in refusal(request_)


@pytest.mark.parametrize(
    ("model", "height", "width", "says"),
    [
        ("vit_tiny_patch16_224", 200, 224, "multiples of 16"),
        ("timm:test_vit", 100, 160, "takes 96×160"),
        ("torchvision:vit_b_32", 96, 160, "square"),
        ("torchvision:vit_b_32", 100, 100, "takes 96×96"),
        ("torchvision:squeezenet1_1", 4, 4, "takes 28×28"),
        ("timm:xcit_nano_12_p16_224", 200, 200, "takes 192×192"),
    ],
)
def test_a_size_the_model_cannot_take_is_refused(tmp_path, model, height, width, says):
    mine = sized(tmp_path, height, width)
    assert says in refusal(ModelRequest(model, preprocess=mine, random_weights=True))


# -- the peers' own ways ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "height", "width"),
    [
        ("vit_tiny_r_s16_p8_224", 96, 160),
        ("timm:vit_tiny_patch16_224", 96, 160),
        ("timm:efficientvit_m0", 96, 160),  # of one size as timm makes it
        ("timm:resnet18", 96, 160),
        pytest.param("timm:levit_128s", 96, 160, marks=pytest.mark.heavy),
        ("torchvision:vit_b_32", 96, 96),
        ("torchvision:resnet18", 96, 160),
    ],
)
def test_preprocess_sets_the_resolution_of_any_source(tmp_path, source, height, width):
    mine = sized(tmp_path, height, width)
    model = resolve(ModelRequest(source, preprocess=mine, random_weights=True))
    assert model.content(torch.zeros(1, 3, height, width)).shape == (1, 1000)


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "googlenet"])
def test_torchvisions_models_are_built_as_for_their_weights(name, tmp_path, monkeypatch):
    """Segmenters fetch no backbone; GoogLeNet normalises its input a second time."""
    from torchvision import models

    torch.manual_seed(0)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    own = {"weights_backbone": None} if name.startswith("lraspp") else {"init_weights": False}
    state = models.get_model(name, weights=None, **own).state_dict()
    torch.save(state, hub_file(tmp_path, name))
    model = resolve(ModelRequest(f"torchvision:{name}"))
    peer = models.get_model(name, weights="DEFAULT").eval()
    assert same_answer(model, lambda x: y["out"] if isinstance(y := peer(x), dict) else y, 64)


def test_a_classifiers_weights_become_features(timm_folder):
    weights = timm_folder / "model.safetensors"
    state = {f"module.{name}": tensor for name, tensor in load_file(weights).items()}
    save_file(state, weights, {"format": "pt"})
    (timm_folder / "config.json").write_text(
        (timm_folder / "config.json").read_text().replace('"num_classes": 3', '"num_classes": 5')
    )
    source = f"timm:local-dir:{timm_folder}"
    model = resolve(ModelRequest(source, weights=weights, task="features"))
    assert (model.identity.task, model.identity.labels) == ("features", ())


def trained(folder, module):
    """A checkpoint as timm's and torchvision's training scripts save it, after the fine-tuning."""
    state = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    ema = {name: tensor + 1 for name, tensor in state.items()}
    kept = {"epoch": 3, "args": Namespace(lr=0.1), "state_dict": state, "state_dict_ema": ema}
    torch.save(kept, folder / "ten.pt")
    return folder / "ten.pt"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("torchvision:", "shufflenet_v2_x0_5"),
        pytest.param("torchvision:", "lraspp_mobilenet_v3_large", marks=pytest.mark.heavy),
        ("timm:", "test_vit"),
        ("timm:", "test_resnet"),
        ("", "vit_tiny_patch16_224"),
    ],
)
def test_weights_bring_their_own_count_of_classes(tmp_path, source, name):
    import timm
    from torchvision import models

    torch.manual_seed(0)
    if source == "torchvision:":
        further = {"weights_backbone": None} if "lraspp" in name else {}
        module = models.get_model(name, weights=None, num_classes=10, **further).eval()
    else:
        module = timm.create_model(name, num_classes=10).eval()
    weights = trained(tmp_path, module)
    asked = ModelRequest(source + name, weights=weights)
    if not source:
        asked = ModelRequest(str(weights), arch=name)
    model = resolve(asked)
    assert model.identity.labels == tuple(map(str, range(10)))
    (note,) = (note for note in model.identity.notes if "classes" in note)
    assert note.startswith("ten.pt has 10 classes, not ") and "called by number" in note
    size = (model.identity.preprocess.height, model.identity.preprocess.width)
    pixels = torch.randn(1, 3, *size)
    with torch.inference_mode():
        want = module(pixels)
        want = want["out"] if isinstance(want, dict) else want
        torch.testing.assert_close(model.content(pixels), want, rtol=1e-4, atol=1e-5)
    names = tuple("abcdefghij")
    named = resolve(replace(asked, labels=names)).identity
    assert named.labels == names and not any("classes" in note for note in named.notes)
    with pytest.raises(InputError, match="`labels` names 3 classes, and the model has 10 outputs"):
        resolve(replace(asked, labels=CLASSES))


def test_weights_that_differ_in_more_than_the_head_are_refused(tmp_path):
    from torchvision import models

    state = models.shufflenet_v2_x0_5(num_classes=10).state_dict()
    state["conv1.0.weight"] = torch.zeros(12, 3, 3, 3)
    save_file(state, tmp_path / "odd.safetensors")
    asked = ModelRequest("torchvision:shufflenet_v2_x0_5", weights=tmp_path / "odd.safetensors")
    said = refusal(asked)
    assert "conv1.0.weight (12, 3, 3, 3), not (24, 3, 3, 3)" in said and "classes" not in said


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"num_classes": 5}, "has 3 classes, and the model 5"),
        ({"label_names": ["a", "b"]}, "names 2 classes, and its head has 3 outputs"),
    ],
)
def test_a_timm_config_whose_classes_are_not_the_heads_is_refused(timm_folder, settings, says):
    file = timm_folder / "config.json"
    config = json.loads(file.read_text()) | settings
    config["model_args"] = {"depth": 1, "num_classes": config["num_classes"]}
    file.write_text(json.dumps(config))
    assert says in refusal(ModelRequest(f"timm:local-dir:{timm_folder}"))


def test_labels_of_what_has_no_classes_are_refused(timm_folder):
    source = f"timm:local-dir:{timm_folder}"
    said = refusal(ModelRequest(source, task="features", labels=CLASSES))
    assert "gives no classes to name" in said


def test_what_weights_do_not_say_is_noted(tmp_path):
    from vitedge.models.zoo import ZOO
    from vitedge.models.zoo.vit import VisionTransformer

    state = VisionTransformer(ZOO["vit_tiny_patch16_384"].config).state_dict()
    save_file(state, tmp_path / "mine.safetensors")
    model = resolve(ModelRequest(str(tmp_path / "mine.safetensors"), arch="vit_tiny_patch16_224"))
    how, where = model.identity.notes
    assert "mean 0.5" in how and "`preprocess`" in how
    assert "interpolated" in where
