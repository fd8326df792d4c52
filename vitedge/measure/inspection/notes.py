"""What a user should see of an artifact beside its numbers, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from vitedge.core.manifest import Compiled, Control, Manifest, Trained


def facts(manifest: Manifest) -> Iterator[str]:
    """What a user should see of an artifact beside its numbers, a line or more each."""
    if manifest.quantization and manifest.quantization.control:
        yield control(manifest.quantization.control)
    if manifest.quantization and manifest.quantization.training:
        yield trained(manifest.quantization.training)
    yield from compilation(manifest)


def compilation(manifest: Manifest) -> Iterator[str]:
    """What the compiler made of an artifact's INT8, where one was at hand."""
    if manifest.build and manifest.build.compiled and manifest.build.compiled.planned:
        yield compiled(manifest.build.compiled)


def control(record: Control) -> str:
    """What accuracy control did, and what it cost."""
    cost, lost = record.cost, f"{record.drop_pp:.2g} lost, {record.full_drop_pp:.2g} without"
    faster, slower = f"{cost.speedup:.2f}× faster", f"{1 / cost.speedup:.2f}× slower"
    return (
        f"kept {len(record.kept)} of {record.layers} layers in float to stay within "
        f"{record.max_drop_pp:g} points ({lost}): {cost.slowdown:.2f}× the latency of full INT8, "
        f"{faster if cost.speedup >= 1 else slower} than FP32"
    )


def trained(training: Trained) -> str:
    """What training did, by the images that were kept apart."""
    first = training.looks[0]
    best = next(look for look in training.looks if look.step == training.best_step)
    right = ""
    if first.accuracy is not None and best.accuracy is not None:
        right = f", {first.accuracy:.2%} to {best.accuracy:.2%} right"
    parity = (
        ""
        if training.parity is None
        else f"; what was trained is computed within {training.parity:.1e}"
    )
    return (
        f"trained for {training.steps} steps on {training.images} images of {training.source}: on "
        f"{training.held_out} held out, the loss fell from {first.loss:.3g} to {best.loss:.3g} "
        f"(step {training.best_step}){right}{parity}"
    )


def compiled(record: Compiled) -> str:
    """What a compiler made of a graph, one line; and one more for each product that lost INT8."""
    line = (
        f"{record.int8} of {record.planned} planned products in INT8, {record.fused} of "
        f"{record.attention} attentions fused ({record.compiler}, {record.compute_capability})"
    )
    return "\n".join([line, *(f"  {node} is not: {why}" for node, why in record.lost.items())])
