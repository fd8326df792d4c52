"""What an inspection finds: one row an operator, every scale, and what the target minds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec.structs import asdict

from vitedge.core.manifest import Finding, Layer, Tensor, Trained
from vitedge.core.spec import NumberFormat, Preprocess, Task

SCHEMA = "vitedge.inspection/1"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One operator that holds multiply-accumulates."""

    depth: int
    """Its place among these operators, in graph order, from 1."""
    node: str
    op: str
    role: str
    quantized: bool
    why: str
    stored: bool = False
    """Whether its weights are stored in INT8, and its products float."""
    activation_scales: tuple[float, ...] = ()
    weight_scales: tuple[float, float] | None = None
    """Smallest and largest of its output channels."""
    clipped_share: float | None = None
    sqnr_db: float | None = None
    """Of its output, its own rounding alone; None in float, if exact, or not measured."""
    token_sqnr_db: float | None = None
    """The same of its worst token; None also where it has none."""
    accumulated_sqnr_db: float | None = None
    """Of its output, with all that came before; None if exact or not measured."""
    macs: int | None = None
    """Multiply-accumulates of one image."""


class QuantizedTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of a QDQ graph that has a scale."""

    tensor: str
    kind: Literal["activation", "weight"]
    dtype: str
    scales: tuple[float, float] | None
    """Smallest and largest; None where the graph computes them."""
    zero_points: tuple[int, int] | None
    """Likewise; None also where there are none."""
    axis: int | None
    """None with one scale for the whole tensor."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The rows in one line."""

    operators: int
    quantized: int
    quantized_macs_share: float | None
    """0-1; None where those of an operator are not known."""
    stored: int = 0
    """Those whose weights alone are in INT8."""
    stored_macs_share: float | None = None
    worst: str | None
    """The layer of the lowest own SQNR, of its worst token where it has some."""
    worst_sqnr_db: float | None
    accumulated_sqnr_db: float | None
    """At the last layer."""


class TargetShare(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a float model a target would run in INT8."""

    target: str
    operators: int
    """Those with multiply-accumulates."""
    quantized: int
    macs_share: float | None
    """0-1; None where shapes are open."""
    needs: str
    """What this machine lacks to run it; empty: nothing."""


class Lack(msgspec.Struct, frozen=True, kw_only=True):
    """What an export would miss."""

    what: str
    fix: str


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is, before any export."""

    source: str
    task: Task | None
    """None where its file does not say."""
    parameters: int
    macs: int | None
    """Multiply-accumulates of one image; None where shapes are open."""
    preprocess: Preprocess | None
    """None where its source does not say."""
    classes: int
    """0 of features."""
    labels: tuple[str, ...]
    """Empty where classes have numbers only."""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: dict[str, int]
    """Most frequent first."""
    targets: tuple[TargetShare, ...]
    missing: tuple[Lack, ...]


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What `vitedge inspect` found; `rows` are in graph order."""

    schema: str = SCHEMA
    name: str
    kind: Literal["artifact", "model"]
    about: dict[str, str]
    """What it is and where it came from, for people."""
    target: str | None
    notes: tuple[str, ...]
    number_format: NumberFormat = "int8"
    """What `quantized` layers read."""
    planned: bool = False
    """Whether `quantized` is what the target would do with a float graph."""
    summary: Summary
    layers: tuple[Row, ...]
    quantizers: tuple[QuantizedTensor, ...]
    """Of an ONNX file with Q/DQ."""
    lint: tuple[Finding, ...] | None
    """None where no target was asked for."""
    training: Trained | None = None
    model: ModelFacts | None = None
    """None of an artifact, whose manifest says more."""

    def worst_first(self) -> list[Row]:
        """The rows by own SQNR, of the worst token where they have some; those without last."""
        return sorted(self.layers, key=_own_sqnr_db)


def _own_sqnr_db(row: Row) -> float:
    levels = (row.sqnr_db, row.token_sqnr_db)
    return min((db for db in levels if db is not None), default=math.inf)


def summarize(rows: tuple[Row, ...]) -> Summary:
    """`rows`, in graph order, in one line."""
    macs = total_macs(rows)
    quantized_macs = total_macs([row for row in rows if row.quantized])
    stored = [row for row in rows if row.stored]
    worst = min((row for row in rows if row.sqnr_db is not None), key=_own_sqnr_db, default=None)
    return Summary(
        operators=len(rows),
        quantized=sum(row.quantized for row in rows),
        quantized_macs_share=(quantized_macs or 0) / macs if macs else None,
        stored=len(stored),
        stored_macs_share=(total_macs(stored) or 0) / macs if macs else None,
        worst=worst.node if worst else None,
        worst_sqnr_db=_own_sqnr_db(worst) if worst else None,
        accumulated_sqnr_db=rows[-1].accumulated_sqnr_db if rows else None,
    )


def total_macs(rows: Sequence[Row]) -> int | None:
    """Multiply-accumulates of `rows`; None where those of one are not known."""
    counts = [row.macs for row in rows if row.macs is not None]
    return sum(counts) if len(counts) == len(rows) else None


def rows_of(layers: Sequence[Layer]) -> tuple[Row, ...]:
    """One row a layer of an artifact's manifest, in graph order."""
    rows = []
    for depth, layer in enumerate(layers, start=1):
        fields = asdict(layer)
        figures = fields.pop("figures")
        rows.append(Row(depth=depth, **fields, **(asdict(figures) if figures else {})))
    return tuple(rows)
