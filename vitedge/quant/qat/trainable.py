"""Whether a graph can be trained: asked before anything is calibrated, and answered by name."""

from __future__ import annotations

import numpy as np
import onnx
import torch

from vitedge.core.bundle import Golden
from vitedge.core.errors import InputError
from vitedge.core.numerics import EXPORT_PARITY, fill_batch, relative_error
from vitedge.core.spec import Training
from vitedge.graph.run import Fp32Graph
from vitedge.quant.placement import Placement
from vitedge.quant.qat.network import UNTRAINED, Network, last_norm


def check(exported: Fp32Graph, golden: Golden, settings: Training) -> None:
    """Raises InputError, naming what it is, where something keeps `exported` from being trained.

    That is an operator without a counterpart in torch, or with one that computes something else
    on the golden images; outputs of queries that scores order, which a student orders as it
    likes; and a loss on features where there is no LayerNorm.
    """
    if exported.orders:
        (name, node), *_ = exported.orders.items()
        raise InputError(
            f"'{name}' is of queries that '{node}' orders by their scores: a student's are others "
            "than FP32's, and there is nothing to train them towards",
            fix=UNTRAINED,
        )
    graph = onnx.load(exported.path, load_external_data=False).graph
    if settings.features and not last_norm(graph):
        raise InputError(
            "`features` is a loss on what the last LayerNorm gives, and this model has none",
            fix="set `features` to 0 and train by distillation",
        )
    network = Network(exported.path, Placement(), {}, "fp32", learned=False)
    filled = torch.from_numpy(fill_batch(golden.images, network.batch))
    with torch.no_grad():
        outputs = network(filled)
    main = exported.output.name
    wanted = golden.by_name(main)
    for name, output in zip(wanted, (outputs.logits, *outputs.further), strict=True):
        computed = output[: len(golden.images)].detach().numpy()
        error = relative_error(wanted[name].astype(np.float64), computed)
        if not error <= EXPORT_PARITY:
            raise InputError(
                f"'{name}' is {error:.1e} relative off in training from what the FP32 graph gives: "
                "an operator before it is computed in another way there",
                fix=UNTRAINED,
            )
