"""A web page from an artifact: what is in it, what is refused, and its resize against ours."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from tests.support.hostile import content
from vitedge.core import catalog
from vitedge.core.bundle import open_bundle
from vitedge.core.errors import InputError, UnavailableError
from vitedge.core.manifest import Model, Preprocessing, Tensor
from vitedge.core.spec import Detection, Preprocess
from vitedge.data.geometry import fit
from vitedge.runtimes.onnxruntime_web import install
from vitedge.ship import package
from vitedge.ship.packages import web

TEMPLATES = Path(web.__file__).parent / "templates" / "web"
NODE = shutil.which("node")
FIT = """
import { fit } from "RESIZE";
import { readFileSync } from "fs";
const cases = JSON.parse(readFileSync(0));
console.log(JSON.stringify(cases.map(({ spec, width, height, data }) =>
  [...fit({ width, height, data: new Uint8ClampedArray(data) }, spec).data])));
"""


def rule(**changed):
    return Preprocess(height=24, width=32, **changed)


RULES = (
    *(
        rule(resize="exact", interpolation=name)
        for name in ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
    ),
    *(
        rule(resize="shorter_side", resize_px=px, resize_rounding=rounding, crop_rounding=crop)
        for px in (0, 36)
        for rounding in ("down", "nearest")
        for crop in ("even", "down")
    ),
    *(
        rule(resize="exact", interpolation=name, sampling=sampling)
        for name in ("bilinear", "bicubic")
        for sampling in ("points", "corners")
    ),
    *(
        rule(resize="inside", pad=pad, resize_rounding=rounding, pad_color=(9, 8, 7))
        for pad in ("end", "center")
        for rounding in ("down", "nearest", "up")
    ),
    rule(resize="exact", pad="square"),
    rule(crop_share=0.8),
    rule(resize="shorter_side", resize_px=30, resize_limit_px=40, pad="end"),
)
SIZES = ((70, 51), (20, 37), (33, 24), (32, 24), (100, 100), (7, 90))


@pytest.mark.skipif(NODE is None, reason="no node here")
def test_its_resize_is_ours_within_one_grey_level():
    rng = np.random.default_rng(0)
    cases, expected = [], []
    for spec in RULES:
        for width, height in SIZES:
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            expected.append(fit(Image.fromarray(pixels), spec))
            described = {"spec": msgspec.to_builtins(spec), "width": width, "height": height}
            cases.append({**described, "data": pixels.ravel().tolist()})
    done = subprocess.run(
        [
            *(NODE, "--input-type=module", "-e"),
            FIT.replace("RESIZE", (TEMPLATES / "resize.mjs").as_uri()),
        ],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
    )
    differences = [
        np.abs(np.reshape(got, want.shape).astype(int) - want).max()
        for got, want in zip(json.loads(done.stdout), expected, strict=True)
    ]
    assert len(differences) >= 150 and max(differences) <= 1
    assert np.count_nonzero(differences) <= 4, "Pillow's filters are equal; torch's have float32"


def test_the_page_is_short():
    lines = {path.name: len(path.read_text().splitlines()) for path in TEMPLATES.iterdir()}
    assert set(lines) == set(web.PAGE) and sum(lines.values()) < 300


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A folder laid out as npm's, whose scripts name each other as onnxruntime-web's do."""
    dist = tmp_path / "npm" / "dist"
    dist.mkdir(parents=True)
    stated = {"name": install.PACKAGE, "version": "1.30.0"}
    (dist.parent / "package.json").write_text(json.dumps(stated))
    (dist / "ort.wasm.min.mjs").write_text('import("ort-wasm-simd-threaded.mjs")')
    (dist / "ort-wasm-simd-threaded.mjs").write_text('fetch("ort-wasm-simd-threaded.wasm")')
    (dist / "ort-wasm-simd-threaded.wasm").write_bytes(b"\0asm")
    (dist / "ort.webgpu.min.mjs").write_text("")
    monkeypatch.setenv(install.ORT_WEB, str(dist.parent))


@pytest.fixture
def image_bundle(tmp_path, small_bundle):
    """A small bundle for the browser, which takes images."""

    def make(**changes):
        plain = {
            "target": catalog.targets()["web"],
            "inputs": (Tensor(name="image", shape=(1, 8, 8, 3), dtype="uint8", layout="NHWC"),),
            "outputs": (Tensor(name="logits", shape=(1, 3), dtype="float32", layout="NC"),),
        }
        graph = content.linear().SerializeToString()
        return open_bundle(small_bundle(tmp_path / "bundle", graph, **plain | changes))

    return make


@pytest.mark.usefixtures("npm")
def test_a_page_has_the_model_its_labels_and_what_it_loads(image_bundle, tmp_path):
    bundle = image_bundle()
    written = package.write(bundle, "web", tmp_path / "page")
    assert set(written.sizes) == {
        *web.PAGE,
        *("config.json", "labels.txt", "model.onnx", "ort/ort.wasm.min.mjs"),
        *("ort/ort-wasm-simd-threaded.mjs", "ort/ort-wasm-simd-threaded.wasm"),
    }
    config = json.loads((tmp_path / "page" / "config.json").read_text())
    assert config["input"] == {"name": "image", "shape": [1, 8, 8, 3]}
    assert config["preprocess"]["width"] == 8 and config["output"] == "logits"
    assert str(tmp_path) not in (tmp_path / "page" / "config.json").read_text()


@pytest.mark.usefixtures("npm")
def test_a_bundle_of_another_runtime_is_refused(image_bundle, tmp_path):
    bundle = image_bundle(target=catalog.targets()["openvino-cpu"])
    with pytest.raises(InputError, match="does not take") as caught:
        package.write(bundle, "web", tmp_path / "page")
    assert "onnxruntime-web" in caught.value.fix and not (tmp_path / "page").exists()


@pytest.mark.usefixtures("npm")
@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"model": {"task": "detection", "detection": Detection(scores="sigmoid")}}, "detection"),
        ({"host": {"resize": "box"}}, "resize 'box'"),
        ({"host": {"pad": "mirror"}}, "pad 'mirror'"),
        ({"host": {"sampling": "blur", "interpolation": "bilinear"}}, "sampling 'blur'"),
        ({"inputs": ()}, "takes no uint8 images"),
    ],
)
def test_what_a_page_cannot_do_is_refused(image_bundle, tmp_path, changed, says):
    model = {"name": "small", "source": "test", "task": "classification", "num_classes": 3}
    changes = {"model": Model(**model | {"weights_sha256": ""} | changed.get("model", {}))}
    host = Preprocess(height=8, width=8, **changed.get("host", {}))
    changes["preprocessing"] = Preprocessing(host=host, graph=())
    if "inputs" in changed:
        changes["inputs"] = changed["inputs"]
    with pytest.raises(InputError, match=says):
        package.write(image_bundle(**changes), "web", tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_without_onnxruntime_web_it_says_how_to_get_it(image_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv(install.ORT_WEB, str(tmp_path / "nowhere"))
    with pytest.raises(UnavailableError, match="no onnxruntime-web is here") as caught:
        package.write(image_bundle(), "web", tmp_path / "page")
    assert "npm install" in caught.value.fix and not (tmp_path / "page").exists()
