"""Artifacts in a real Chromium: what they compute, how long it takes, and how that goes wrong."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.support.web import needs_browser
from vitedge.core import catalog
from vitedge.core.bundle import open_bundle
from vitedge.core.errors import InputError, UnavailableError
from vitedge.core.machine import ROOT
from vitedge.core.runtime import SelfTimed, VerifiedFiles, runtimes
from vitedge.measure.accuracy.validation import predict_all
from vitedge.measure.latency.processes import descendants
from vitedge.runtimes import open_session, simulate
from vitedge.runtimes.onnxruntime_web import session as page_session

pytestmark = [pytest.mark.heavy, needs_browser]
WEB = catalog.targets()["web"]
RUNTIME = runtimes()["onnxruntime-web"]


@pytest.fixture(scope="module")
def web(once, vitedge):
    """`digits` for the browser, by precision; exported without one, which takes less time."""

    def make(folder):
        export = ("export", "--target", "web", "--int8", "--duration", 0)
        vitedge(*export, "--output", folder, VITEDGE_ORT_WEB="/nowhere")

    folder = once("web", make)
    return {precision: folder / f"digits-web-{precision}" for precision in ("fp32", "int8")}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_it_computes_what_the_cpu_does(web, precision, held_out, sqnr_db):
    bundle = open_bundle(web[precision])
    golden, logits = {}, {}
    for where, opened in (
        ("browser", open_session(bundle, 2)),
        ("cpu", simulate(bundle, bundle.path / "model.onnx")),
    ):
        with opened as session:
            logits[where] = predict_all(session, held_out.images)
            golden[where] = predict_all(session, bundle.golden().images)
    top1 = {where: values.argmax(axis=1) for where, values in logits.items()}
    assert len(held_out.images) == 719
    np.testing.assert_array_equal(top1["browser"], top1["cpu"])
    want = bundle.golden().outputs
    db = {where: sqnr_db(want, values) for where, values in golden.items()}
    print(precision, db, (top1["browser"] == held_out.labels).mean())
    assert db["browser"] > 30
    assert precision == "fp32" or abs(db["browser"] - db["cpu"]) <= 1
    assert precision == "int8" or db["browser"] > 100


def test_validate_and_bench_say_what_and_where(web, vitedge):
    validated = vitedge("validate", web["int8"], "--json").document
    assert validated["accuracy"]["n"] == 719 and validated["accuracy"]["agreement"] > 0.99
    report = vitedge("bench", web["int8"], "--duration", 1, "--json").document
    assert report["host"]["accelerator"].startswith("ONNX Runtime Web 1.")
    latency = report["latency"]
    assert latency["against"] == "fp32" and latency["p50_ms"] > 0
    low, high = latency["speedup_ci"]
    assert low < latency["speedup"] < high
    assert report["parity"]["broken"] == ""
    assert report["memory"]["peak_rss_bytes"] > 150 * 2**20, "a browser's processes count"
    assert report["cold_start"]["process_to_ready_ms"] > report["cold_start"]["load_ms"] > 0


def test_runs_are_timed_in_the_page(web):
    bundle = open_bundle(web["fp32"])
    with open_session(bundle, 1) as session:
        assert isinstance(session, SelfTimed)
        feed = {"image": bundle.golden().images[:1]}
        start = time.perf_counter()
        times_ms = session.time(feed, 20)
        assert times_ms.shape == (20,) and (times_ms > 0).all()
        assert times_ms.sum() < 1e3 * (time.perf_counter() - start)


def test_what_a_page_cannot_do_in_one_time_limit_is_one_message(tmp_path):
    target = msgspec.structs.replace(WEB, threads=1, options={"timeout_s": "20"})
    endless(tmp_path / "model.onnx")
    with RUNTIME.open(VerifiedFiles(tmp_path, ("model.onnx",)), target) as session:
        start = time.monotonic()
        with pytest.raises(UnavailableError, match="has not answered for 20 s") as caught:
            session.run({"x": np.ones((1,), np.float32)})
        assert "timeout_s" in caught.value.fix and time.monotonic() - start < 120
    assert browsers() == [], "and nothing of it is left"


def endless(path):
    """A graph whose loop does not end in our time."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Sin", ["state"], ["next"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, ()),
            value("go", TensorProto.BOOL, ()),
            value("state", TensorProto.FLOAT, (1,)),
        ],
        [value("on", TensorProto.BOOL, ()), value("next", TensorProto.FLOAT, (1,))],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["most", "", "x"], ["y"], body=body)],
        "endless",
        [value("x", TensorProto.FLOAT, (1,))],
        [value("y", TensorProto.FLOAT, (1,))],
        [helper.make_tensor("most", TensorProto.INT64, (), [2**62])],
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


