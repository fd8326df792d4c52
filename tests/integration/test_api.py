"""A notebook's ten lines, with no command line: load, export, predict, validate, bench, gate."""

import inspect
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vitedge as ve
from tests.support.machine import ONNXRUNTIME

SMALL = ve.Preprocess(height=32, width=32, resize="exact")
NO_TORCH = """
import sys

sys.modules |= dict.fromkeys(("torch", "onnx"))  # importing them fails
import numpy as np
import vitedge as ve

bundle, images = ve.open(sys.argv[1]), np.load(sys.argv[2])
predictions = bundle.predict(images["images"])
assert all(len(p.top) == 5 and 0 < p.top[1].score < p.top[0].score <= 1 for p in predictions)
labels = np.array([prediction.top[0].index for prediction in predictions])
assert (labels == images["labels"]).mean() > 0.9
assert ve.validate(bundle, sys.argv[2]).accuracy.n == len(labels)
reports = ve.bench([bundle], duration_s=0.1)
assert reports[0].latency.p50_ms > 0
assert ve.gate([bundle], max_drop_pp=50, max_size_mb=10).answer == "passed"
assert len(ve.compare(bundle.reference(), bundle).sides) == 2
print("done")
"""


class TinyViT(nn.Module):
    """Patches of 8 pixels, one attention block, 10 classes."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.norm, self.qkv, self.out = nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.head = nn.Linear(32, 10)
        self.dropout = nn.Dropout(0.5)

    def forward(self, pixels):
        tokens = self.patches(pixels).flatten(2).transpose(1, 2)  # (B, T, D)
        batch, count, width = tokens.shape
        qkv = self.qkv(self.norm(tokens)).reshape(batch, count, 3, 2, width // 2)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, T, D / heads)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        tokens = tokens + self.out(mixed.transpose(1, 2).reshape(tokens.shape))
        return self.head(self.dropout(tokens).mean(1))


@pytest.fixture
def images(held_out, tmp_path):
    """Held-out digits as an .npz."""
    np.savez(tmp_path / "val.npz", images=held_out.images[:100], labels=held_out.labels[:100])
    return tmp_path / "val.npz"


def test_nothing_but_export_takes_torch(artifacts, images, tmp_path):
    """Its export, in this process, is a block of the manual: tests/e2e/test_readme.py."""
    for precision in ("fp32", "int8"):  # copies: their reports are made anew
        name = f"digits-{ONNXRUNTIME}-{precision}"
        shutil.copytree(artifacts / name, tmp_path / name)
    environment = [sys.executable, "-c", NO_TORCH, str(tmp_path / name), str(images)]
    done = subprocess.run(environment, capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr


def test_a_module_in_memory(tmp_path, held_out, capfd):
    torch.manual_seed(0)
    module = TinyViT()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with torch.no_grad():
        pixels = torch.from_numpy(held_out.images[:8]).permute(0, 3, 1, 2) / 127.5 - 1
        want = module.eval()(pixels).softmax(1).numpy()
    module.train()
    model = ve.load(module, preprocess=SMALL, labels=[f"digit {i}" for i in range(10)], name="tiny")
    data = (held_out.images[:64], held_out.labels[:64])
    made = ve.export(
        model,
        targets=[ONNXRUNTIME],
        precision="int8",
        calib_data=held_out.images[64:80],
        eval_data=data,
        duration_s=0,
        output=tmp_path,
    )
    assert [result.bundle.path.name for result in made][-1] == f"tiny-{ONNXRUNTIME}-int8"
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    bundle = made[-1].bundle
    scores = [
        {entry.label: entry.score for entry in prediction.top}
        for prediction in made[0].bundle.predict(held_out.images[:8], top=10)
    ]
    got = [[row[f"digit {i}"] for i in range(10)] for row in scores]
    np.testing.assert_allclose(got, want, atol=1e-4)
    report = ve.validate(bundle, data)
    assert report.accuracy.data == "memory"
    assert capfd.readouterr().out == ""
    again = ve.export(model, targets=ONNXRUNTIME, eval_data=data, output=tmp_path / "again")
    assert again[0].bundle.model_files == made[0].bundle.model_files  # its owner still has it
    assert ve.bench(bundle, duration_s=0.05)[0].latency is not None
    assert ve.gate(bundle, min_sqnr_db=5).answer == "passed"


def test_a_timm_model(tmp_path, peers, held_out):
    made = ve.export(
        "timm:test_vit",
        random_weights=True,
        preprocess=ve.Preprocess(height=64, width=64),
        targets=[ONNXRUNTIME],
        precision="int8",
        calib_data=held_out.images[:8],
        duration_s=0,
        output=tmp_path,
    )
    with ve.open(made[-1].bundle.path) as bundle:
        assert len(bundle.predict(list(held_out.images[:3]), top=2)) == 3
        report = ve.validate(bundle)  # its accuracy means nothing: parity
        assert not report.parity.broken
        assert ve.bench([bundle], duration_s=0.05)[0].latency is not None
        assert ve.gate([bundle], max_size_mb=100).answer == "passed"


# -- what predict takes -------------------------------------------------------------------------


def test_predict_takes_files_pillow_images_and_pixels(artifacts, held_out, tmp_path):
    bundle = ve.open(artifacts / f"digits-{ONNXRUNTIME}-fp32")
    pixels = held_out.images[7]
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    expected = bundle.predict(pixels)
    assert expected.top[0].index == held_out.labels[7]
    assert bundle.predict(str(tmp_path / "digit.png")) == expected
    assert bundle.predict(Image.open(tmp_path / "digit.png")) == expected
    assert bundle.predict([tmp_path / "digit.png", pixels]) == [expected, expected]
    assert bundle.predict(pixels[None]) == ve.predict(bundle, [pixels]) == [expected]
    grey = Image.fromarray(pixels).convert("L")
    assert bundle.predict(grey).top[0].index == held_out.labels[7] and grey.mode == "L"
    session = vars(bundle)["_session"]
    assert bundle.predict([]) == [] and vars(bundle)["_session"] is session  # kept open
    bundle.close()
    assert bundle.predict(pixels) == expected  # and opened again


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((8, 8), np.uint8), "not uint8 (n, H, W, 3)"),
        (np.zeros((8, 8, 3), np.float32), "float32"),
        ("absent.png", "no image 'absent.png'"),
        (Image.new("CMYK", (8, 8)), "CMYK"),
        (__file__, "corrupt"),
    ],
    ids=["grey array", "float array", "absent", "cmyk", "no image"],
)
def test_predict_refuses_what_is_no_image(artifacts, image, says):
    with pytest.raises(ve.InputError) as refusal:
        ve.predict(artifacts / f"digits-{ONNXRUNTIME}-fp32", image)
    assert says in refusal.value.what and refusal.value.fix


# -- what does not go together ------------------------------------------------------------------


class NoTensor(TinyViT):
    def forward(self, pixels):
        return {"logits": "none"}


@pytest.mark.parametrize(
    ("model", "parameters", "says"),
    [
        (TinyViT(), {}, "`preprocess`"),
        (TinyViT(), {"preprocess": SMALL, "arch": "digits"}, "`arch`"),
        (TinyViT(), {"preprocess": SMALL, "labels": ["one"]}, "10 outputs"),
        (TinyViT(), {"preprocess": ve.Preprocess(height=7, width=7)}, "(1, 3, 7, 7)"),
        (NoTensor(), {"preprocess": SMALL}, "gives dict, and no tensor"),
        (TinyViT(), {"preprocess": SMALL, "model_output": "logits"}, "gives one tensor"),
        ("", {"task": "tracking"}, "unknown `task` 'tracking'"),
    ],
    ids=["no preprocess", "arch", "labels", "size", "dictionary", "output", "task"],
)
def test_load_refuses_what_it_cannot_take(model, parameters, says):
    with pytest.raises(ve.InputError) as refusal:
        ve.load(model, **parameters)
    assert says in refusal.value.what + refusal.value.fix


def test_parameters_are_refused_in_their_own_words(artifacts, tmp_path):
    model, bundle = ve.load(), artifacts / f"digits-{ONNXRUNTIME}-fp32"
    with pytest.raises(ve.InputError, match="takes no parameters of `load`"):
        ve.export(model, targets=ONNXRUNTIME, arch="digits")
    with pytest.raises(ve.InputError) as refusal:
        ve.export(model, output=tmp_path)
    assert "`targets`" in refusal.value.fix
    with pytest.raises(TypeError, match="max_dorp_pp"):
        ve.gate([bundle], max_dorp_pp=1)


# -- the root -----------------------------------------------------------------------------------


def test_every_public_name_is_there_and_explained():
    for name in ve.__all__:
        assert name in dir(ve)
        value = getattr(ve, name)
        assert name == "__version__" or value.__doc__
    for name in ("export", "qat", "validate", "bench", "gate", "load"):
        function = inspect.unwrap(getattr(ve, name))
        documented = inspect.getdoc(function) or ""
        for parameter in inspect.signature(function).parameters:
            assert f"    {parameter}: " in documented or name == "qat"
    with pytest.raises(AttributeError, match="no attribute 'exprot'"):
        ve.exprot  # noqa: B018
