"""Compiling ahead of time with TensorRT-RTX, and every way in which it is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests import small_graphs
from vitedge.core import catalog
from vitedge.core.errors import InputError, LimitError
from vitedge.core.progress import SILENT
from vitedge.core.spec import Target
from vitedge.runtimes.tensorrt import timing_cache
from vitedge.runtimes.tensorrt.compiler import compile_model, compiler_log

pytest.importorskip("tensorrt_rtx")

RTX = catalog.targets()["rtx-40"]


def compiling(**options: Any) -> Target:
    """The target rtx-40 with other options of [compile]."""
    return msgspec.structs.replace(RTX, compile=msgspec.structs.replace(RTX.compile, **options))


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return small_graphs.write(small_graphs.LINEAR, tmp_path / "linear.onnx")


@pytest.mark.parametrize("batch", ["1", "N"])
def test_two_compilations_are_the_same_to_the_byte(tmp_path: Path, batch: str) -> None:
    engines = []
    for folder in (tmp_path / "a", tmp_path / "elsewhere"):
        folder.mkdir()
        model = small_graphs.write(small_graphs.ATTENTION, folder / "model.onnx", batch)
        engines.append(compile_model(model, RTX, SILENT).engine)
    assert len(engines[0]) > 10_000
    assert engines[0] == engines[1]


def test_another_gpu_gets_another_engine_and_two_get_one_for_both(linear: Path) -> None:
    def engine(*capabilities: str) -> bytes:
        target = msgspec.structs.replace(RTX, compute_capabilities=capabilities)
        return compile_model(linear, target, SILENT).engine

    engines = [engine("8.6"), engine("8.9"), engine("8.6", "8.9"), engine()]
    assert len(set(engines)) == 4


def test_a_gpu_that_it_cannot_compile_for_is_answered_with_those_it_can(linear: Path) -> None:
    target = msgspec.structs.replace(RTX, compute_capabilities=("8.7",))
    with pytest.raises(InputError, match=r"compute capability 8\.7") as caught:
        compile_model(linear, target, SILENT)
    assert "8.6" in caught.value.fix and "12.0" in caught.value.fix


def test_the_profile_of_a_dynamic_batch_is_the_targets(tmp_path: Path) -> None:
    model = small_graphs.write(small_graphs.LINEAR, tmp_path / "dynamic.onnx", "N")
    few, many = (
        compile_model(model, compiling(opt_batch=2, max_batch=size), SILENT).engine
        for size in (2, 64)
    )
    assert few != many


def test_a_batch_tuned_for_beyond_the_largest_is_refused(linear: Path) -> None:
    with pytest.raises(InputError, match="batch 8, above its largest"):
        compile_model(linear, compiling(max_batch=4), SILENT)


@pytest.mark.parametrize("option", ["version_compatible", "hardware_compatible"])
def test_an_option_that_the_runtime_does_not_have_is_refused(linear: Path, option: str) -> None:
    with pytest.raises(InputError, match=option.replace("_", ".")):
        compile_model(linear, compiling(**{option: True}), SILENT)


@pytest.mark.parametrize(
    ("body", "changes", "node", "why"),
    [
        (small_graphs.LINEAR, {"zero": np.array(3, np.int8)}, "'q' (QuantizeLinear)", "zero point"),
        (
            small_graphs.LINEAR,
            {"scale": np.array(-1, np.float16)},
            "'q' (QuantizeLinear)",
            "positive",
        ),
        ("y = MatMul(x, w)", {"w": np.ones((64, 64), np.float32)}, "'y' (MatMul)", "same"),
        ("y = Det2(x)", {}, "'y' (Det2)", "Plugin not found"),
    ],
    ids=["zero point", "negative scale", "two float types", "unknown operator"],
)
def test_a_node_that_is_not_taken_is_named_with_the_reason(
    tmp_path: Path, body: str, changes: dict[str, Any], node: str, why: str
) -> None:
    model = small_graphs.write(body, tmp_path / "bad.onnx", changes=changes)
    with pytest.raises(InputError) as caught:
        compile_model(model, RTX, SILENT)
    assert f"TensorRT-RTX does not take {model}: node {node}: " in caught.value.what
    assert why in caught.value.what
    assert "\n" not in caught.value.what
    assert caught.value.fix == f"see 'vitedge inspect {model}' with `target='rtx-40'`"


def test_a_graph_that_fails_later_is_answered_with_the_compilers_last_error(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="at least one output"):
        compile_model(tmp_path / "empty.onnx", RTX, SILENT)


def test_too_little_scratch_memory_names_the_setting(tmp_path: Path) -> None:
    attention = small_graphs.write(
        small_graphs.ATTENTION.replace("Softmax", "Softmax <axis = 2>"), tmp_path / "a.onnx", "64"
    )
    with pytest.raises(LimitError, match="1 MiB of scratch memory") as caught:
        compile_model(attention, compiling(workspace_mib=1), SILENT)
    assert "workspace_mib" in caught.value.fix
    assert compile_model(attention, compiling(workspace_mib=1024), SILENT).engine


def test_progress_grows_from_little_to_all(linear: Path) -> None:
    seen: list[float] = []
    compile_model(linear, RTX, lambda step, done, total: seen.append(done / total))
    assert len(seen) > 5 and seen == sorted(seen)
    assert 0 < seen[0] < 0.5 < seen[-1] <= 1


STOPPED = """
import signal, sys, threading, time
from pathlib import Path
from vitedge.core import catalog
from vitedge.runtimes.tensorrt.compiler import compile_model
from vitedge.core.progress import SILENT
steps = []
def interrupt(step, done, total):
    steps.append(done)
    if len(steps) == 2:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
