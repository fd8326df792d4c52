"""What a user should see of an artifact beside its numbers, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from vitedge.core.manifest import Compiled, Control, Manifest, Trained


def facts(made: Manifest) -> Iterator[str]:
    """What a user should see of an artifact beside its numbers, a line or more each."""
    if made.quantization and made.quantization.control:
        yield control(made.quantization.control)
    if made.quantization and made.quantization.training:
        yield trained(made.quantization.training)
    yield from compilation(made)


def compilation(made: Manifest) -> Iterator[str]:
    """What the compiler made of an artifact's INT8, where one was at hand."""
    if made.build and made.build.compiled and made.build.compiled.planned:
        yield compiled(made.build.compiled)


def control(found: Control) -> str:
    """What accuracy control did, and what it cost."""
    cost, lost = found.cost, f"{found.drop_pp:.2g} lost, {found.full_drop_pp:.2g} without"
    faster, slower = f"{cost.speedup:.2f}× faster", f"{1 / cost.speedup:.2f}× slower"
    return (
        f"kept {len(found.kept)} of {found.layers} layers in float to stay within "
        f"{found.max_drop_pp:g} points ({lost}): {cost.slowdown:.2f}× the latency of full INT8, "
        f"{faster if cost.speedup >= 1 else slower} than FP32"
    )


def trained(found: Trained) -> str:
    """What training did, by the images that were kept apart."""
    first = found.looks[0]
    best = next(look for look in found.looks if look.step == found.best_step)
    right = ""
    if first.accuracy is not None and best.accuracy is not None:
        right = f", {first.accuracy:.2%} to {best.accuracy:.2%} right"
    parity = (
        "" if found.parity is None else f"; what was trained is computed within {found.parity:.1e}"
    )
    return (
        f"trained for {found.steps} steps on {found.images} images of {found.source}: on "
        f"{found.held_out} held out, the loss fell from {first.loss:.3g} to {best.loss:.3g} "
        f"(step {found.best_step}){right}{parity}"
    )


def compiled(found: Compiled) -> str:
    """What a compiler made of a graph, one line; and one more for each product that lost INT8."""
    line = (
        f"{found.int8} of {found.planned} planned products in INT8, {found.fused} of "
        f"{found.attention} attentions fused ({found.compiler}, {found.compute_capability})"
    )
    return "\n".join([line, *(f"  {node} is not: {why}" for node, why in found.lost.items())])
