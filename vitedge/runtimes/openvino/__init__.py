"""OpenVINO on the CPU, on an Intel GPU or NPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import InputError, SharedError, UnavailableError, error_line
from vitedge.core.host import Host
from vitedge.core.manifest import Manifest
from vitedge.core.runtime import (
    Executed,
    Processor,
    Progress,
    Rule,
    Session,
    TensorSpec,
    VerifiedFiles,
)
from vitedge.core.spec import Target
from vitedge.runtimes.openvino import attention, convolution
from vitedge.runtimes.package import load

PACKAGE = "openvino"
XML = "model.xml"


def devices() -> tuple[str, ...]:
    """`CPU`, `GPU.0`, …, as OpenVINO lists them; none where it is not installed."""
    try:
        return tuple(load(PACKAGE).Core().available_devices)
    except UnavailableError:
        return ()


_HINTS = frozenset(
    (
        *("PERFORMANCE_HINT", "PERFORMANCE_HINT_NUM_REQUESTS", "EXECUTION_MODE_HINT"),
        *("INFERENCE_PRECISION_HINT", "NUM_STREAMS"),
    )
)
"""What every device takes."""
PRODUCTS = frozenset(
    (
        *("FullyConnected", "MatMul", "Convolution", "GroupConvolution"),
        *("FullyConnectedQuantized", "FullyConnectedQuantizedLegacy"),
        *("ScaledDotProductAttention", "ScaledDotProductAttentionWithKVCache"),
    )
)
"""Layers of a compiled model with multiply-accumulates."""


class OpenVINO:
    """Converts to OpenVINO's IR: `model.xml` and `model.bin`."""

    name = "openvino"
    title = "OpenVINO"
    packages = (PACKAGE,)
    extra = PACKAGE
    processor: Processor = "cpu"
    options = _HINTS | {
        *("INFERENCE_NUM_THREADS", "ENABLE_CPU_PINNING", "ENABLE_CPU_RESERVATION"),
        *("ENABLE_HYPER_THREADING", "SCHEDULING_CORE_TYPE", "MODEL_DISTRIBUTION_POLICY"),
        *("CPU_DENORMALS_OPTIMIZATION", "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE"),
        *("DYNAMIC_QUANTIZATION_GROUP_SIZE", "KV_CACHE_PRECISION"),
    }
    """Compile options; none that names a file or a folder."""
    device = "CPU"
    """As OpenVINO names it."""
    driver = ""
    """What brings it to OpenVINO."""

    def probe(self, host: Host) -> str:
        """Every machine has a CPU; where it cannot be told, others are looked for when opened."""
        if self.device == "CPU" or host.intel_devices is None:
            return ""
        return "" if self.device in host.intel_devices else f"an Intel {self.device}"

    def accelerator(self, host: Host) -> str:
        """`Intel GPU`, `Intel NPU`; nothing beside the CPU."""
        return "" if self.device == "CPU" else f"Intel {self.device}"

    def rules(self) -> tuple[Rule, ...]:
        """Traps of INT8 on CPUs."""
        from vitedge.runtimes.lint.cpu import BIAS_RANK, RULES

        return tuple(rule for rule in RULES if rule is not BIAS_RANK)

    def files(self, manifest: Manifest) -> tuple[str, ...]:
        """`model.xml` and `model.bin`."""
        return tuple(name for name in manifest.files if name.startswith("model."))

    def lower(self, model: Path, target: Target, out: Path, progress: Progress) -> None:
        """Read the ONNX file and save it as IR, weights as they are."""
        ov = load(PACKAGE)
        converted = ov.Core().read_model(model)
        attention.fit(converted, ov)
        convolution.keep_scales(converted, ov)
        try:
            ov.save_model(converted, out / XML, compress_to_fp16=False)
        except RuntimeError as error:  # a stream's, which does not say why
            raise SharedError(
                f"OpenVINO cannot write {out}: {error_line(error)}", fix="is the disk full?"
            ) from error

    @contextmanager
    def open(self, verified: VerifiedFiles, target: Target) -> Iterator[Session]:
        """Compile `model.xml` for its device with the target's options."""
        ov = load(PACKAGE)
        config = dict(target.options)
        if target.threads and self.device == "CPU":
            config["INFERENCE_NUM_THREADS"] = str(target.threads)
        core = ov.Core()
        listed = core.available_devices
        if not any(name.partition(".")[0] == self.device for name in listed):
            raise UnavailableError(
                f"OpenVINO lists {', '.join(listed)} here, and no {self.device}", fix=self.driver
            )
        model = core.read_model(verified.path(XML))
        outputs = tuple(_spec(port) for port in model.outputs)
        compiled = core.compile_model(model, self.device, config)
        yield _OpenVINOSession(compiled, outputs, ov.Tensor)

    def executed(self, verified: VerifiedFiles, target: Target) -> Executed:
        """As the compiled model says."""
        return self.executed_file(verified.path(XML), target)

    def executed_file(self, model: Path, target: Target) -> Executed:
        """Of the file `model`, IR or ONNX, compiled with the target's options."""
        core = load(PACKAGE).Core()
        compiled = core.compile_model(core.read_model(model), self.device, dict(target.options))
        layers = [op.rt_info for op in compiled.get_runtime_model().get_ops()]
        precisions = [
            info["runtimePrecision"].astype(str)
            for info in layers
            if info["layerType"].astype(str) in PRODUCTS
        ]
        return Executed(sum(p in ("i8", "u8") for p in precisions), len(precisions))


