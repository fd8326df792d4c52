"""An inspection as tables for people: the layers that lose most, then what the target minds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vitedge.core.manifest import Finding, Tensor
from vitedge.core.spec import Preprocess
from vitedge.core.terminal import printable
from vitedge.measure.inspection import ModelFacts, QuantizedTensor, Row, TargetShare
from vitedge.show.table import Column, Table, Value
from vitedge.show.terminal import tables
from vitedge.show.text import number, plain

if TYPE_CHECKING:
    from vitedge.measure.inspection import Inspection

ROWS = 20
"""Of each table, on a terminal."""


def _listed(scales: tuple[float, ...]) -> str | None:
    return ", ".join(map(number, scales)) or None


def _range(ends: tuple[float, float] | None) -> Value:
    """Smallest and largest; one number where they are equal."""
    return ends[0] if ends and ends[0] == ends[1] else ends


_Row, _Tensor, _Finding = Column[Row], Column[QuantizedTensor], Column[Finding]
_Share = Column[TargetShare]
LAYERS = (
    _Row("depth", "#", "", lambda row: row.depth),
    _Row("node", "layer", "", lambda row: row.node, kind="name"),
    _Row("op", "op", "", lambda row: row.op, kind="word"),
    _Row("quantized", "INT8", "", lambda row: row.quantized, kind="word"),
    _Row("sqnr_db", "SQNR", "dB", lambda row: row.sqnr_db, ".1f"),
    _Row("token_sqnr_db", "worst token", "dB", lambda row: row.token_sqnr_db, ".1f", sparse=True),
    _Row("accumulated_sqnr_db", "so far", "dB", lambda row: row.accumulated_sqnr_db, ".1f"),
    _Row("clipped_share", "clipped", "%", lambda row: row.clipped_share, ".2g"),
    _Row("activations", "activation scale", "", lambda row: _listed(row.activation_scales)),
    _Row("weight_scales", "weight scales", "", lambda row: _range(row.weight_scales)),
    _Row("why", "why", "", lambda row: row.why, kind="text"),
)
TENSORS = (
    _Tensor("tensor", "tensor", "", lambda t: t.tensor, kind="name"),
    _Tensor("kind", "kind", "", lambda t: t.kind, kind="word"),
    _Tensor("dtype", "type", "", lambda t: t.dtype, kind="word"),
    _Tensor("scales", "scales", "", lambda t: _range(t.scales)),
    _Tensor("zero_points", "zero point", "", lambda t: _range(t.zero_points), ".0f"),
    _Tensor("axis", "axis", "", lambda t: "per tensor" if t.axis is None else t.axis, kind="word"),
)
FINDINGS = (
    _Finding("consequence", "consequence", "", lambda f: f.consequence, kind="word"),
    _Finding("rule", "rule", "", lambda f: f.rule, kind="word"),
    _Finding("node", "node", "", lambda f: f.node or "(graph)", kind="name"),
    _Finding("what", "what", "", lambda f: f.what, kind="text"),
    _Finding("fix", "fix", "", lambda f: f.fix, kind="text"),
)


SHARES = (
    _Share("target", "target", "", lambda t: t.target, kind="head"),
    _Share("operators", "in INT8", "", lambda t: f"{t.quantized} of {t.operators}", kind="word"),
    _Share("macs_share", "MACs", "%", lambda t: t.macs_share, ".1f"),
    _Share("needs", "to run it here", "", lambda t: t.needs or "ready", kind="text"),
)


def contents(inspection: Inspection) -> Iterator[Table[Any]]:
    """Each table of an inspection that has rows; layers worst first."""
    order = ", worst first" if inspection.summary.worst else ""
    shares = inspection.model.targets if inspection.model else ()
    layers = () if shares and not inspection.planned else inspection.worst_first()
    eight_bit = inspection.number_format.upper()
    columns = [replace(c, title=eight_bit) if c.key == "quantized" else c for c in LAYERS]
    for table in (
        Table("What a target would run in INT8", SHARES, shares, keeps_empty=True),
        Table(f"Layers{order}", columns, layers, keeps_empty=True),
        Table("Tensors with a scale", TENSORS, inspection.quantizers, keeps_empty=True),
        Table("Lint", FINDINGS, inspection.lint or (), keeps_empty=True),
    ):
        if table.rows:
            yield table


def show(inspection: Inspection) -> None:
    """Print the whole inspection on stdout, notes first."""
    for note in inspection.notes:
        print(f"note: {note}")
    if inspection.model:
        tables.show(tables.listing(("what", ""), list(facts(inspection.model).items())))
    for table in contents(inspection):
        first = replace(table, title="", rows=table.rows[:ROWS])
        tables.show(tables.grid(first, lined=False, padding=1))
    for line in (summary(inspection), left_out(inspection), verdict(inspection)):
        if line:
            print(line)
    for line in missing(inspection):
        print(line)


def facts(model: ModelFacts) -> dict[str, str]:
    """What a model is, in words."""
    words = {
        "source": model.source,
        "task": model.task or "",
        "parameters": plain(model.parameters),
        "MACs": "" if model.macs is None else f"{number(model.macs / 1e9, '.4g')} G an image",
        "preprocessing": _preprocessing(model.preprocess),
        "classes": _classes(model),
        "input": ", ".join(map(_described, model.inputs)),
        "output": ", ".join(map(_described, model.outputs)),
        "operators": ", ".join(f"{count} {name}" for name, count in model.operators.items()),
    }
    return {name: text for name, text in words.items() if text}


def missing(inspection: Inspection) -> Iterator[str]:
    """What an export would miss, a line or two each."""
    for lack in inspection.model.missing if inspection.model else ():
        yield "\n  fix: ".join(filter(None, [f"missing: {lack.what}", lack.fix]))


def _preprocessing(spec: Preprocess | None) -> str:
    if spec is None:
        return "not said"
    size = f"{spec.height}×{spec.width}"
    side = spec.resize_px or size
    resized = {
        "exact": f"squashed to {side}",
        "shorter_side": f"shorter side to {side}" if spec.resize_px else "shorter side fits",
        "inside": f"fits into {side}",
        "shorter_then_inside": f"shorter side to {side}, then fits into {size}",
        "box": f"the box of a person, into {size}",
    }[spec.resize]
    if spec.pad != "none":
        resized += {"end": ", padded to its right and below", "center": ", padded around"}.get(
            spec.pad, f", {spec.pad} margins first"
        )
    mean, std = (", ".join(number(value) for value in values) for values in (spec.mean, spec.std))
    margin = spec.pad == "none" and (spec.resize_px or spec.resize == "shorter_side")
    crop = f", centre {size}" if margin else ""
    exif = ", EXIF ignored" if spec.exif == "ignore" else ""
    return f"{resized} ({spec.interpolation}){crop}, {spec.channels}, mean {mean}, std {std}{exif}"


def _classes(model: ModelFacts) -> str:
    if not model.classes:
        return ""
    named = f": {', '.join(model.labels[:3])}, …" if model.labels else ", without names"
    return f"{model.classes:,}{named}"


def _described(tensor: Tensor) -> str:
    return f"{tensor.name} ({', '.join(str(size or '?') for size in tensor.shape)}) {tensor.dtype}"


def summary(inspection: Inspection) -> str:
    """The whole inspection in one line."""
    total = inspection.summary
    if not total.operators or (inspection.model and not inspection.planned):
        return ""
    verb = "operators would be in" if inspection.planned else "operators in"
    verb = f"{verb} {inspection.number_format.upper()}"
    parts = [f"{total.quantized} of {total.operators} {verb}"]
    if total.quantized_macs_share is not None:
        parts[0] += f" ({number(100 * total.quantized_macs_share, '.1f')}% of the MACs)"
    if total.stored:
        parts.append(f"{total.stored} more with weights alone in INT8")
        if total.stored_macs_share is not None:
            parts[-1] += f" ({number(100 * total.stored_macs_share, '.1f')}%)"
    if total.worst is not None:
        worst = number(total.worst_sqnr_db, ".1f")
        parts.append(f"worst {printable(total.worst)} at {worst} dB")
    if total.accumulated_sqnr_db is not None:
        parts.append(f"{number(total.accumulated_sqnr_db, '.1f')} dB at the last layer")
    if fidelity := inspection.about.get("against FP32"):
        parts.append(f"output {fidelity}")
    return "; ".join(parts)


def left_out(inspection: Inspection) -> str:
    """How much the tables leave out; empty where nothing."""
    layers = inspection.layers if summary(inspection) else ()
    rows = (layers, inspection.quantizers, inspection.lint or ())
    counts = zip(map(len, rows), ("layers", "tensors", "findings"), strict=True)
    parts = [f"{ROWS} of {count} {what}" for count, what in counts if count > ROWS]
    return f"shown: {', '.join(parts)}; JSON and page have all" if parts else ""


def verdict(inspection: Inspection) -> str:
    """What the lint says, in one line; empty where there was none."""
    if inspection.lint is None:
        return ""
    kinds = ", ".join(dict.fromkeys(finding.rule for finding in inspection.lint))
    count = f"{len(inspection.lint)} found ({kinds})" if kinds else "nothing found"
    return f"lint for {inspection.target}: {count}"
