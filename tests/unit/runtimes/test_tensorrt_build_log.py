"""The build log of real compilations: which kernels there are, and what became of INT8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests import small_graphs
from tests.ptq import ptq
from vitedge.core import catalog
from vitedge.core.manifest import Compiled
from vitedge.core.progress import SILENT
from vitedge.runtimes.tensorrt.build_log import layers
from vitedge.runtimes.tensorrt.compiler import compile_model
from vitedge.runtimes.tensorrt.coverage import compile_check, int8_plan

pytest.importorskip("tensorrt_rtx")

RTX = catalog.targets()["rtx-40"]


def check(path: Path, target: str = "rtx-40") -> Compiled:
    found = compile_check(path, catalog.targets()[target], SILENT)
    assert found is not None
    return found


def test_a_linear_is_one_gemm_of_int8_by_int8(tmp_path: Path) -> None:
    model = small_graphs.write(small_graphs.LINEAR, tmp_path / "linear.onnx")
    found = layers(compile_model(model, RTX, SILENT).log)
    (gemm,) = (layer for layer in found if layer.kind == "gemm")
    assert gemm.inputs == ("Int8",)
    assert gemm.constants.count("Int8") == 1
    assert gemm.outputs == ("Half",)
    assert {"y", "dq", "dw"} <= set(gemm.nodes)
    assert gemm.multiplies
    before = next(layer for layer in found if "q" in layer.nodes)
    assert (before.kind, before.inputs, before.outputs) == ("kgen", ("Half",), ("Int8",))
    assert not before.multiplies


@pytest.mark.parametrize("batch", ["1", "4", "N"])
@pytest.mark.parametrize("target", ["rtx-30", "rtx-40", "rtx-50"])
def test_attention_of_split_linears_is_all_int8_and_one_kernel(
    tmp_path: Path, batch: str, target: str
) -> None:
    found = check(
        small_graphs.write(small_graphs.ATTENTION, tmp_path / "attention.onnx", batch), target
    )
    assert (found.planned, found.int8, found.lost) == (6, 6, {})
    assert (found.attention, found.fused) == (1, 1)
    assert found.compute_capability == catalog.targets()[target].compute_capabilities[0]
    assert found.compiler.startswith("TensorRT-RTX 1.")


def test_what_is_planned_is_read_from_the_graph(tmp_path: Path) -> None:
    plan = int8_plan(small_graphs.write(small_graphs.ATTENTION, tmp_path / "attention.onnx"))
    linears = ("query_linear", "key_linear", "value_linear")
    assert plan.products == (*linears, "scores", "context", "y")
    (attention,) = plan.attentions
    assert (attention.qk, attention.softmax, attention.pv) == ("scores", "probabilities", "context")
    nothing = int8_plan(small_graphs.write(small_graphs.ONE_OPERAND, tmp_path / "one.onnx"))
    assert (nothing.products, nothing.attentions) == ((), ())


def test_weights_with_scales_along_the_wrong_axis_lose_int8_and_say_so(tmp_path: Path) -> None:
    wrong = small_graphs.LINEAR.replace("<axis = 1>", "<axis = 0>")
    found = check(small_graphs.write(wrong, tmp_path / "wrong.onnx"))
    assert (found.planned, found.int8) == (1, 0)
    assert "Int8 × Half × Int8, made floats first" in found.lost["y"]


def test_an_attention_of_which_only_the_scores_are_planned_is_counted_so(tmp_path: Path) -> None:
    body = small_graphs.ATTENTION.replace(
        "context = MatMul(p, v)", "context = MatMul(p, value_headed)"
    )
    found = check(small_graphs.write(body, tmp_path / "scores.onnx"))
    assert (found.planned, found.int8, found.lost) == (5, 5, {})


def test_in_float_nothing_is_planned_and_nothing_lost(
    digits_graph: Callable[[int], Any],
) -> None:
    found = check(digits_graph(1).path)
    assert (found.planned, found.int8, found.lost) == (0, 0, {})
    assert found.attention == 4


@pytest.fixture(scope="module")
def digits(
    tmp_path_factory: pytest.TempPathFactory,
    digits_graph: Callable[[int], Any],
    calibration_batches: Callable[[int, int], list[NDArray[np.uint8]]],
) -> Path:
    """`digits` in INT8, batch 1, in the dialect of the RTX targets."""
    recipe = msgspec.structs.replace(catalog.calibrations()["default"], num_samples=16)
    model, _ = ptq(digits_graph(1).path, calibration_batches(16, 1), recipe, RTX.quantization)
    path = tmp_path_factory.mktemp("digits") / "model.onnx"
    onnx.save(model, path)
    return path


def test_attention_of_digits_is_fused_in_int8(digits: Path) -> None:
    found = check(digits)
    assert found.attention == found.fused == 4
    plan = int8_plan(digits)
    assert found.planned == len(plan.products) >= 24
    products = {name for each in plan.attentions for name in (each.qk, each.pv)}
    assert products <= set(plan.products)
    assert not products & set(found.lost)
    assert found.int8 == found.planned - len(found.lost) >= 20


@pytest.mark.parametrize(
    ("target", "capability"),
    [("tensorrt", "8.6"), ("jetson-orin", "8.6"), ("jetson-thor", "8.6"), ("rtx-50", "12.0")],
)
def test_a_gpu_that_the_compiler_does_not_know_is_stood_in_for(
    tmp_path: Path, target: str, capability: str
) -> None:
    found = check(small_graphs.write(small_graphs.LINEAR, tmp_path / "linear.onnx"), target)
    assert found.compute_capability == capability
    assert found.int8 == 1


def test_a_check_takes_no_notice_of_options_that_only_the_device_has(tmp_path: Path) -> None:
    orin = catalog.targets()["jetson-orin"]
    options = msgspec.structs.replace(
        orin.compile, weights="stripped", version_compatible=True, hardware_compatible=True
    )
    target = msgspec.structs.replace(orin, compile=options)
    found = compile_check(
        small_graphs.write(small_graphs.LINEAR, tmp_path / "linear.onnx"), target, SILENT
    )
    assert found is not None and found.int8 == 1
