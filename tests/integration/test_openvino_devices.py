"""OpenVINO beside the CPU: which machines have such a device, and what an artifact for it is.

No Intel GPU or NPU was ever at hand: what the CPU makes of the same files is what is shown.
"""

import json

import numpy as np
import openvino as ov
import pytest
from msgspec.structs import replace

from tests.support.machine import HERE
from vitedge.core import catalog
from vitedge.core.bundle import open_bundle
from vitedge.core.host import INT8_DOT_PRODUCT
from vitedge.core.intel import intel_devices

X86 = replace(HERE, machine="x86_64", isa=("avx2",))
DEVICES = {"GPU": "class/drm/renderD128", "NPU": "class/accel/accel0"}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory, vitedge):
    output = tmp_path_factory.mktemp("artifacts")
    vitedge(
        *("export", "digits", "--target", "openvino-gpu", "--target", "openvino-npu", "--int8"),
        *("--output", output),
    )
    return output


def integer_products(model):
    """How many of a compiled model's products are of INT8."""
    executed = [op.get_rt_info() for op in model.get_runtime_model().get_ordered_ops()]
    kinds = [
        [info[key].astype(str) for key in ("layerType", "runtimePrecision")] for info in executed
    ]
    products = ("FullyConnected", "Convolution", "MatMul")
    return sum(kind in products and precision in ("i8", "u8") for kind, precision in kinds)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("vendor", "listed"), [("0x8086", True), ("0x10de", False)])
def test_the_kernel_tells_of_intels_devices(tmp_path, device, vendor, listed):
    folder = tmp_path / "sys" / DEVICES[device] / "device"
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n")
    (tmp_path / "sys/class/drm/card0").mkdir(parents=True)
    assert intel_devices(tmp_path) == ((device,) if listed else ())


@pytest.mark.parametrize(
    ("listed", "runs"), [((), ()), (("GPU",), ("gpu",)), (("GPU", "NPU"), ("gpu", "npu"))]
)
def test_a_machine_runs_what_its_devices_take(listed, runs):
    host = replace(X86, intel_devices=listed)
    for device in ("gpu", "npu"):
        target = catalog.targets()[f"openvino-{device}"]
        assert catalog.runs_on(target, host) == (device in runs)
        needs = "" if device in runs else f"an Intel {device.upper()}"
        assert catalog.lacks(target, host) == needs
        assert catalog.runs_on(target, replace(X86, intel_devices=None))  # opening it tells


@pytest.mark.heavy
@pytest.mark.parametrize("device", ["gpu", "npu"])
@pytest.mark.parametrize(("precision", "least_db"), [("fp32", 110), ("fp16", 55), ("int8", 40)])
def test_an_artifact_is_right_on_another_device_of_openvino(artifacts, device, precision, least_db):
    if precision == "int8" and not INT8_DOT_PRODUCT.intersection(HERE.isa or ()):
        pytest.skip("the CPU at hand saturates on full-range INT8, which those devices do not")
    bundle = open_bundle(artifacts / f"digits-openvino-{device}-{precision}")
    report = json.loads((bundle.path / "report.json").read_text())
    assert bundle.manifest.tools["openvino"] and "latency" not in report
    golden, options = bundle.golden(), {"INFERENCE_PRECISION_HINT": "f32"}
    model = ov.Core().compile_model(bundle.path / "model.xml", "CPU", options)
    got = np.concatenate([model(image[None])[0] for image in golden.images])
    noise = np.square(got - golden.outputs, dtype=np.float64).sum()
    level_db = 10 * np.log10(np.square(golden.outputs, dtype=np.float64).sum() / noise)
    assert level_db > least_db
    if precision == "int8":
        planned = sum(layer.quantized for layer in bundle.manifest.quantization.layers)
        assert integer_products(model) == planned == 18


def test_without_the_device_it_does_not_run_and_says_what_is_missing(artifacts, vitedge):
    if HERE.intel_devices or HERE.machine != "x86_64":
        pytest.skip("this machine has such a device, or is none of those that may")
    for device in ("GPU", "NPU"):
        path = artifacts / f"digits-openvino-{device.lower()}-int8"
        ran = vitedge("bench", path, "--duration", "0.1", code=3)
        assert f"(an Intel {device}); this machine (x86_64) is not that" in ran.stderr


def test_an_npu_takes_no_dynamic_batch(tmp_path, vitedge):
    command = ("export", "digits", "--target", "openvino-npu", "--fp32", "--batch", "dynamic")
    ran = vitedge(*command, "--output", tmp_path, code=2)
    assert "takes no dynamic batch" in ran.stderr and "--batch" in ran.stderr
