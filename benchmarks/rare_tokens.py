"""A token of 100 times the norm: what reading in two INT8 parts saves of the others, and costs.

The first block of the trained digits, and a Linear, a neck, that reads the residual stream as it
is: after more blocks it is their noise that the worst token has.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import torch
from torch import nn

import vitedge as ve
from benchmarks import peers
from vitedge.measure.latency.clock import measure
from vitedge.models.zoo.vit import VisionTransformer
from vitedge.runtimes import open_session

RATIO, TOKEN, TOKEN_DB = 100, 5, 20.0
MODEL = "digits"


class Neck(nn.Module):
    """The tokens (B, N, D) of a ViT's first block, through a Linear."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit
        self.neck = nn.Linear(vit.config.width, vit.config.width)

    def forward(self, x):
        vit = self.vit
        x = vit.patch_embed(x)
        x = torch.cat([vit.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + vit.pos_embed
        return self.neck(vit.blocks[0](x))


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--duration", type=float, default=10.0, help="seconds for each session")
    options = parser.parse_args()
    print(peers.host())
    torch.manual_seed(0)
    reference = ve.load(MODEL)
    spec, module = reference.identity.preprocess, Neck(reference.content).eval()
    with torch.no_grad():
        x = torch.randn(1, 3, spec.height, spec.width)
        usual = module.vit.blocks[0](module.vit.patch_embed(x)).norm(dim=-1).median()
        direction = torch.randn(module.vit.config.width)
        module.vit.pos_embed[0, TOKEN] = RATIO * usual * direction / direction.norm()
    model = ve.load(module, preprocess=spec, task="features", name="neck")
    rows = []
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
        for runtime in peers.RUNTIMES:
            rows.append(_compare(model, runtime, Path(name), options))
    peers.table(("", "in two parts", "worst token dB", "one scale", "in two parts, × time"), rows)
    for runtime, _, worst_db, *_ in rows:
        peers.verdict(f"{runtime}: {worst_db} dB (≥ {TOKEN_DB:g})", float(worst_db) >= TOKEN_DB)


def _compare(model, runtime, folder, options):
    """The row of one runtime."""
    target = peers.target_here(runtime)
    shipped = (Path(__file__).parents[1] / "targets" / f"{target.name}.toml").read_text()
    file = folder / f"{runtime}.toml"
    name = f'name = "{target.name}"'
    changes = {name: f'{name[:-1]}-one-scale"', "rest_products = true": "rest_products = false"}
    for text, other in changes.items():
        assert text in shipped, text
        shipped = shipped.replace(text, other)
    file.write_text(shipped)
    two, coarse = (
        ve.export(
            model,
            targets=[kind],
            precision="int8",
            only=True,
            calib_data=MODEL,
            eval_data=MODEL,
            duration_s=0,
            output=folder,
        )[-1]
        for kind in (target.name, str(file))
    )
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(open_session(result.bundle)) for result in (two, coarse)]
        feeds = [{session.inputs[0].name: peers.digits()[0][0]} for session in sessions]
        timed = measure(sessions, feeds, options.duration)
    layers = two.bundle.manifest.quantization.layers
    return (
        target.name,
        str(sum("in two parts" in layer.why for layer in layers)),
        *(f"{export.report.numerics.worst_token_db:.1f}" for export in (two, coarse)),
        f"{timed.speedup(0, 1)[0] ** -1:.2f}",
    )


if __name__ == "__main__":
    main()
