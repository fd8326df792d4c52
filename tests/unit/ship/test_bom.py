"""A bill of materials is valid by CycloneDX's schema, and says what an artifact was made of."""

from __future__ import annotations

import hashlib
import json

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from vitedge.core.bundle import read_manifest


def valid(text):
    errors = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert errors is None, errors
    return json.loads(text)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_artifacts_bill_of_materials(bundles, vitedge, precision):
    path = bundles["onnxruntime", precision]
    typed = ("inspect", path, "--as", "cyclonedx")
    text = vitedge(*typed).stdout
    bom, manifest = valid(text), read_manifest(path)
    assert text == vitedge(*typed, "--json").stdout
    model = bom["metadata"]["component"]
    assert (model["type"], model["name"]) == ("machine-learning-model", manifest.name)
    (origin,) = model["pedigree"]["ancestors"]
    assert origin["name"] == "digits"
    assert origin["hashes"][0]["content"] == manifest.model.weights_sha256
    parts = {part["bom-ref"]: part for part in bom["components"]}
    for name in (*manifest.files, "manifest.json"):
        sha = hashlib.sha256((path / name).read_bytes()).hexdigest()
        assert parts[f"file:{name}"]["hashes"] == [{"alg": "SHA-256", "content": sha}]
    assert bom["dependencies"][0]["dependsOn"] == list(parts)
    runtime, torch = parts["package:onnxruntime"], parts["package:torch"]
    assert (runtime["scope"], torch["scope"]) == ("required", "excluded")
    assert torch["purl"].startswith("pkg:pypi/torch@2")
    assert "Apache-2.0" in parts["package:onnx"]["licenses"][0]["expression"]
    parameters = model["modelCard"]["modelParameters"]
    assert parameters["inputs"] == [{"format": "uint8 1×32×32×3, NHWC, RGB"}]
    if precision == "int8":
        calibration = manifest.quantization.calibration
        assert parts["data:calibration"]["hashes"][0]["content"] == calibration.digest
        assert parameters["datasets"] == [{"ref": "data:calibration"}]


def test_what_little_is_known_is_valid_too(small_bundle, tmp_path, vitedge):
    path = small_bundle(tmp_path / "a \x1b[31m <&> é", tools={"nobody-has-this": "1.0+x"})
    bom = valid(vitedge("inspect", path, "--as", "cyclonedx").stdout)
    (package,) = [part for part in bom["components"] if part["type"] == "library"]
    assert "licenses" not in package
    assert package["purl"] == "pkg:pypi/nobody-has-this@1.0%2Bx"
    assert "hashes" not in bom["metadata"]["component"]["pedigree"]["ancestors"][0]


def test_there_is_none_of_what_is_no_artifact_or_was_changed(small_bundle, tmp_path, vitedge):
    said = vitedge("inspect", tmp_path / "x", "--as", "cyclonedx", code=2).stderr
    assert "no artifact at" in said
    path = small_bundle(tmp_path / "small-fp32")
    (path / "labels.txt").write_text("dog\n")
    said = vitedge("inspect", path, "--as", "cyclonedx", code=2).stderr
    assert "'labels.txt' is not the file" in said
    page = ("--html", tmp_path / "page.html")
    vitedge("inspect", path, "--as", "cyclonedx", *page, code=2)