class OpenVINOGPU(OpenVINO):
    """On Intel's GPUs, inside the processor or on a card."""

    name = "openvino_gpu"
    title = "OpenVINO on an Intel GPU"
    processor: Processor = "gpu"
    options = _HINTS
    device = "GPU"
    driver = "install Intel's compute runtime (intel-opencl-icd), and be in the group 'render'"


class OpenVINONPU(OpenVINO):
    """On the NPU of an Intel Core Ultra, which takes one size of batch."""

    name = "openvino_npu"
    title = "OpenVINO on an Intel NPU"
    processor: Processor = "npu"
    options = _HINTS
    device = "NPU"
    driver = "install Intel's NPU driver (intel-driver-compiler-npu, intel-level-zero-npu)"

    def lower(self, model: Path, target: Target, out: Path, progress: Progress) -> None:
        """As OpenVINO does. Raises InputError where the batch is dynamic."""
        if target.batch == "dynamic":
            raise InputError(
                f"{target.name} takes no dynamic batch: an NPU's is fixed when it compiles",
                fix="drop `batch='dynamic'`, or name a number",
            )
        super().lower(model, target, out, progress)


class _OpenVINOSession:
    """One infer request. Tensors are set and read by place: handing it a dict of arrays takes
    25 µs more a run, 2.5% of a model of 1 ms."""

    def __init__(self, compiled: Any, outputs: tuple[TensorSpec, ...], tensor: Any) -> None:
        self._request = compiled.create_infer_request()
        self._tensor = tensor
        self.inputs = tuple(_spec(port) for port in compiled.inputs)
        self.outputs = outputs

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        arrays = [np.ascontiguousarray(feed[spec.name]) for spec in self.inputs]  # while it runs
        for i, array in enumerate(arrays):
            self._request.set_input_tensor(i, self._tensor(array, shared_memory=True))
        self._request.infer(share_outputs=True)
        # outputs are views of the request's own memory: copy before the next run writes there
        return {
            spec.name: _shaped(self._request.get_output_tensor(i).data.copy(), spec)
            for i, spec in enumerate(self.outputs)
        }


def _shaped(output: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """`output` as the model declares it: in INT8, OpenVINO keeps an axis of 1 that was squeezed."""
    if output.ndim == len(spec.shape):
        return output
    return output.reshape([-1 if size is None else size for size in spec.shape])


def _spec(port: Any) -> TensorSpec:
    shape = port.get_partial_shape()
    dims = tuple(dim.get_length() if dim.is_static else None for dim in shape)
    return TensorSpec(port.get_any_name(), dims, str(np.dtype(port.get_element_type().to_dtype())))
