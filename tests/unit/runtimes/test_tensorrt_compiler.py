"""Compiling ahead of time with TensorRT-RTX, and every way in which it is refused."""

import ctypes
import os
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from tests.support.small_graphs import ATTENTION, LINEAR, write
from vitedge.core import catalog
from vitedge.core.errors import InputError, LimitError
from vitedge.core.progress import SILENT
from vitedge.runtimes.tensorrt import timing_cache
from vitedge.runtimes.tensorrt.compiler import compile_model, compiler_log

pytest.importorskip("tensorrt_rtx")

RTX = catalog.targets()["rtx-40"]


def compiling(**options):
    """The target rtx-40 with other options of [compile]."""
    return msgspec.structs.replace(RTX, compile=msgspec.structs.replace(RTX.compile, **options))


@pytest.fixture
def linear(tmp_path):
    return write(LINEAR, tmp_path / "linear.onnx")


@pytest.mark.parametrize("batch", ["1", "N"])
def test_two_compilations_are_the_same_to_the_byte(tmp_path, batch):
    engines = []
    for folder in (tmp_path / "a", tmp_path / "elsewhere"):
        folder.mkdir()
        model = write(ATTENTION, folder / "model.onnx", batch)
        engines.append(compile_model(model, RTX, SILENT).engine)
    assert len(engines[0]) > 10_000
    assert engines[0] == engines[1]


def test_another_gpu_gets_another_engine_and_two_get_one_for_both(linear):
    def engine(*capabilities):
        target = msgspec.structs.replace(RTX, compute_capabilities=capabilities)
        return compile_model(linear, target, SILENT).engine

    engines = [engine("8.6"), engine("8.9"), engine("8.6", "8.9"), engine()]
    assert len(set(engines)) == 4


def test_a_gpu_that_it_cannot_compile_for_is_answered_with_those_it_can(linear):
    target = msgspec.structs.replace(RTX, compute_capabilities=("8.7",))
    with pytest.raises(InputError, match=r"compute capability 8\.7") as caught:
        compile_model(linear, target, SILENT)
    assert "8.6" in caught.value.fix and "12.0" in caught.value.fix


def test_the_profile_of_a_dynamic_batch_is_the_targets(tmp_path):
    model = write(LINEAR, tmp_path / "dynamic.onnx", "N")
    few, many = (
        compile_model(model, compiling(opt_batch=2, max_batch=size), SILENT).engine
        for size in (2, 64)
    )
    assert few != many


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_batch": 4}, "batch 8, above its largest"),
        ({"version_compatible": True}, "TensorRT-RTX has no version_compatible"),
        ({"hardware_compatible": True}, "TensorRT-RTX has no hardware_compatible"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(linear, options, says):
    with pytest.raises(InputError, match=says) as caught:
        compile_model(linear, compiling(**options), SILENT)
    assert "[compile]" in caught.value.fix or "compute_capabilities" in caught.value.fix


@pytest.mark.parametrize(
    ("body", "changes", "node", "why"),
    [
        (LINEAR, {"zero": np.array(3, np.int8)}, "'q' (QuantizeLinear)", "zero point"),
        (LINEAR, {"scale": np.array(-1, np.float16)}, "'q' (QuantizeLinear)", "positive"),
        ("y = MatMul(x, w)", {"w": np.ones((64, 64), np.float32)}, "'y' (MatMul)", "same"),
        ("y = Det2(x)", {}, "'y' (Det2)", "Plugin not found"),
    ],
    ids=["zero point", "negative scale", "two float types", "unknown operator"],
)
def test_a_node_that_is_not_taken_is_named_with_the_reason(tmp_path, body, changes, node, why):
    model = write(body, tmp_path / "bad.onnx", changes=changes)
    with pytest.raises(InputError) as caught:
        compile_model(model, RTX, SILENT)
    assert f"TensorRT-RTX does not take {model}: node {node}: " in caught.value.what
    assert why in caught.value.what
    assert "\n" not in caught.value.what
    assert caught.value.fix == f"see vitedge inspect {model} with `target='rtx-40'`"


def test_a_graph_that_fails_later_is_answered_with_the_compilers_last_error(tmp_path):
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="at least one output"):
        compile_model(tmp_path / "empty.onnx", RTX, SILENT)


def test_too_little_scratch_memory_names_the_setting(tmp_path):
    body = ATTENTION.replace("Softmax", "Softmax <axis = 2>")
    attention = write(body, tmp_path / "a.onnx", "64")
    with pytest.raises(LimitError, match="1 MiB of scratch memory") as caught:
        compile_model(attention, compiling(workspace_mib=1), SILENT)
    assert "workspace_mib" in caught.value.fix
    assert compile_model(attention, compiling(workspace_mib=1024), SILENT).engine


def test_progress_grows_from_little_to_all(linear):
    seen = []
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


def test_ctrl_c_stops_the_compiler_and_the_next_one_works(linear):
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, str(linear)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "stopped\nworks\n"


def test_nothing_of_the_compilers_is_on_stdout(tmp_path, capfd):
    body = "c = Clip(x, low) y = Relu(c)"
    model = write(body, tmp_path / "clip.onnx", changes={"low": np.array(1e-7, np.float16)})
    compile_model(model, RTX, SILENT)
    if sys.platform != "win32":
        ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == ""


# -- the timing cache ---------------------------------------------------------------------------


def test_the_cache_is_where_the_system_keeps_caches(monkeypatch, tmp_path):
    for variable in ("LOCALAPPDATA", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    assert timing_cache.folder() == tmp_path / "vitedge" / "tensorrt"


def test_a_cache_that_is_stale_or_cannot_be_written_is_only_noted(tmp_path, caplog):
    import tensorrt_rtx as trt

    log = compiler_log(trt)
    builder = trt.Builder(log)
    config = builder.create_builder_config()
    kept = tmp_path / "caches" / "gpu.timings"
    timing_cache.read(kept, config, log)
    timing_cache.write(kept, config)
    assert os.listdir(kept.parent) == [kept.name]
    assert not caplog.records

    kept.write_bytes(b"of another version" * 10)
    timing_cache.read(kept, config, log)
    assert f"the timing cache {kept} does not fit" in caplog.text
    timing_cache.write(kept / "gpu.timings", config)
    assert "was not kept" in caplog.text
