"""What a user should see of an artifact beside its numbers, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from vitedge.core.bounds import aims, asked, figures
from vitedge.core.manifest import Compiled, Control, Losses, Manifest, Rounding, Spared, Trained
from vitedge.core.report import Numerics, OutputNumerics
from vitedge.core.spec import Precision
from vitedge.measure.recommendation import MIN_SQNR_DB, queries, sqnr


def facts(manifest: Manifest) -> Iterator[str]:
    """What a user should see of an artifact beside its numbers, a line or more each."""
    if manifest.quantization and manifest.quantization.rounding:
        yield rounded(manifest.quantization.rounding)
    if manifest.quantization and manifest.quantization.spared:
        yield spared(manifest.quantization.spared, manifest.precision)
    if manifest.quantization and manifest.quantization.control:
        yield control(manifest.quantization.control, manifest.precision)
    if manifest.quantization and manifest.quantization.training:
        yield trained(manifest.quantization.training)
    yield from compilation(manifest)


def outputs(manifest: Manifest) -> str:
    """`logits (batch, 10), tokens (batch, 16, 64)`, the main one first."""
    shapes = ", ".join(f"{o.name} ({', '.join(map(str, o.shape))})" for o in manifest.outputs)
    ordered = [output.name for output in manifest.outputs if output.ordered_by]
    if not ordered:
        return shapes
    return f"{shapes}; its own scores order the queries of {' and '.join(ordered)}"


def floats(manifest: Manifest) -> str:
    """What floats are computed in; empty where that is float32 and nothing else was thought of."""
    if manifest.half:
        return f"float16, {len(manifest.half.kept)} operators in float32"
    if manifest.bf16 is None:
        return ""
    if manifest.bf16.why:
        return f"float32: {manifest.bf16.why}"
    where = f", {len(manifest.bf16.kept)} operators in float32" if manifest.bf16.kept else ""
    level = f", {manifest.bf16.sqnr_db:.1f} dB of FP32's '{manifest.bf16.output}'"
    return f"bfloat16{where}{level} on {manifest.bf16.images} images of {manifest.bf16.source}"


MATCHED = (
    "its queries were matched with FP32's, image by image, because the model orders them by its "
    "own scores"
)


def matched(numerics: Numerics) -> Iterator[str]:
    """That queries were matched, and how many are FP32's still."""
    if numerics.kept_queries is not None:
        yield f"{MATCHED}: it {queries(numerics.kept_queries)}"


def fidelity(numerics: Numerics) -> str:
    """How close its outputs are to FP32's, the main one first."""
    return "; ".join(
        f"{name}: {text}" if name else text
        for name, output in (numerics.outputs or {"": numerics}).items()
        for text in [_fidelity(output)]
    )


def _fidelity(output: OutputNumerics) -> str:
    if output.sqnr_db is None:
        return "equal" if output.max_abs_error == 0 else "not finite"
    return sqnr(output)


def hidden(numerics: Numerics) -> Iterator[str]:
    """A warning for each output whose SQNR hides a ruined token."""
    for name, output in (numerics.outputs or {"its output": numerics}).items():
        worst, whole = output.worst_token_db, output.sqnr_db
        if worst is not None and whole is not None and worst < MIN_SQNR_DB <= whole:
            yield (
                f"{name} keeps {worst:.1f} dB in its worst token or pixel, which the "
                f"{whole:.1f} dB over all of it do not show: a few are much larger than the others"
            )


def compilation(manifest: Manifest) -> Iterator[str]:
    """What the compiler made of an artifact's INT8 or FP8, where one was at hand."""
    if manifest.build and manifest.build.compiled and manifest.build.compiled.planned:
        yield compiled(manifest.build.compiled, manifest.precision)


def rounded(record: Rounding) -> str:
    """What was rounded by what layers read, and what that gives."""
    gain = (
        f"{record.sqnr_db:.1f} dB of the output on calibration images, "
        f"{record.nearest_sqnr_db:.1f} with weights rounded to the nearest"
    )
    if not record.adaptive and not record.biases:
        return f"no rounding was better than the nearest: {gain}"
    done = f"rounded {record.adaptive} of {record.layers} weights by what their layers read"
    biases = f"corrected {record.biases} biases"
    parts = [text for text, count in ((done, record.adaptive), (biases, record.biases)) if count]
    few = (
        f"; {len(record.nearest)} to the nearest ({record.nearest[0].why})"
        if record.nearest
        else ""
    )
    return f"{' and '.join(parts)}: {gain}{few}"


def spared(record: Spared, precision: Precision) -> str:
    """What stays in float for the model's output, and what that gives."""
    return (
        f"kept {len(record.kept)} of {record.layers} layers in float: {precision.upper()} left "
        f"the output {record.full_sqnr_db:.1f} dB on calibration images, now {record.sqnr_db:.1f}"
    )


def control(record: Control, precision: Precision) -> str:
    """What accuracy control did, and what it cost."""
    names = asked(record.bounds)
    text = (
        f"kept {len(record.kept)} of {record.layers} layers in float to {aims(record.bounds)} "
        f"({figures(names, record.reached)}; {figures(names, record.full)} without)"
    )
    cost = record.cost
    if cost is None:
        return text
    faster, slower = f"{cost.speedup:.2f}× faster", f"{1 / cost.speedup:.2f}× slower"
    return (
        f"{text}: {cost.slowdown:.2f}× the latency of full {precision.upper()}, "
        f"{faster if cost.speedup >= 1 else slower} than FP32"
    )


def trained(training: Trained) -> str:
    """What training did, by the images that were kept apart."""
    first = training.looks[0]
    best = next(look for look in training.looks if look.step == training.best_step)
    right = ""
    if first.accuracy is not None and best.accuracy is not None:
        right = f", {first.accuracy:.2%} to {best.accuracy:.2%} right"
    ended = ""
    if training.bounds:
        kept = Losses(drop_pp=None, sqnr_db=best.sqnr_db, token_sqnr_db=best.token_sqnr_db)
        reached = figures(asked(training.bounds), kept)
        ended = f", which was to {aims(training.bounds)} ({reached})"
    parity = (
        ""
        if training.parity is None
        else f"; what was trained is computed within {training.parity:.1e}"
    )
    return (
        f"trained for {training.steps} steps on {training.images} images of {training.source}: on "
        f"{training.held_out} held out, the loss fell from {first.loss:.3g} to {best.loss:.3g} "
        f"(step {training.best_step}){right}{ended}{parity}"
    )


def compiled(record: Compiled, precision: Precision) -> str:
    """What a compiler made of a graph, one line; and one more for each product it made float."""
    kept, kind = (record.fp8, "FP8") if precision == "fp8" else (record.int8, "INT8")
    line = (
        f"{kept} of {record.planned} planned products in {kind}, {record.fused} of "
        f"{record.attention} attentions fused ({record.compiler}, {record.compute_capability})"
    )
    return "\n".join([line, *(f"  {node} is not: {why}" for node, why in record.lost.items())])
