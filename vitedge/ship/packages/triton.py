"""A model repository for NVIDIA's Triton Inference Server.

`config.pbtxt` is a ModelConfig of github.com/triton-inference-server/common's model_config.proto.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from vitedge.core.bundle import LABELS, Bundle
from vitedge.core.errors import InputError
from vitedge.core.manifest import Manifest, Tensor
from vitedge.ship.package import copy_labels, copy_model, options

CONFIG = "config.pbtxt"
VERSION = "1"
NAME_BYTES = 255
"""Of a folder, at most."""
_OPENVINO_PARAMETERS = ("PERFORMANCE_HINT", "NUM_STREAMS")
"""Options of a target that the back end takes, too."""
_ESCAPES = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
_TYPES = {"float16": "FP16", "float32": "FP32", "float64": "FP64"}
_TYPES |= {name: name.upper() for name in ("bool", "uint8", "int8", "int16", "int32", "int64")}


class TritonRepository:
    """`NAME/config.pbtxt`, `NAME/labels.txt` and the model in `NAME/1/`."""

    name = "triton"
    title = "Triton model repository"
    runtimes = frozenset(("onnxruntime", "openvino", "tensorrt"))

    def write(self, bundle: Bundle, folder: Path) -> tuple[str, ...]:
        """Raises InputError where its name cannot be a folder's, or Triton lacks a type of data."""
        name = bundle.manifest.name
        plain = Path(name).name == name and not name.startswith(".") and "\0" not in name
        if not plain or not 0 < len(os.fsencode(name)) <= NAME_BYTES:
            raise InputError(
                f"{bundle.path} calls itself {name!r:.80}, which is no name of a folder",
                fix="export it again",
            )
        version = folder / name / VERSION
        version.mkdir(parents=True)
        model, *_ = copy_model(bundle, version)
        copy_labels(bundle, folder / name)
        config = "\n".join(_config(bundle, model)) + "\n"
        (folder / name / CONFIG).write_text(config, encoding="utf-8")
        further = ""
        if bundle.manifest.target.compile.version_compatible:
            further = " --backend-config=tensorrt,version-compatible=true"
        return (f"tritonserver --model-repository=$PWD{further}",)


def _config(bundle: Bundle, model: str) -> Iterator[str]:
    """Line by line."""
    manifest = bundle.manifest
    target = manifest.target
    batch = _max_batch(manifest)
    yield f"name: {quoted(manifest.name)}"
    yield f"backend: {quoted(target.runtime)}"
    yield f"default_model_filename: {quoted(model)}"
    yield f"max_batch_size: {batch}"
    for tensor in manifest.inputs:
        yield f"input {{ {_tensor(tensor, batch)} }}"
    for place, tensor in enumerate(manifest.outputs):
        named = not place and manifest.model.task == "classification"
        labels = f" label_filename: {quoted(LABELS)}" if named else ""
        yield f"output {{ {_tensor(tensor, batch)}{labels} }}"
    kind = "KIND_GPU" if target.runtime == "tensorrt" else "KIND_CPU"
    yield f"instance_group {{ count: 1 kind: {kind} }}"
    if batch:
        best = target.compile.opt_batch
        preferred = f" preferred_batch_size: {best}" if target.runtime == "tensorrt" else ""
        yield f"dynamic_batching {{{preferred} }}"
    for key, value in _parameters(bundle).items():
        yield (f"parameters {{ key: {quoted(key)} value {{ string_value: {quoted(value)} }} }}")


def _max_batch(manifest: Manifest) -> int:
    """Images that one run takes where it takes any number; 0: the batch is an axis as any other."""
    dynamic = all(
        tensor.shape[:1] == ("batch",) for tensor in (*manifest.inputs, *manifest.outputs)
    )
    return manifest.target.compile.max_batch if dynamic else 0


def _tensor(tensor: Tensor, batch: int) -> str:
    shape = [-1 if size == "batch" else size for size in tensor.shape[1 if batch else 0 :]]
    dims = ", ".join(map(str, shape)) or "1"
    reshape = "" if shape else " reshape { shape: [] }"  # Triton has no tensor without an axis
    kind = _TYPES.get(tensor.dtype)
    if kind is None:
        raise InputError(
            f"{tensor.name!r} is of the type {tensor.dtype!r}, which Triton does not have",
            fix=f"it has {', '.join(_TYPES)}",
        )
    return f"name: {quoted(tensor.name)} data_type: TYPE_{kind} dims: [{dims}]{reshape}"


def _parameters(bundle: Bundle) -> dict[str, str]:
    """What the back end takes of a target's options."""
    target = bundle.manifest.target
    threads = {"openvino": "INFERENCE_NUM_THREADS", "onnxruntime": "intra_op_thread_count"}
    parameters = {}
    if target.runtime == "openvino":
        known = options(bundle)
        parameters = {key: known[key] for key in _OPENVINO_PARAMETERS if key in known}
        parameters |= {"HINT_BF16": "YES"} if bundle.manifest.computes_bf16 else {}
    if target.threads and target.runtime in threads:
        parameters[threads[target.runtime]] = str(target.threads)
    return parameters


def quoted(text: str) -> str:
    """A string of protobuf's text format: whatever is in it stays in it."""
    octal = {chr(code): f"\\{code:03o}" for code in (*range(32), 127)}
    table = str.maketrans(octal | _ESCAPES)
    return f'"{text.translate(table)}"'
