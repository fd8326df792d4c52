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

from tests.support.ptq import ptq
from tests.support.small_graphs import ATTENTION, LINEAR, ONE_OPERAND, write
from vitedge.core import catalog
from vitedge.core.manifest import Compiled
from vitedge.core.progress import SILENT
from vitedge.runtimes.tensorrt.build_log import layers
from vitedge.runtimes.tensorrt.compiler import compile_model
from vitedge.runtimes.tensorrt.coverage import compile_check, int8_plan

pytest.importorskip("tensorrt_rtx")

RTX = catalog.targets()["rtx-40"]


def check(path: Path, target: str = "rtx-40") -> Compiled:
    compiled = compile_check(path, catalog.targets()[target], SILENT)
    assert compiled is not None
    return compiled


def test_a_linear_is_one_gemm_of_int8_by_int8(tmp_path: Path) -> None:
    model = write(LINEAR, tmp_path / "linear.onnx")
    compiled = layers(compile_model(model, RTX, SILENT).log)
    (gemm,) = (layer for layer in compiled if layer.kind == "gemm")
    assert gemm.inputs == ("Int8",)
    assert gemm.constants.count("Int8") == 1
    assert gemm.outputs == ("Half",)
    assert {"y", "dq", "dw"} <= set(gemm.nodes)
    assert gemm.multiplies
    before = next(layer for layer in compiled if "q" in layer.nodes)
    assert (before.kind, before.inputs, before.outputs) == ("kgen", ("Half",), ("Int8",))
    assert not before.multiplies


@pytest.mark.parametrize("batch", ["1", "4", "N"])
@pytest.mark.parametrize("target", ["rtx-30", "rtx-40", "rtx-50"])
def test_attention_of_split_linears_is_all_int8_and_one_kernel(
    tmp_path: Path, batch: str, target: str
) -> None:
    compiled = check(write(ATTENTION, tmp_path / "attention.onnx", batch), target)
    assert (compiled.planned, compiled.int8, compiled.lost) == (6, 6, {})
    assert (compiled.attention, compiled.fused) == (1, 1)
    assert compiled.compute_capability == catalog.targets()[target].compute_capabilities[0]
    assert compiled.compiler.startswith("TensorRT-RTX 1.")


def test_what_is_planned_is_read_from_the_graph(tmp_path: Path) -> None:
    plan = int8_plan(write(ATTENTION, tmp_path / "attention.onnx"))
    linears = ("query_linear", "key_linear", "value_linear")
    assert plan.products == (*linears, "scores", "context", "y")
    (attention,) = plan.attentions
    assert (attention.qk, attention.softmax, attention.pv) == ("scores", "probabilities", "context")
    nothing = int8_plan(write(ONE_OPERAND, tmp_path / "one.onnx"))
    assert (nothing.products, nothing.attentions) == ((), ())


def test_weights_with_scales_along_the_wrong_axis_lose_int8_and_say_so(tmp_path: Path) -> None:
    wrong = LINEAR.replace("<axis = 1>", "<axis = 0>")
    compiled = check(write(wrong, tmp_path / "wrong.onnx"))
    assert (compiled.planned, compiled.int8) == (1, 0)
    assert "Int8 × Half × Int8, made floats first" in compiled.lost["y"]


def test_an_attention_of_which_only_the_scores_are_planned_is_counted_so(tmp_path: Path) -> None:
    body = ATTENTION.replace("context = MatMul(p, v)", "context = MatMul(p, value_headed)")
    compiled = check(write(body, tmp_path / "scores.onnx"))
    assert (compiled.planned, compiled.int8, compiled.lost) == (5, 5, {})


def test_in_float_nothing_is_planned_and_nothing_lost(
    digits_graph: Callable[[int], Any],
) -> None:
    compiled = check(digits_graph(1).path)
    assert (compiled.planned, compiled.int8, compiled.lost) == (0, 0, {})
    assert compiled.attention == 4


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
    compiled = check(digits)
    assert compiled.attention == compiled.fused == 4
    plan = int8_plan(digits)
    assert compiled.planned == len(plan.products) >= 24
    products = {name for nodes in plan.attentions for name in (nodes.qk, nodes.pv)}
    assert products <= set(plan.products)
    assert not products & set(compiled.lost)
    assert compiled.int8 == compiled.planned - len(compiled.lost) >= 20


@pytest.mark.parametrize(
    ("target", "capability"),
    [("tensorrt", "8.6"), ("jetson-orin", "8.6"), ("jetson-thor", "8.6"), ("rtx-50", "12.0")],
)
def test_a_gpu_that_the_compiler_does_not_know_is_stood_in_for(
    tmp_path: Path, target: str, capability: str
) -> None:
    compiled = check(write(LINEAR, tmp_path / "linear.onnx"), target)
    assert compiled.compute_capability == capability
    assert compiled.int8 == 1


def test_a_check_takes_no_notice_of_options_that_only_the_device_has(tmp_path: Path) -> None:
    orin = catalog.targets()["jetson-orin"]
    options = msgspec.structs.replace(
        orin.compile, weights="stripped", version_compatible=True, hardware_compatible=True
    )
    target = msgspec.structs.replace(orin, compile=options)
    compiled = compile_check(write(LINEAR, tmp_path / "linear.onnx"), target, SILENT)
    assert compiled is not None and compiled.int8 == 1
