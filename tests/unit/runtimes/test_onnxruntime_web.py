"""What is told of the browser runtime without one: where it looks, what it serves, its lint."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.unit.runtimes.test_lint import integers, sound
from vitedge.core import catalog
from vitedge.core.errors import UnavailableError
from vitedge.core.runtime import runtimes
from vitedge.runtimes.lint import lint
from vitedge.runtimes.onnxruntime_web import install
from vitedge.runtimes.onnxruntime_web.server import HEADERS, serve

WEB = catalog.targets()["web"]


def npm(folder, **changed):
    """What npm leaves behind of onnxruntime-web, its scripts aside."""
    (folder / "dist").mkdir(parents=True)
    stated = {"name": install.PACKAGE, "version": "1.30.0", **changed}
    (folder / "package.json").write_text(json.dumps(stated))
    return folder


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """A place with nothing installed around it."""
    for name in (install.ORT_WEB, install.BROWSER):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "ms-playwright"))
    monkeypatch.chdir(tmp_path)


def program(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\necho Chromium 9.8.7.6 built on something 1.0\n")
    path.chmod(0o755)
    return path


def test_onnxruntime_web_is_npms_of_this_folder_or_one_above(tmp_path, monkeypatch):
    npm(tmp_path / "node_modules" / install.PACKAGE)
    below = tmp_path / "app" / "src"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    found = install.ort_web()
    assert (found.version, found.dist.name) == ("1.30.0", "dist")
    npm(tmp_path / "app" / "node_modules" / install.PACKAGE, version="1.29.1")
    assert install.ort_web().version == "1.29.1", "the nearest"


@pytest.mark.parametrize("stated", ["own", "own/dist"])
def test_onnxruntime_web_is_what_the_environment_names_and_no_other(tmp_path, monkeypatch, stated):
    npm(tmp_path / "node_modules" / install.PACKAGE)
    monkeypatch.setenv(install.ORT_WEB, str(tmp_path / stated))
    with pytest.raises(UnavailableError) as caught:
        install.ort_web()
    assert "own" in caught.value.what and install.ORT_WEB in caught.value.fix
    npm(tmp_path / "own", version="1.31.0")
    assert install.ort_web().version == "1.31.0"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"name": "left-pad"}, "holds 'left-pad'"),
        ({"version": "1.20.1"}, "1.20.1"),
        ({"version": 3}, "not onnxruntime-web"),
    ],
)
def test_another_package_and_an_old_version_are_one_message(tmp_path, changed, says):
    npm(tmp_path / "node_modules" / install.PACKAGE, **changed)
    with pytest.raises(UnavailableError) as caught:
        install.ort_web()
    assert says in caught.value.what and caught.value.fix


def test_a_package_that_is_damaged_is_one_message(tmp_path):
    folder = npm(tmp_path / "node_modules" / install.PACKAGE)
    (folder / "dist").rmdir()
    with pytest.raises(UnavailableError, match="no dist/"):
        install.ort_web()
    (folder / "package.json").write_text("{")
    with pytest.raises(UnavailableError, match="cannot be read"):
        install.ort_web()


def test_the_browser_is_the_environments_then_playwrights_then_that_on_the_path(
    tmp_path, monkeypatch
):
    if not Path("/Applications").exists() and os.name == "posix":
        with pytest.raises(UnavailableError, match="no Chromium is here"):
            install.browser()
    on_path = program(tmp_path / "bin" / "google-chrome")
    assert install.browser() == on_path
    own = program(tmp_path / "ms-playwright" / "chromium-1200" / "chrome-linux" / "chrome")
    assert install.browser() == own
    other = program(tmp_path / "other")
    monkeypatch.setenv(install.BROWSER, str(other))
    assert install.browser() == other
    assert install.browser_version(other) == "Chromium 9.8.7.6"
    other.chmod(0o644)
    with pytest.raises(UnavailableError, match="no program that can be run"):
        install.browser()


def test_doctor_says_what_is_missing_and_where_it_looked(vitedge, tmp_path):
    checks = {check["name"]: check for check in vitedge("doctor", "--json").document["checks"]}
    assert checks["onnxruntime-web"]["status"] == checks["target web"]["status"] == "no"
    assert "pip install 'vitedge[browser]'" in checks["onnxruntime-web"]["detail"] or (
        str(tmp_path) in checks["onnxruntime-web"]["detail"]
    )
    ran = vitedge("export", "--target", "onnxruntime-web", "--output", tmp_path / "out", code=3)
    assert "no target of the runtime 'onnxruntime-web' fits" in ran.stderr


def test_an_artifact_is_exported_without_a_browser_and_says_what_running_it_takes(
    vitedge, tmp_path
):
    ran = vitedge("export", "--target", "web", "--output", tmp_path, "--json")
    assert "digits-web-fp32" in ran.stdout
    ran = vitedge("validate", tmp_path / "digits-web-fp32", code=3)
    assert "playwright" in ran.stderr or "onnxruntime-web" in ran.stderr


@pytest.fixture
def served(tmp_path):
    (tmp_path / "page.html").write_text("<!doctype html>")
    (tmp_path / "code.mjs").write_text("export {}")
    (tmp_path / "secret.txt").write_text("secret")
    files = {"": tmp_path / "page.html", "ort/code.mjs": tmp_path / "code.mjs"}
    with serve(files, HEADERS) as url:
        yield url


def test_a_page_is_served_isolated_on_loopback_under_a_token(served):
    assert served.startswith("http://127.0.0.1:") and len(served.split("/")[3]) >= 32
    for path, kind in (("", "text/html; charset=utf-8"), ("ort/code.mjs", "text/javascript")):
        with urllib.request.urlopen(served + path) as answer:
            assert answer.headers["Content-Type"] == kind
            assert HEADERS.items() <= dict(answer.headers).items()


@pytest.mark.parametrize(
    "path",
    [
        "secret.txt",
        "../secret.txt",
        "%2e%2e/secret.txt",
        "ort/../secret.txt",
        "ort",
        "//etc/passwd",
    ],
)
def test_nothing_else_is_served(served, path):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(served + path)


def test_nothing_is_served_without_the_token(served):
    port = served.split("/")[2]
    for url in (f"http://{port}/", f"http://{port}/{'x' * 32}/"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url)


def rules(graph, **options):
    target = msgspec.structs.replace(WEB, options=options)
    return {finding.rule for finding in lint(graph, target)}


def test_a_sound_int8_graph_is_sound_in_wasm_and_lost_on_webgpu():
    assert rules(sound()) == set()
    assert "int8-on-webgpu" in rules(sound(), provider="webgpu")


def test_half_floats_are_slower_in_wasm_alone():
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(integers(8, 8).astype(np.float16), "w")
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, (1, 4, 8)) for n in "xy"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "m")], "g", values[:1], values[1:], [weight]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    assert rules(model) == {"fp16-on-wasm"}
    assert rules(model, provider="webgpu") == set()


def test_it_is_a_runtime_of_a_browser():
    assert runtimes()["onnxruntime-web"].processor == "browser"
