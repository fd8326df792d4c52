"""The smallest model of each family with attention that timm registers, cut down by rule and saved.

A family is a module of timm's and the words that its names begin with, up to the first of a size.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from tests.support.sweep import Model

SIDE = 128
_WORDS = """
zepto atto femto pico nano xxxxs xxxs xxs xxt xxtiny xs xsmall xtiny xx x wee pwee dwee dpwee mini
n t ti tiny t0 s sm small little dlittle betwixt m m1 m2 medium mediumd intern300m b base l large
large2 xl xlarge xlarge2 xxl xxlarge h huge g giant gigantic giantopt gigantopt enormous
"""
SIZES = _WORDS.split()
"""The smallest first."""
_SIZE = re.compile(
    rf"({'|'.join(SIZES)})|x*[a-z]?\d+.*|(r|s|p|sa|ma|ti|mci|xxs|xs|so|intern|lite)\d+.*"
    r"|(patch|window)\d+"
)
CUTS: tuple[dict[str, Any], ...] = (
    {"depth": 2},
    {"depths": (2, 2, 2, 2)},
    {"depths": (2, 2, 2)},
    {"layers": (2, 2, 2, 2)},
    {},
)
"""Arguments that make a model shallow, the first that its constructor takes."""
CANDIDATES = 3
"""Of a family: those whose names say that they are the smallest."""


def families() -> dict[tuple[str, str], list[str]]:
    """Every model but those of timm's tests, by module and family; the smallest names first."""
    import timm

    grouped = defaultdict(list)
    for module in timm.list_modules():
        for name in timm.list_models(module=module):
            if not name.startswith("test_"):
                grouped[module, family(name)].append(name)
    return {key: sorted(names, key=_rank) for key, names in grouped.items()}


def family(name: str) -> str:
    """`vit_relpos` of `vit_relpos_small_patch16_224`."""
    words = name.split("_")
    kept = [re.sub(r"[1-9]\d+[a-z]*$", "", words[0])]  # botnet26t is of the family botnet
    for word in words[1:]:
        if _SIZE.fullmatch(word):
            break
        kept.append(word)
    return "_".join(kept)


def _rank(name: str) -> tuple[int, int, str]:
    words = re.findall(r"[a-z]+|\d+", name)
    sizes = [SIZES.index(word) for word in words if word in SIZES]
    numbers = [int(word) for word in words if word.isdigit()]
    return min(sizes, default=len(SIZES)), sum(numbers), name


def smallest(key: tuple[str, str], names: list[str]) -> dict[str, Any]:
    """The smallest model of a family, where that has attention: it multiplies two activations."""
    first = _unmade(names[0])
    if not _multiplies_activations(first):
        return {"model": [*key, names[0]], "attention": False}
    sizes = {_count(first): names[0]}
    sizes |= {_count(_unmade(name)): name for name in names[1:CANDIDATES]}
    return {"model": [*key, sizes[min(sizes)]], "attention": True}


def _unmade(name: str) -> Any:
    """A model on the meta device."""
    import timm
    import torch

    try:
        with torch.device("meta"):
            return timm.create_model(name)
    except Exception:  # some compute tables as they are made
        return timm.create_model(name).to("meta")


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _multiplies_activations(module: Any) -> bool:
    """Whether it multiplies two matrices of which none is a weight."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    products = []
    weights = {p.untyped_storage()._cdata for p in module.parameters()}

    class Products(TorchDispatchMode):
        def __torch_dispatch__(
            self, op: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if "attention" in str(op):
                products.append(op)
            if op._overloadpacket in (torch.ops.aten.bmm, torch.ops.aten.baddbmm):
                storages = {a.untyped_storage()._cdata for a in args[-2:]}
                if not storages & weights:
                    products.append(op)
            return op(*args, **(kwargs or {}))

    size = module.pretrained_cfg["input_size"]
    with torch.no_grad(), Products():
        module.eval()(torch.zeros(1, *size, device="meta"))
    return bool(products)


def write(model: Model, folder: str) -> dict[str, Any]:
    """Save `model`, small, as timm saves one."""
    import timm
    import torch
    from timm.models._hub import save_for_hf

    from vitedge.core.spec import Preprocess
    from vitedge.models.sources import random_weights

    error: Exception | None = None
    for cut in CUTS:
        for side in (SIDE, None):
            for sized in ({"img_size": side}, {}) if side else ({},):
                try:
                    torch.manual_seed(0)
                    module = timm.create_model(model.architecture, **cut, **sized).eval()
                    size = (side, side) if side else module.pretrained_cfg["input_size"][1:]
                    with torch.no_grad():
                        module(torch.rand(1, 3, *size))
                    random_weights.spread(module, Preprocess(height=size[0], width=size[1]))
                    save_for_hf(
                        module,
                        folder,
                        model_args={**cut, **sized},
                        data_config={"input_size": (3, *size)},
                        safe_serialization=False,  # safetensors takes no shared tensors: CoaT
                    )
                except Exception as failure:  # a size or an argument that it does not take
                    error = error or failure
                    continue
                plan = ", ".join((f"{size[0]} px", *(f"{k} {v}" for k, v in cut.items())))
                return {"plan": plan, "params": _count(module), "given": {}}
    raise error or AssertionError
