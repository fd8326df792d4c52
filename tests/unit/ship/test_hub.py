"""Artifacts to the Hub and back, against a stand-in of its endpoints; cards, figure by figure."""

import json
import os
import shutil
import subprocess
import sys

import msgspec
import pytest

import vitedge as ve
from tests.support.hub import served
from vitedge.core import report as reports
from vitedge.core.bundle import open_bundle
from vitedge.ship import card, local_paths

pytest.importorskip("huggingface_hub")


PULLS = """
import sys
import vitedge
for name in sys.argv[2:]:
    try:
        vitedge.pull(name, output=sys.argv[1])
    except vitedge.InputError as error:
        print(error.what)
"""


@pytest.fixture
def hub():
    with served() as server:
        yield server


@pytest.fixture
def bundle(bundles, tmp_path):
    return shutil.copytree(bundles["onnxruntime", "int8"], tmp_path / "mine" / "digits")


def environment(hub, tmp_path):
    return {**hub.environment, "HF_HUB_CACHE": str(tmp_path / "hub")}


def test_what_is_pushed_is_pulled_and_nothing_else(bundle, hub, vitedge_process, tmp_path):
    env = environment(hub, tmp_path)
    push = ("push", bundle, "me/digits", "--license", "apache-2.0", "--json")
    pushed = vitedge_process(*push, **env).document
    manifest = open_bundle(bundle).manifest
    listed = {"manifest.json", *manifest.files}
    assert {*pushed["files"]} == {"README.md", *listed, "report.json", "evidence.npz"}
    (oid, content) = hub.commits["me/digits"][-1]
    assert pushed["commit"] == oid and b"vitedge pull me/digits" in content["README.md"]
    assert content["model.onnx"] == (bundle / "model.onnx").read_bytes()

    hub.commit("me/digits", {"evil.py": b"import os", "model.onnx.data": b"x"})
    hub.requested.clear()
    pull = ("pull", f"me/digits@{oid}", "--output", tmp_path / "theirs", "--json")
    path = vitedge_process(*pull, **env).document["path"]
    assert {file.name for file in open_bundle(type(bundle)(path)).path.iterdir()} == {
        *listed,
        "report.json",
        "evidence.npz",
    }
    vitedge_process("pull", "me/digits", "--output", tmp_path / "theirs", code=2, **env)
    vitedge_process("pull", "me/digits", "--output", tmp_path / "theirs", "--force", **env)
    assert not [asked for asked in hub.requested if "evil" in asked or "onnx.data" in asked]


def test_what_is_not_what_it_says_leaves_nothing(bundle, hub, vitedge_process, tmp_path):
    env = environment(hub, tmp_path)
    content = {path.name: path.read_bytes() for path in bundle.iterdir()}
    hub.commit("me/flipped", {**content, "model.onnx": content["model.onnx"][:-1] + b"?"})
    hub.commit("me/longer", {**content, "model.onnx": content["model.onnx"] + b"?"})
    manifest = json.loads(content["manifest.json"])
    up = json.dumps({**manifest, "name": "../up"}).encode()
    hub.commit("me/up", {**content, "manifest.json": up})
    hub.commit("me/none", {"README.md": b""})
    expected = {
        "me/flipped": "model.onnx",
        "me/longer": "which its manifest lists",
        "me/up": "no name of a folder",
        "me/none": "holds no artifact",
        "me/absent": "the Hub refuses",
        "nonsense": "names no repository",
    }
    words = [sys.executable, "-c", PULLS, tmp_path / "out", *expected]
    ran = subprocess.run(
        words, env={**os.environ, **env}, check=True, capture_output=True, text=True
    )
    for (name, says), line in zip(expected.items(), ran.stdout.splitlines(), strict=True):
        assert says in line, name
    assert not list((tmp_path / "out").glob("*"))
    away = {**env, "HF_ENDPOINT": "http://127.0.0.1:9"}
    said = vitedge_process("pull", "me/none", code=3, cwd=tmp_path, **away).stderr
    assert "cannot be reached" in said


def test_paths_of_this_machine_stay_on_it(bundle, hub, vitedge_process, tmp_path):
    report = reports.read(bundle / "report.json")
    accuracy = msgspec.structs.replace(report.accuracy, data=str(tmp_path))
    reports.write(msgspec.structs.replace(report, accuracy=accuracy), bundle / "report.json")
    env = environment(hub, tmp_path)
    said = vitedge_process("push", bundle, "me/digits", code=2, **env).stderr
    assert "report.json names a place on this machine" in said and str(tmp_path) in said
    assert not hub.requested


