"""An FP32 export and calibration images into INT8 or FP8 ONNX files, and the record of how."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge.core import manifest
from vitedge.core.bundle import Golden
from vitedge.core.errors import InputError
from vitedge.core.progress import Steps
from vitedge.core.spec import INT4_OPSET, Calibration, NumberFormat, Target
from vitedge.core.step_cache import Slot
from vitedge.data.calibration import CalibrationImages, batched
from vitedge.quant.bfloat16 import int8_rest
from vitedge.quant.half import lower

if TYPE_CHECKING:
    from vitedge.graph.run import Fp32Graph
    from vitedge.quant.observe import Keep
    from vitedge.quant.parameters import Calibrated


TOKEN_DB = 20.0
"""Of the worst token of a layer's output, what its own rounding must leave."""


@dataclass(frozen=True)
class Int8:
    """The quantized ONNX file, and the manifest's record of how it came to be."""

    path: Path
    """Its floats in float32: what is measured here."""
    deployed: Path
    """As the target takes it: the same file, or one with its floats in float16."""
    record: manifest.QuantizationRecord
    number_format: NumberFormat
    half: manifest.Half | None = None
    """None unless floats are in float16."""
    bf16: manifest.Bf16 | None = None
    """None unless the target computes floats in BF16."""
    rounded: Path | None = None
    """The file with float results rounded to bfloat16, where they are computed so."""

    @property
    def simulated(self) -> Path:
        """What it computes, as a file for any CPU."""
        return self.rounded or self.deployed


@dataclass(frozen=True)
class TrainedGraph:
    """PTQ's result, trained on."""

    calibrated: Calibrated
    record: manifest.Trained
    outputs: NDArray[np.float64]
    """What was trained gives for the golden images."""


class Train(Protocol):
    """QAT: what goes on from PTQ's result, where a user asks for it."""

    def check(self, exported: Fp32Graph, golden: Golden) -> None:
        """Raises InputError where the graph cannot be trained: before it is calibrated."""
        ...

    def __call__(self, calibrated: Calibrated, golden: Golden) -> TrainedGraph: ...


