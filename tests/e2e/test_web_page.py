"""The page of `vitedge package --as web` in a real Chromium."""

from __future__ import annotations

import base64
import io
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from tests.support.web import needs_browser
from vitedge.core.bundle import open_bundle
from vitedge.data.geometry import fit
from vitedge.measure.accuracy.validation import run_all
from vitedge.runtimes import simulate
from vitedge.runtimes.onnxruntime_web import install
from vitedge.runtimes.onnxruntime_web.chromium import open_page
from vitedge.runtimes.onnxruntime_web.server import HEADERS, serve

pytestmark = [pytest.mark.heavy, needs_browser]
ISOLATING = {name: HEADERS[name] for name in list(HEADERS)[:3]}
READY = """async () => {
  for (let i = 0; i < 600 && /loading/.test(document.getElementById("how").textContent); i++)
    await new Promise(done => setTimeout(done, 100));
  return document.getElementById("how").textContent;
}"""
RUN = """async ([pixels, name]) =>
  Array.from((await vitedge.run(Uint8Array.from(atob(pixels), c => c.charCodeAt(0))))[name].data)"""
BLOB = "Uint8Array.from(atob(text), c => c.charCodeAt(0))"
SEEN = f"""async ([text, type]) => {{
  const image = await vitedge.decode(new Blob([{BLOB}], {{ type }}));
  return [Array.from(image.data), Array.from(vitedge.fit(image).data)];
}}"""
DROP = f"""async ([text, type]) => {{
  const transfer = new DataTransfer();
  transfer.items.add(new File([{BLOB}], "image", {{ type }}));
  const drop = new DragEvent("drop", {{ dataTransfer: transfer, cancelable: true }});
  for (const id of ["time", "how"]) document.getElementById(id).textContent = "";
  document.getElementById("drop").dispatchEvent(drop);
  const of = id => document.getElementById(id).textContent;
  for (let i = 0; i < 600 && !of("time") && !/not work/.test(of("how")); i++)
    await new Promise(done => setTimeout(done, 100));
  const names = [...document.querySelectorAll("li span:first-child")].map(e => e.textContent);
  return [names, of("time"), of("how")];
}}"""

CAMERA = """async () => {
  const of = id => document.getElementById(id);
  const later = ms => new Promise(done => setTimeout(done, ms));
  const frame = async before => {
    for (let i = 0; i < 600 && of("time").textContent === before; i++) await later(100);
    return of("time").textContent;
  };
  of("camera").click();
  const first = await frame(""), second = await frame(first), label = of("camera").textContent;
  of("camera").click();
  await later(500);
  return [first, second, label, of("camera").textContent, of("how").textContent];
}"""
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@contextmanager
def opened(folder, headers, *arguments):
    """The page, from a server that sends `headers`, in a browser started with `arguments`."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    files[""] = folder / "index.html"
    with (
        serve(files, headers) as url,
        open_page(install.browser(), url, ("--disable-gpu", *arguments)) as page,
    ):
        yield page, page.call(READY, None, 120)


def text_of(content):
    return base64.b64encode(content).decode()


def image_file(pixels, kind, **how):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **how)
    return stream.getvalue()


@pytest.fixture(scope="module")
def pages(once, vitedge):
    """Bundles for the browser, and a page of each, by model."""

    def make(folder):
        for model in ("digits", "shapes"):
            export = ("export", model, "--target", "web", "--int8", "--duration", 0)
            vitedge(*export, "--output", folder, VITEDGE_ORT_WEB="/nowhere")
            bundle = folder / f"{model}-web-int8"
            vitedge("package", bundle, "--as", "web", "--output", folder / model)

    folder = once("web-pages", make)
    return {model: (folder / f"{model}-web-int8", folder / model) for model in ("digits", "shapes")}


@pytest.mark.parametrize("model", ["digits", "shapes"])
def test_it_gives_the_golden_outputs(pages, model, sqnr_db):
    path, folder = pages[model]
    bundle = open_bundle(path)
    golden = bundle.golden()
    with simulate(bundle, path / "model.onnx") as session:
        cpu = run_all(session, golden.images)[0]
    name = bundle.manifest.outputs[0].name
    with opened(folder, ISOLATING) as (page, how):
        assert "threads" in how and "single" not in how
        outputs = [page.call(RUN, [text_of(image.tobytes()), name], 120) for image in golden.images]
    got = np.array(outputs, np.float32).reshape(cpu.shape)
    assert abs(sqnr_db(golden.outputs, got) - sqnr_db(golden.outputs, cpu)) <= 1


def test_a_dropped_image_gets_its_classes_and_a_time(pages, held_out):
    _, folder = pages["digits"]
    content = image_file(held_out.images[0], "PNG")
    with opened(folder, {}) as (page, how):
        assert "single thread" in how, "plain servers send no such headers"
        names, took, _ = page.call(DROP, [text_of(content), "image/png"], 120)
        assert names[0] == str(held_out.labels[0]) and len(names) == 5
        assert "resize" in took and "model" in took and took.count(" ms") == 2
        said = page.call(DROP, [text_of(b"no image"), "image/png"], 120)[2]
        assert said.startswith("this does not work")
        names, _, said = page.call(DROP, [text_of(content), "image/png"], 120)
        assert names[0] == str(held_out.labels[0]) and "single thread" in said


def test_a_dropped_photograph_gets_a_mask(pages):
    path, folder = pages["shapes"]
    bundle = open_bundle(path)
    content = image_file(bundle.golden().images[0], "PNG")
    with opened(folder, {}) as (page, _):
        names, took, _ = page.call(DROP, [text_of(content), "image/png"], 120)
    assert names and set(names) <= set(bundle.labels()) and took


def test_what_the_model_sees_is_what_it_sees_elsewhere(pages):
    path, folder = pages["digits"]
    spec = open_bundle(path).manifest.preprocessing.host
    rows = np.indices((150, 221)).sum(0)
    noise = np.random.default_rng(0).integers(0, 256, rows.shape)
    pixels = np.stack([rows % 256, rows * 3 % 256, noise], -1).astype(np.uint8)
    with opened(folder, {}) as (page, _):
        for kind, limit in (("PNG", 0), ("JPEG", 1)):
            content = image_file(pixels, kind)
            image = Image.open(io.BytesIO(content)).convert("RGB")
            decoded, seen = page.call(SEEN, [text_of(content), f"image/{kind.lower()}"], 120)
            want = fit(image, spec)
            decoded = np.reshape(decoded, (150, 221, 3)) - np.asarray(image).astype(int)
            difference = np.reshape(seen, want.shape).astype(int) - want
            print(kind, "decoded", np.abs(decoded).max(), "resized", np.abs(difference).max())
            assert np.abs(difference).max() <= limit, kind


def test_the_webcam_is_taken_frame_by_frame_until_it_is_stopped(pages):
    with opened(pages["digits"][1], {}, *FAKE_CAMERA) as (page, _):
        first, second, running, stopped, how = page.call(CAMERA, None, 300)
    assert first and second and first != second, how
    assert (running, stopped) == ("Stop", "Webcam")