@pytest.mark.parametrize(
    ("name", "content", "refused"),
    [
        ("a.json", b'{"data": "/home/ann/val"}', True),
        ("a.json", b'{"data": "C:\\\\Users\\\\ann\\\\val"}', True),
        ("a.json", b'{"data": "~/val"}', True),
        ("a.json", b'{"data": "C:/Users/ann/val"}', True),
        ("a.json", b'{"data": "D:\\\\val"}', True),
        ("report-orin.json", b'{"device": "ssh://ann@10.0.0.7:2222"}', True),
        ("model.onnx", b"\x0a\x05file:///home/ann/x.py\x12", True),
        ("a.json", json.dumps({"data": os.path.abspath(__file__)}).encode(), True),
        ("model.onnx", b"\x0a\x05torch/home/ann/x.py /home/ann/model.py\x12", True),
        ("a.json", b'{"node": "/blocks.0/attn/MatMul", "url": "https://a.b/home/c"}', False),
        ("model.onnx", b"/encoder/layer.0/tmp_add/Add_1\x00var/x", False),
    ],
)
def test_a_local_path_is_told_from_the_name_of_a_node(name, content, refused, tmp_path):
    (tmp_path / name).write_bytes(content)
    if not refused:
        local_paths.refuse([tmp_path / name])
        return
    with pytest.raises(ve.InputError, match=name):
        local_paths.refuse([tmp_path / name])


def test_every_figure_of_a_card_is_the_report_s(bundles, vitedge):
    from huggingface_hub import ModelCard

    bundle = bundles["onnxruntime", "int8"]
    text = vitedge("card", bundle, "--license", "mit").stdout
    data = ModelCard(text).data
    report = reports.read(bundle / "report.json")
    assert (data.license, data.pipeline_tag) == ("mit", "image-classification")
    values = {result.metric_name: result.metric_value for result in data.eval_results}
    expected = {"top-1": report.accuracy.artifact}
    expected |= {name: also.artifact for name, also in report.accuracy.also.items()}
    assert values == expected
    drop, (low, high) = report.accuracy.drop_pp, report.accuracy.drop_ci_pp
    lines = [line for line in text.splitlines() if line.startswith("| INT8")]
    mib = report.size.bytes / 2**20
    lost = f"{drop:.2f} ({low:.2f} to {high:.2f})"
    assert lines == [f"| INT8 | {lost} | {report.numerics.sqnr_db:.1f} | – | – | {mib:.2f} |"]
    record = open_bundle(bundle).manifest.quantization.calibration
    assert record.digest in text and card.NEVER not in text


def test_a_licence_stays_on_its_line(small_bundle, tmp_path):
    text = card.card(open_bundle(small_bundle(tmp_path / "b")), "mit\n\n<script>")
    assert "- Licence: mit _script_.\n" in text and "<script>" not in text.split("---\n")[2]


def test_precisions_that_were_timed_together_are_one_table(bundles):
    bundle = open_bundle(bundles["onnxruntime", "int8"])
    candidates = tuple(
        reports.Candidate(
            precision=name,
            p50_ms=1 + i,
            speedup=2.0,
            speedup_ci=(1.5, 2.5),
            bytes=i * 2**20,
            drop_pp=0.5,
            drop_ci_pp=(-1, 1),
            sqnr_db=30 + i,
        )
        for i, name in enumerate(("fp32", "bf16", "fp16", "int8"))
    )
    recommendation = reports.Recommendation(
        precision="int8", reason="", candidates=candidates, confidence=0.95, max_drop_pp=1
    )
    report = reports.Report(**reports.identity(bundle), recommendation=recommendation)
    rows = list(card.rows(report))
    assert [row[0] for row in rows] == ["FP32", "BF16", "FP16", "INT8"]
    assert rows[1] == ("BF16", "0.50 (-1.00 to 1.00)", "31.0", "2", "2.00 (1.50 to 2.50)", "1.00")


def test_a_card_of_what_was_never_validated_says_so(bundle):
    (bundle / "report.json").unlink()
    text = ve.card(bundle)
    assert card.NEVER in text and "model-index" not in text and "Licence: not stated" in text


def test_an_onnx_file_of_the_hub_is_a_model(onnx_model, hub, vitedge_process, tmp_path):
    env = environment(hub, tmp_path)
    settings = {"do_resize": True, "size": {"height": 32, "width": 32}, "do_rescale": True}
    graph = onnx_model.read_bytes()
    hub.commit(
        "me/digits",
        {
            "onnx/model.onnx": graph,
            "onnx/broken.onnx": graph[: len(graph) // 2],
            "preprocessor_config.json": json.dumps(settings).encode(),
            "other.bin": b"x",
        },
    )
    export = ("export", "--target", "onnxruntime-cpu", "--output", tmp_path, "--duration", 0)
    vitedge_process(*export, "hf:me/digits/onnx/model.onnx", **env)
    (made,) = tmp_path.glob("model-*")
    assert open_bundle(made).manifest.model.source == "hf:me/digits/onnx/model.onnx"
    assert "base_model: me/digits" in ve.card(made)
    assert not [asked for asked in hub.requested if "other.bin" in asked]
    said = vitedge_process(*export, "hf:me/digits/onnx/broken.onnx", code=2, **env).stderr
    assert "is not an ONNX file" in said
    said = vitedge_process(*export, "hf:me/digits/onnx/modle.onnx", code=2, **env).stderr
    assert "did you mean 'onnx/model.onnx'" in said