class Quantizer:
    """Calibrates one export for one target once, and writes it with any layers kept in float."""

    def __init__(
        self,
        exported: Fp32Graph,
        target: Target,
        images: CalibrationImages,
        steps: Steps,
        train: Callable[[Calibrated], TrainedGraph] | None = None,
        *,
        spare: bool = True,
        statistics: Slot | None = None,
    ) -> None:
        """With `train`, what it makes of PTQ's result is what is written, all of it in INT8.

        Without `spare` so is PTQ's: a user's bound decides what stays in float. The pass over the
        images is kept in `statistics`.
        """
        self._statistics = statistics
        self._spare = spare and train is None
        self._exported, self._target = exported, target
        self._images, self._steps, self._train = images, steps, train
        self._in_two: frozenset[str] = frozenset()
        self._examined: tuple[Int8, manifest.QuantizationRecord] | None = None

    def write(self, folder: Path, in_float: Mapping[str, str] = {}) -> Int8:
        """Write `folder/model.onnx`; the nodes in `in_float` stay so for the reason given.

        Where one scale ruins a token for a Linear, and the target takes that, it is read in two
        parts.
        """
        int8 = self._write(folder, in_float)
        if not in_float and not self._in_two and self._reads_in_two():
            self._in_two = _ruined(self.examine(int8))
            if self._in_two:
                shutil.rmtree(folder)
                return self._write(folder, in_float)
        return int8

    def _reads_in_two(self) -> bool:
        """Whether Linears may read in two parts: with 4-bit weights that saves no token."""
        eight_bits = self._images.recipe.weight_bits == 8
        return self._target.quantization.rest_products and eight_bits and self._train is None

    def _write(self, folder: Path, in_float: Mapping[str, str]) -> Int8:
        from vitedge.graph import io as files
        from vitedge.quant.qdq import quantize

        calibrated, (_, tried) = self._calibrated, self._ptq
        path = folder / "model.onnx"
        model, layers = quantize(calibrated, self._steps, in_float)
        folder.mkdir()
        files.write(model, path)
        record = manifest.QuantizationRecord(
            scheme=_scheme(self._images.recipe, self._target),
            layers=tuple(layers),
            calibration=self._images.record(),
            settled=manifest.Settled(
                equalize=calibrated.settings.equalize,
                activations=calibrated.settings.activations,
                tried=tuple(tried),
            ),
            equalization=manifest.Equalization(
                pairs=calibrated.pairs, max_rel_error=calibrated.max_rel_error
            ),
            training=self.trained.record if self.trained else None,
            rounding=calibrated.rounding,
            spared=calibrated.spared,
        )
        images, source = calibrated.images, self._images.images.name
        number_format = self._target.quantization.number_format
        if self._target.bf16_options:
            rounded, bf16 = int8_rest(path, calibrated.path, images, source, calibrated.orders)
            return Int8(path, path, record, number_format, bf16=bf16, rounded=rounded)
        if self._target.quantization.floats == "fp32":
            return Int8(path, path, record, number_format)
        total = sum(map(len, images))  # few
        half_folder, batches = folder / "fp16", partial(iter, images)
        fp16 = lower(path, calibrated.path, half_folder, batches, total, source, self._steps)
        _check_planned(fp16.deployed, layers, self._target)
        return Int8(path, fp16.deployed, record, number_format, fp16.half)

    def harm(self, int8: Int8, outputs: int = 1) -> dict[str, float]:
        """Noise over signal at the worst of so many outputs with each layer of `int8` alone in it.

        `int8` has every layer quantized; a few calibration images tell.
        """
        import onnx

        from vitedge.quant.sensitivity import harm

        calibrated, model = self._calibrated, onnx.load(int8.path)
        layers = [layer.node for layer in int8.record.layers if layer.quantized or layer.stored]
        images, orders, rule = calibrated.images, calibrated.orders, calibrated.detection
        return harm(calibrated.path, model, layers, images, self._steps, orders, outputs, rule)

    def examine(self, int8: Int8) -> manifest.QuantizationRecord:
        """The record of `int8`, with what each of its layers loses."""
        from vitedge.quant.layers import examine

        if self._examined and self._examined[0] is int8:
            return self._examined[1]
        calibrated, layers = self._calibrated, int8.record.layers
        self._steps.say("measuring every layer")
        nodes = [layer.node for layer in layers]
        figures = examine(calibrated.path, int8.path, nodes, calibrated.images[0])
        examined = [
            msgspec.structs.replace(layer, figures=figures.get(layer.node)) for layer in layers
        ]
        record = msgspec.structs.replace(int8.record, layers=tuple(examined))
        self._examined = int8, record
        return record

    @property
    def _calibrated(self) -> Calibrated:
        """What is written: PTQ's result, trained on where that was asked."""
        if self.trained:
            return self.trained.calibrated
        return replace(self._ptq[0], in_two=self._in_two)

    @cached_property
    def trained(self) -> TrainedGraph | None:
        """What training has made of PTQ's result; None where it was not asked."""
        return self._train(self._ptq[0]) if self._train else None

    @cached_property
    def _ptq(self) -> tuple[Calibrated, list[manifest.Tried]]:
        """What was measured on the calibration images, and the recipes tried on them."""
        from vitedge.quant.adapt import adapt
        from vitedge.quant.calibrate import calibrate
        from vitedge.quant.spare import spare_layers, spare_outputs, spare_values

        images, target = self._images, self._target
        batches = batched(images, target.batch_size)
        exported = self._exported
        specs = (exported.output, *exported.further)
        orders = tuple(exported.orders.get(spec.name, "") for spec in specs)
        calibrated, tried = calibrate(
            self._source(),
            batches,
            images.recipe,
            target.quantization,
            self._steps,
            orders,
            exported.detection,
            *([self._kept(self._statistics)] if self._statistics else []),
        )
        calibrated = spare_values(calibrated)  # before weights make up for what it costs
        if not self._train:  # training finds its own rounding
            again = partial(batched, images, target.batch_size)
            calibrated = adapt(calibrated, images.recipe, again, self._steps)
        calibrated = spare_outputs(calibrated)
        return (spare_layers(calibrated, self._steps) if self._spare else calibrated), tried

    def _kept(self, slot: Slot) -> Keep:
        from vitedge.quant.kept_pass import KeptPass

        folder = self._exported.path.parent / f"statistics-{self._target.name}"
        return KeptPass(slot, self._images, folder)

    def _source(self) -> Path:
        """The FP32 file to quantize: the export, or its attention in the form the target fuses."""
        if not self._target.quantization.fused_attention:
            return self._exported.path
        from vitedge.graph.prepare import prepare

        path = self._exported.path.with_name(f"attention-{self._target.name}.onnx")
        fixed, *sizes = self._exported.input.shape
        shape = (fixed or 2, *(size or 1 for size in sizes))  # of one image, no axis tells a batch
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        prepare(self._exported.path, path, images)
        return path


def _ruined(examined: manifest.QuantizationRecord) -> frozenset[str]:
    """Linears of whose worst token one scale leaves too little."""
    return frozenset(
        layer.node
        for layer in examined.layers
        if layer.quantized and (layer.op, layer.role) == ("MatMul", "linear")
        if layer.figures and layer.figures.token_sqnr_db is not None
        if layer.figures.token_sqnr_db < TOKEN_DB
    )


def _check_planned(deployed: Path, layers: Sequence[manifest.Layer], target: Target) -> None:
    """Refuse a graph in which a product that was quantized reads floats after all.

    A compiler says nothing of it: it computes what stands there, in float.
    """
    import onnx

    from vitedge.graph.structure import Structure

    graph = Structure(onnx.load(deployed, load_external_data=False))
    planned = {node.name for node, operands in graph.products() if None not in operands}
    placed = [layer for layer in layers if layer.quantized]
    lost = [layer for layer in placed if layer.node not in planned]
    if lost:
        kind = target.quantization.number_format.upper()
        raise InputError(
            f"{len(lost)} of {len(placed)} products that are to be {kind} on {target.name} read "
            f"floats in the graph it gets, {lost[0].op} '{lost[0].node}' first: Casts stand "
            "between it and its DequantizeLinear",
            fix=f"export it with opset {target.opset_min} or later, and report the model",
        )


def _scheme(recipe: Calibration, target: Target) -> str:
    """What is quantized to what, in words."""
    if target.quantization.number_format == "fp8":
        return manifest.FP8_SCHEME
    if recipe.weight_bits == 8:
        return manifest.INT8_SCHEME
    stored = "INT4" if target.opset >= INT4_OPSET else "INT8"
    return (
        "symmetric QDQ: INT8 activations per tensor, 4-bit weights per output channel, "
        f"stored as {stored}"
    )
