"""`vitedge export --bf16` and INT8 with a BF16 rest: for CPUs that have it, simulated on others."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from tests.support.machine import HERE
from vitedge.core import catalog
from vitedge.core.bundle import open_bundle
from vitedge.core.errors import UnavailableError
from vitedge.export import request
from vitedge.models.sources import ModelRequest

TARGET = catalog.targets()["openvino-bf16"]
WITHOUT = pytest.mark.skipif(
    catalog.runs_on(TARGET, HERE) or bool(catalog.lacks_hardware(TARGET, HERE)),
    reason="for an x86-64 CPU with VNNI and without BF16",
)


def report(bundle):
    return json.loads((bundle.path / "report.json").read_text())


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, vitedge):
    """`digits` for OpenVINO in BF16, by its precision."""
    output = tmp_path_factory.mktemp("bf16")
    vitedge(
        *("export", "--int8", "--target", TARGET.name, "--calib-data", "digits"),
        *("--duration", 0, "--output", "artifacts"),
        cwd=output,  # a relative path is looked up as its bundles are, by where they lie
    )
    output /= "artifacts"
    names = ("fp32", "bf16", "int8")
    return {name: open_bundle(output / f"digits-{TARGET.name}-{name}") for name in names}


def test_int8_comes_with_bf16_and_both_say_what_bf16_costs(bundles):
    alone, rest = bundles["bf16"].manifest, bundles["int8"].manifest
    assert bundles["fp32"].manifest.bf16 is None
    assert alone.computes_bf16 and alone.quantization is None
    assert 40 < alone.bf16.sqnr_db < 60 and alone.bf16.fp32_rest_db is None
    assert rest.computes_bf16
    assert 0 <= rest.bf16.fp32_rest_db - rest.bf16.sqnr_db <= 1
    assert (rest.bf16.source, rest.bf16.output) == ("digits", "logits")
    assert alone.files["model.bin"] == bundles["fp32"].manifest.files["model.bin"]
    assert alone.target.options["INFERENCE_PRECISION_HINT"] == "f32"  # what a CPU without it gets


@WITHOUT
def test_elsewhere_its_accuracy_is_simulated_and_says_so(bundles):
    for name in ("bf16", "int8"):
        measured = report(bundles[name])
        simulated = measured["simulation"]
        assert "float results rounded to BF16" in simulated["runtime"]
        assert abs(simulated["accuracy"]["drop_pp"]) < 0.3
        assert simulated["numerics"]["sqnr_db"] > 38
        assert "accuracy" not in measured and "numerics" not in measured
    assert "simulation" not in report(bundles["fp32"])  # which runs here


@WITHOUT
def test_elsewhere_it_runs_in_fp32_says_so_and_is_compared_with_nothing(bundles, vitedge):
    paths = [bundle.path for bundle in bundles.values()]
    ran = vitedge("bench", *paths, "--duration", 0.2, "--json")
    for path in paths[1:]:
        assert f"{path} computes its floats in FP32 here, for want of avx512_bf16" in ran.stderr
    assert ran.stderr.count("computes its floats in FP32") == 2
    for measured in ran.document["reports"][1:]:
        latency = measured["latency"]
        assert latency.get("speedup") is None and latency.get("fp32") is None
        assert not latency.get("over") and "numerics" not in measured and "parity" not in measured
        assert any("FP32, for want of" in line for line in measured["conditions"]["warnings"])
        assert "recommendation" not in measured
    refused = vitedge("validate", paths[1], code=3)
    assert "for want of avx512_bf16: what is measured would not be its own" in refused.stderr
    against = vitedge(
        "bench", paths[0], "--against", paths[2], "--duration", 0.2, "--json"
    ).document
    assert against["latency"].get("speedup") is None
    compared = vitedge("compare", paths[0], paths[2])
    assert "BF16 was timed on a CPU that computes it in FP32" in compared.stdout + compared.stderr


def test_a_runtimes_name_is_not_enough_where_the_cpu_lacks_it():
    vnni = replace(HERE, machine="x86_64", isa=("avx2", "avx512f", "avx512_vnni"))
    amx = replace(vnni, isa=(*vnni.isa, "avx512_bf16", "amx_int8"))
    asked = request.ExportRequest(ModelRequest(), ("openvino",), "bf16")
    assert request.target_of("openvino", amx, asked).name == TARGET.name
    for user_host in (replace(vnni, isa=("avx2",)), vnni):
        with pytest.raises(
            UnavailableError, match="takes x86_64 or AMD64 with avx512_bf16"
        ) as caught:
            request.target_of("openvino", user_host, asked)
    assert "fastest here is INT8, and of floats FP32" in caught.value.what
    assert f"targets={TARGET.name}" in caught.value.fix
    assert request.target_of(TARGET.name, vnni, asked).name == TARGET.name


def test_int8_alone_is_only_asked_for(tmp_path, vitedge):
    common = ("export", "--target", TARGET.name, "--calib-data", "digits", "--dry-run", "--json")
    planned = vitedge(*common, "--int8").document
    assert planned["targets"] == {TARGET.name: ["fp32", "bf16", "int8"]}
    planned = vitedge(*common, "--int8", "--only").document
    assert planned["targets"] == {TARGET.name: ["fp32", "int8"]}
    refused = vitedge(*common, "--bf16", "--only", code=2)
    assert "--only is about what comes beside INT8" in refused.stderr
    refused = vitedge("export", "--bf16", "--target", "openvino-vnni", code=2)
    assert "does not run bf16" in refused.stderr


def test_tensorrt_finds_its_types_in_the_graph(tmp_path, vitedge):
    pytest.importorskip("tensorrt_rtx")
    common = ("export", "--bf16", "--target", "rtx-30", "--duration", 0, "--output", tmp_path)
    ran = vitedge(*common)
    bundle = open_bundle(tmp_path / "digits-rtx-30-bf16")
    assert [kept.op for kept in bundle.manifest.bf16.kept] == ["Conv"]
    assert (
        "1 for want of a narrower form ('patch_embed.proj/Conv': Conv has no bfloat16" in ran.stderr
    )
    compiled = bundle.manifest.build.compiled
    assert (compiled.attention, compiled.fused) == (4, 4)
    simulated = report(bundle)["simulation"]
    assert "float results rounded to BF16" in simulated["runtime"]
    assert simulated["numerics"]["sqnr_db"] > 40
    size = report(bundle)["size"]
    assert size["bytes"] < 0.62 * size["fp32_bytes"]
