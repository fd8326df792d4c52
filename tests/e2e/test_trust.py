"""`--trust`: what is unsigned, by another or old is refused by each command that runs artifacts."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import vitedge as ve
from tests.support.keys import pair

COMMANDS = {
    "validate": ("validate", "{int8}", "--data", "{few}"),
    "predict": ("predict", "{int8}", "{image}"),
    "bench": ("bench", "{int8}", "--duration", "0.1"),
    "gate": ("gate", "{int8}", "--max-size-mb", "100"),
    "build": ("build", "{int8}"),
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return {name: pair(folder, name) for name in ("release", "stranger")}


@pytest.fixture
def shipped(bundles, tmp_path, keys, held_out):
    """FP32 and INT8 as a release signs them, an image, and a few more with labels."""
    for precision in ("fp32", "int8"):
        path = tmp_path / bundles["onnxruntime", precision].name
        shutil.copytree(bundles["onnxruntime", precision], path)
        ve.sign(path, key=keys["release"].private, report=True)
    np.savez(tmp_path / "few.npz", images=held_out.images[:20], labels=held_out.labels[:20])
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "image.png")
    return path


def words(command, int8):
    paths = {"int8": int8, "image": int8.parent / "image.png", "few": int8.parent / "few.npz"}
    return [word.format(**paths) for word in COMMANDS[command]]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_refuses_what_is_not_to_be_trusted(command, shipped, keys, vitedge):
    typed, accepted = words(command, shipped), shipped.parent / "accepted.json"
    trust = ("--trust", keys["release"].public, "--accepted", accepted)
    if command == "build":  # of which nothing is to be built: said of what is trusted
        assert "nothing to build" in vitedge(*typed, *trust, code=2).stderr
    else:
        vitedge(*typed, *trust)
    assert shipped.name in json.loads(accepted.read_text())["accepted"]

    said = vitedge(*typed, "--trust", keys["stranger"].public, code=2).stderr
    assert f"{shipped}/signature.json is by another key" in said
    record = accepted.read_text().replace('"signed_at": "20', '"signed_at": "29')
    accepted.write_text(record)
    said = vitedge(*typed, *trust, code=2).stderr
    assert f"{shipped}/signature.json is of 20" in said and "older than" in said
    assert accepted.read_text() == record
    (shipped / "labels.txt").write_bytes((shipped / "labels.txt").read_bytes() + b"\n")
    assert "'labels.txt'" in vitedge(*typed, *trust, code=2).stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_refuses_what_is_unsigned_before_a_byte_runs(
    command, shipped, keys, vitedge, small_bundle
):
    path = small_bundle(shipped.parent / "small-fp32", content=b"no model at all")
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    said = vitedge(*words(command, path), "--trust", keys["release"].public, code=2).stderr
    assert f"{path} is not signed: it has no signature.json" in said
    assert len(said.splitlines()) == 2  # what, and how to mend it
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


@pytest.mark.parametrize("command", ["validate", "bench"])
def test_the_fp32_beside_it_is_run_and_so_has_to_be_signed(command, shipped, keys, vitedge):
    fp32 = next(shipped.parent.glob("*-fp32"))
    (fp32 / "signature.json").unlink()
    trust = ("--trust", keys["release"].public)
    said = vitedge(*words(command, shipped), *trust, code=2).stderr
    assert f"{fp32} is not signed" in said
    said = vitedge("bench", shipped, "--against", fp32, "--duration", 0.1, *trust, code=2).stderr
    assert f"{fp32} is not signed" in said


def test_nothing_unsigned_is_sent_to_a_device(shipped, keys, vitedge):
    (shipped / "signature.json").unlink()
    device = ("--device", "ssh://127.0.0.1:1")
    said = vitedge("bench", shipped, *device, "--trust", keys["release"].public, code=2).stderr
    assert "is not signed" in said and "ssh" not in said


def test_what_was_measured_since_does_not_hinder_measuring(shipped, keys, vitedge):
    trust = ("--trust", keys["release"].public)
    for _ in range(2):
        vitedge(*words("validate", shipped), *trust)
    said = vitedge("verify", shipped, *trust, code=2).stderr
    assert "'evidence.npz' is not the file that was signed" in said


def test_sign_and_verify_as_typed(shipped, keys, vitedge):
    assert vitedge("sign", shipped, "--key", keys["stranger"].private).stdout.splitlines()[0] == (
        f"{shipped}: signed, 5 files and no report"
    )
    trust = ("--trust", keys["stranger"].public)
    said = vitedge("verify", shipped, *trust)
    assert "by stranger.pub (SHA-256 " in said.stdout
    document = vitedge("verify", shipped, *trust, "--json").document
    assert document["artifact"] == shipped.name and "manifest.json" in document["files"]
    assert "--key" in vitedge("sign", shipped, code=2).stderr
    assert "--trust" in vitedge("verify", shipped, code=2).stderr
    said = vitedge("validate", shipped, "--accepted", "a.json", code=2).stderr
    assert "--accepted a.json is of what is trusted" in said and "pass --trust KEYS" in said


def test_it_works_where_there_is_no_torch_and_says_what_is_missing(
    shipped, keys, vitedge_process, tmp_path
):
    (tmp_path / "lacking").mkdir()
    for name in ("torch", "model_signing", "sigstore"):
        (tmp_path / "lacking" / f"{name}.py").write_text("raise ImportError('not here')\n")
    lacking = {"PYTHONPATH": str(tmp_path / "lacking")}
    vitedge_process("verify", shipped, "--trust", keys["release"].public, **lacking)
    said = vitedge_process("sign", shipped, "--key", keys["release"].private, code=3, **lacking)
    assert "vitedge[sign]" in said.stderr
    (tmp_path / "lacking" / "cryptography.py").write_text("raise ImportError('not here')\n")
    said = vitedge_process("verify", shipped, "--trust", keys["release"].public, code=3, **lacking)
    assert "vitedge[trust]" in said.stderr


def test_the_gate_refuses_a_report_edited_by_hand(shipped, keys, vitedge, tmp_path):
    trust = ("--trust", keys["release"].public)
    limits, few = ("--min-sqnr-db", 30), shipped.parent / "few.npz"
    ran = vitedge("gate", shipped, *limits, *trust)
    assert "report signed by release.pub (SHA-256 " in ran.stdout
    verdict = vitedge("gate", shipped, *limits, *trust, "--json").document
    assert verdict["judged"][0]["signature"]["state"] == "signed"
    assert "report not signed" not in ran.stdout
    alone = vitedge("gate", shipped / "report.json", *limits, *trust)
    assert "report signed by release.pub" in alone.stdout
    assert "not checked: no keys given" in vitedge("gate", shipped, *limits).stdout

    content = json.loads((shipped / "report.json").read_text())
    content["numerics"]["sqnr_db"] = 99.0
    (shipped / "report.json").write_text(json.dumps(content))
    for source in (shipped, shipped / "report.json"):
        said = vitedge("gate", source, *limits, *trust, code=2).stderr
        assert "'report.json' is not the file that was signed" in said
    (shipped / "evidence.npz").unlink()
    said = vitedge("gate", shipped, *limits, *trust, code=2).stderr
    assert "'evidence.npz' was signed, and is missing" in said

    ve.sign(shipped, key=keys["release"].private)
    said = vitedge("gate", shipped, *limits, *trust, code=2).stderr
    assert "'report.json' is not signed" in said
    ran = vitedge("gate", shipped, *limits, *trust, "--data", few)
    assert "report measured in this run; artifact signed by release.pub" in ran.stdout
    said = vitedge("gate", shipped, "--max-p90-ms", 9, *trust, "--data", few, code=2).stderr
    assert "--data and --duration" in said
    (shipped / "signature.json").unlink()
    assert "report not signed" in vitedge("gate", shipped, *limits).stdout


def test_trust_is_kept_in_the_repository(shipped, keys, vitedge, tmp_path):
    folder = tmp_path / "trusted"
    folder.mkdir()
    shutil.copy(keys["stranger"].public, folder)
    (tmp_path / "vitedge.toml").write_text(
        '[trust]\nkeys = "trusted"\naccepted = "accepted.json"\n'
        '[gate]\nmin_sqnr_db = 30\nartifacts = [{ path = "*-int8" }]\n'
    )
    said = vitedge("gate", cwd=tmp_path, code=2).stderr
    assert "is by another key" in said and "stranger.pub" in said
    vitedge("gate", "--trust", keys["release"].public, cwd=tmp_path)
    shutil.copy(keys["release"].public, folder)
    ran = vitedge("gate", "--write", "markdown=v.md", "--junit", "v.xml", cwd=tmp_path)
    assert "report signed by release.pub" in ran.stdout
    for name in ("v.md", "v.xml"):
        assert "report signed by release.pub" in (tmp_path / name).read_text()
    assert shipped.name in (tmp_path / "accepted.json").read_text()
    vitedge(*words("validate", shipped))
    assert "was signed" in vitedge("gate", cwd=tmp_path, code=2).stderr


def test_an_open_artifact_takes_its_trust_along(shipped, keys):
    bundle = ve.open(shipped, trust=keys["release"].public)
    assert bundle.reference().trust == bundle.trust
    assert ve.open(bundle) is bundle
    with pytest.raises(ve.InputError, match="by another key"):
        ve.open(bundle, trust=keys["stranger"].public)
