"""Images of another size than a timm model was trained on: made for them, or what would do.

timm says which models are built for one size, and each constructor whether it takes another.
"""

from __future__ import annotations

from typing import Any

import torch

from vitedge.core.errors import InputError, error_line

STRIDE = 32
"""Of most models' deepest stage, pixels."""
Size = tuple[int, int]


def options_for(name: str, module: Any, size: Size) -> dict[str, Any]:
    """What `create_model` needs for images of `size`, height and width, pixels.

    Raises InputError, with sizes that would do, where the model cannot take them.
    """
    usual = tuple(module.pretrained_cfg.get("input_size", (3, 224, 224))[1:])
    built = getattr(getattr(module, "patch_embed", None), "img_size", None)
    if size == tuple(built or usual):
        return {}
    fixed = built is not None or module.pretrained_cfg.get("fixed_input_size")
    options = {"img_size": size} if fixed else {}
    why = _refuses(name, size, options)
    if not why or _refuses(name, usual, {}):  # a model that no look at its shapes tells of
        return options
    near = [side // STRIDE * STRIDE for side in size]
    others = [(near[0], near[1]), (near[0] + STRIDE, near[1] + STRIDE), usual]
    fit = [
        other for other in others if not _refuses(name, other, {"img_size": other} if fixed else {})
    ]
    sizes = " or ".join(f"{height}×{width}" for height, width in dict.fromkeys(fit))
    raise InputError(
        f"timm's '{name}' takes no images of {size[0]}×{size[1]}: {why}",
        fix=f"set height and width of `preprocess` to {sizes or 'those it was trained on'}",
    )


def _refuses(name: str, size: Size, options: dict[str, Any]) -> str:
    """Why a model takes no images of `size`, by its shapes alone; empty where it does."""
    import timm

    if 0 in size:
        return "no pixels"
    try:
        with torch.device("meta"), torch.no_grad():
            module = timm.create_model(name, pretrained=False, **options)
            module.eval()(torch.zeros(1, 3, *size))
    except Exception as error:  # whatever a constructor or a forward raises
        return error_line(error)
    return ""