def browsers():
    """Processes of Chromium that this one started."""
    command = {int(f.name): (f / "cmdline").read_bytes() for f in descendants(ROOT)}
    return [pid for pid, line in command.items() if b"--user-data-dir" in line]


def test_a_browser_that_dies_midway_is_one_message(web):
    bundle = open_bundle(web["int8"])
    with open_session(bundle, 1) as session:
        feed = {"image": bundle.golden().images[:1]}
        session.run(feed)
        (pid, *_) = browsers()
        killer = threading.Timer(1.0, os.kill, (pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(UnavailableError, match="died while it ran the model"):
            session.time(feed, 10**6)
        killer.join()


def test_a_page_that_is_not_isolated_has_a_single_thread_and_says_so(web, monkeypatch, caplog):
    bundle = open_bundle(web["fp32"])
    monkeypatch.setattr(page_session, "HEADERS", {})
    page_session._warn_once.cache_clear()
    with open_session(bundle, 2) as session:
        images = bundle.golden().images
        got = predict_all(session, images)
    assert "single thread" in caplog.text
    np.testing.assert_allclose(got, bundle.golden().outputs, atol=1e-3)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"VITEDGE_BROWSER": "/nowhere/chromium"}, "no program that can be run"),
        ({"VITEDGE_BROWSER": "/bin/false"}, "does not start"),
        ({"VITEDGE_ORT_WEB": "/nowhere"}, "no onnxruntime-web is here"),
    ],
)
def test_what_is_not_there_is_one_message(web, vitedge, changed, says):
    ran = vitedge("validate", web["fp32"], code=3, **changed)
    assert says in ran.stderr


def test_a_package_without_its_scripts_is_one_message(web, vitedge, tmp_path):
    (tmp_path / "dist").mkdir()
    stated = '{"name": "onnxruntime-web", "version": "1.30.0"}'
    (tmp_path / "package.json").write_text(stated)
    ran = vitedge("validate", web["fp32"], code=3, VITEDGE_ORT_WEB=str(tmp_path))
    assert "ort.wasm.min.mjs" in ran.stderr


def test_options_that_mean_nothing_are_refused(web):
    files = VerifiedFiles(Path(web["fp32"]), ("model.onnx",))
    for options in ({"provider": "quantum"}, {"timeout_s": "soon"}):
        target = msgspec.structs.replace(WEB, options=options)
        with pytest.raises(InputError, match="sets"), RUNTIME.open(files, target):
            pass


def test_webgpu_is_used_where_the_browser_has_it_and_said_to_be_missing_where_not(web):
    bundle = open_bundle(web["fp32"])
    target = msgspec.structs.replace(WEB, threads=1, options={"provider": "webgpu"})
    try:
        with RUNTIME.open(VerifiedFiles(bundle.path, ("model.onnx",)), target) as session:
            got = predict_all(session, bundle.golden().images)
    except UnavailableError as error:
        assert "has no WebGPU here" in error.what
    else:
        np.testing.assert_allclose(got, bundle.golden().outputs, atol=1e-2)
