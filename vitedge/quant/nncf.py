"""NNCF in the place of our PTQ: it makes the QDQ graph, and the manifest says what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from vitedge.core import manifest
from vitedge.core.errors import InputError
from vitedge.core.numerics import fill_batch
from vitedge.core.progress import Steps
from vitedge.core.spec import Target
from vitedge.data.calibration import CalibrationImages, batched
from vitedge.data.imageset import Batch, ImageSet
from vitedge.graph import io as files
from vitedge.graph.run import Fp32Graph, Runner
from vitedge.graph.structure import PRODUCTS, Structure, dequantize, weight
from vitedge.quant import policy
from vitedge.quant.bfloat16 import int8_rest
from vitedge.quant.int8 import Int8
from vitedge.quant.layers import examine
from vitedge.quant.nncf_package import bound, silent_nncf, title
from vitedge.quant.observe import KEPT_IMAGES

DYNAMIC_BATCH = 8
"""Images per run of accuracy control where the graph takes any number."""

Top1 = Callable[[NDArray[Any], NDArray[np.float32]], float]
"""Share of images that the model has right, of their labels (n,) and logits (n, classes)."""


class NncfQuantizer:
    """Quantizes one export for one target by NNCF, and says of every layer what became of it."""

    trained = None
    """NNCF's graph is not trained on here."""

    def __init__(
        self, exported: Fp32Graph, target: Target, images: CalibrationImages, steps: Steps
    ) -> None:
        self._exported, self._target = exported, target
        self._images, self._steps = images, steps

    def write(self, folder: Path) -> Int8:
        """Write `folder/model.onnx` as `nncf.quantize` makes it."""
        with silent_nncf() as nncf:
            data, options = self._data(nncf), self._options(nncf)
            model = bound(nncf.quantize, self._model(), data, **options)()
        return self._written(model, folder, {})

    def control(
        self, folder: Path, full: Int8, evaluation: ImageSet, top1: Top1, max_drop_pp: float
    ) -> Int8:
        """Write `folder/model.onnx` by `nncf.quantize_with_accuracy_control`.

        It takes layers of `full`, the whole model in INT8, back to float until `top1` on
        `evaluation` drops by no more than `max_drop_pp`, by its own measure: Q and DQ round, what
        is between them is float.
        """
        size = self._exported.input.shape[0] or DYNAMIC_BATCH
        batches = _Passes(lambda: evaluation.batches(size))
        scratch = self._exported.path.with_name("controlled.onnx")

        def validate(model: ModelProto, items: Iterable[Batch]) -> tuple[float, list[float]]:
            files.write(model, scratch)
            run = Runner(scratch, often=True)
            scores, counts = [], []
            for batch in items:
                logits = run(fill_batch(batch.images, size))[0][: len(batch.images)]
                scores.append(top1(batch.labels, logits))
                counts.append(len(batch.images))
            return float(np.average(scores, weights=counts)), scores

        with silent_nncf() as nncf:
            options = self._options(nncf)
            restorer = bound(nncf.AdvancedAccuracyRestorerParameters, num_ranking_workers=1)
            options |= {
                "max_drop": max_drop_pp / 100,
                "advanced_quantization_parameters": options.pop("advanced_parameters"),
                "advanced_accuracy_restorer_parameters": restorer(),
            }
            data = self._data(nncf), nncf.Dataset(batches)
            within = nncf.quantize_with_accuracy_control
            model = bound(within, self._model(), *data, validate, **options)()
        why = f"kept in float by NNCF's accuracy control, to lose {max_drop_pp:g} points at most"
        kept = {layer.node: why for layer in full.record.layers if layer.quantized}
        return self._written(model, folder, kept)

    def examine(self, int8: Int8) -> manifest.QuantizationRecord:
        """The record of `int8`, with what each layer loses, where that can be told."""
        self._steps.say("measuring every layer")
        layers = int8.record.layers
        nodes = [layer.node for layer in layers]
        figures = examine(self._exported.path, int8.path, nodes, self._first[0])
        examined = [
            msgspec.structs.replace(layer, figures=figures.get(layer.node)) for layer in layers
        ]
        return msgspec.structs.replace(int8.record, layers=tuple(examined))

    def _model(self) -> ModelProto:
        return onnx.load(self._exported.path)  # with its weights: NNCF changes them

    def _options(self, nncf: ModuleType) -> dict[str, Any]:
        """What the recipe, the model and the target decide; the rest is NNCF's own default."""
        overflow_fix = {}
        if self._target.quantization.weights == "pair_safe":
            overflow_fix["overflow_fix"] = nncf.OverflowFix.ENABLE
        advanced = bound(
            nncf.AdvancedQuantizationParameters,
            disable_bias_correction=not self._images.recipe.bias_correction,
            **overflow_fix,
        )
        attention = any(layer.role in ("qk", "pv") for layer in self._operators)
        return {
            "model_type": nncf.ModelType.TRANSFORMER if attention else None,
            "subset_size": self._runs,
            "advanced_parameters": advanced(),
        }

    def _data(self, nncf: ModuleType) -> Any:
        """The calibration images as NNCF reads them, in several passes."""
        name, total = self._exported.input.name, self._runs
        seen = 0

        def feed(batch: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
            nonlocal seen
            seen += 1
            done_passes, done = divmod(seen - 1, total)
            self._steps(f"calibrating by NNCF, pass {done_passes + 1}", done + 1, total)
            return {name: batch}

        return nncf.Dataset(_Passes(self._batches), feed)

    def _batches(self) -> Iterator[NDArray[np.uint8]]:
        return batched(self._images, self._target.batch_size)

    @cached_property
    def _runs(self) -> int:
        """Batches of calibration images: those that are of no use are found before NNCF runs."""
        return sum(1 for _ in self._batches())

    @cached_property
    def _first(self) -> list[NDArray[np.uint8]]:
        """The first few of them, to measure on."""
        return list(islice(self._batches(), KEPT_IMAGES))

    @cached_property
    def _operators(self) -> list[manifest.Layer]:
        """What multiplies and accumulates in the FP32 graph, and its role."""
        model = onnx.load(self._exported.path, load_external_data=False)
        return policy.decide(model, self._target.quantization)

    def _written(self, model: ModelProto, folder: Path, kept: Mapping[str, str]) -> Int8:
        """`model` as a file, and its record; layers of `kept` that are float are so for a reason.

        Raises InputError where nothing in it is INT8.
        """
        layers = _decisions(model, self._operators, kept)
        if not any(layer.quantized or layer.stored for layer in layers):
            raise InputError(
                "NNCF quantized nothing of this model",
                fix="pass `calibration='default'`, or ship `precision='fp32'`",
            )
        if self._target.quantization.activations == "uint8":
            _store_as_uint8(model)
        folder.mkdir()
        path = folder / "model.onnx"
        files.write(model, path)
        calibration = self._images.record()
        record = manifest.QuantizationRecord(
            scheme=f"QDQ of {title()}: INT8 activations per tensor, any "
            "zero point, symmetric INT8 weights per output channel",
            layers=tuple(layers),
            calibration=calibration,
            settled=None,
            equalization=None,
        )
        if not self._target.bf16_options:
            return Int8(path, path, record, "int8")
        exported = self._exported
        specs = (exported.output, *exported.further)
        orders = [exported.orders.get(spec.name, "") for spec in specs]
        rounded, bf16 = int8_rest(path, exported.path, self._first, calibration.source, orders)
        return Int8(path, path, record, "int8", bf16=bf16, rounded=rounded)


def _decisions(
    model: ModelProto, operators: Sequence[manifest.Layer], kept: Mapping[str, str]
) -> list[manifest.Layer]:
    """What NNCF decided for every one of `operators`, as its QDQ `model` shows.

    Those inside an If or a loop are not in its graph: they are as they were.
    """
    nodes = {node.name: node for node in Structure(model).nodes}
    layers = []
    for layer in operators:
        node = nodes.get(layer.node)
        if node is None:
            layers.append(layer)
            continue
        operands = [dequantize(value) is not None for value in node.inputs[:2]]
        quantized = all(operands) and layer.op in PRODUCTS
        stored = not quantized and operands[-1] and weight(node.inputs[1]) is not None
        why = kept.get(layer.node, "NNCF left it in float")
        if quantized:
            why = "NNCF quantized what it reads"
        elif stored:
            why = "NNCF quantized its weights alone"
        layers.append(msgspec.structs.replace(layer, quantized=quantized, stored=stored, why=why))
    return layers


def _store_as_uint8(model: ModelProto) -> None:
    """Store INT8 activations as uint8, in place: the same values, each integer 128 higher.

    ONNX Runtime's kernels on x86 are several times faster for these.
    """
    graph = model.graph
    quantize = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    zeros = {node.input[2] for node in quantize if len(node.input) > 2}
    integers = {node.output[0] for node in quantize}
    for tensor in graph.initializer:
        if tensor.name in zeros and tensor.data_type == TensorProto.INT8:
            zero = numpy_helper.to_array(tensor).astype(np.int16) + 128
            tensor.CopyFrom(numpy_helper.from_array(zero.astype(np.uint8), tensor.name))
    for value in graph.value_info:  # NNCF lists initializers there, too
        if value.name in zeros | integers:
            value.type.tensor_type.elem_type = TensorProto.UINT8


class _Passes:
    """Something to iterate over again and again, from its start."""

    def __init__(self, start: Callable[[], Iterator[Any]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[Any]:
        return self._start()