model, target = Path(sys.argv[1]), catalog.targets()["rtx-40"]
try:
    compile_model(model, target, interrupt)
    time.sleep(10)
except KeyboardInterrupt:
    print("stopped", flush=True)
assert compile_model(model, target, SILENT).engine
print("works")
"""


def test_ctrl_c_stops_the_compiler_and_the_next_one_works(linear: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, str(linear)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "stopped\nworks\n"


def test_nothing_of_the_compilers_is_on_stdout(tmp_path: Path) -> None:
    body = "c = Clip(x, low) y = Relu(c)"
    wide = {"low": np.array(1e-7, np.float16)}
    model = small_graphs.write(body, tmp_path / "clip.onnx", changes=wide)
    code = (
        "import sys\nfrom pathlib import Path\nfrom vitedge.core import catalog\n"
        "from vitedge.runtimes.tensorrt.compiler import compile_model\n"
        "from vitedge.core.progress import SILENT\n"
        "compile_model(Path(sys.argv[1]), catalog.targets()['rtx-40'], SILENT)\n"
        "print('mine')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "mine\n"


# -- the timing cache ---------------------------------------------------------------------------


def test_the_cache_is_where_the_system_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert timing_cache.folder().is_relative_to(tmp_path)
    assert timing_cache.folder().parts[-2:] == ("vitedge", "tensorrt")


def test_a_stale_cache_is_ignored_with_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import tensorrt_rtx as trt

    stale = tmp_path / "gpu.timings"
    stale.write_bytes(b"of another version" * 10)
    log = compiler_log(trt)
    config = trt.Builder(log).create_builder_config()
    timing_cache.read(tmp_path / "absent.timings", config, log)
    assert not caplog.records
    timing_cache.read(stale, config, log)
    assert f"the timing cache {stale} does not fit" in caplog.text


def test_a_cache_that_cannot_be_written_is_only_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import tensorrt_rtx as trt

    config = trt.Builder(compiler_log(trt)).create_builder_config()
    kept = tmp_path / "caches" / "gpu.timings"
    timing_cache.read(kept, config, compiler_log(trt))
    timing_cache.write(kept, config)
    assert os.listdir(kept.parent) == [kept.name]
    (tmp_path / "file").write_text("")
    timing_cache.write(tmp_path / "file" / "gpu.timings", config)
    assert "was not kept" in caplog.text
