"""How detectors are read: those of transformers as their image processors post-process them."""

from __future__ import annotations

from vitedge.core.errors import InputError
from vitedge.core.spec import Detection

_SOFTMAX = Detection(scores="softmax")
_HUNDRED = Detection(scores="sigmoid", most=100)
_QUERIES = Detection(scores="sigmoid")
_RULES: dict[Detection, str] = {
    _SOFTMAX: "detr table-transformer yolos",
    _HUNDRED: "conditional_detr dab-detr deformable_detr lw_detr",
    _QUERIES: "rt_detr rt_detr_v2 d_fine deimv2 rf_detr pp_doclayout_v2 pp_doclayout_v3 "
    "pp_doclayout_v4",
}
OF_MODEL = {model: rule for rule, models in _RULES.items() for model in models.split()}
"""By model type. `post_process_object_detection` of its image processor says so."""


def rule_of(model_type: str, source: str) -> Detection:
    """How a detector of that type is read. Raises InputError for one that is not known."""
    if model_type not in OF_MODEL:
        raise InputError(
            f"{source}: how detections are read from model type '{model_type}' is not known",
            fix=f"take its outputs with `task='features'`; known are {', '.join(OF_MODEL)}",
        )
    return OF_MODEL[model_type]


def guessed(columns: int, names: int, model_type: str, notes: list[str]) -> Detection:
    """How a detector is read that is a file or a module, its logits (B, queries, `columns`).

    By its model type where that is known; else, with one name fewer than columns, no-object is the
    last of them. `notes` get a line that says what was assumed.
    """
    rule = OF_MODEL.get(model_type)
    if rule is None:
        rule = _SOFTMAX if names == columns - 1 else _QUERIES
        how = (
            "a softmax over its classes and, last, no object"
            if rule.no_object
            else "a sigmoid of each class (name one class fewer where the last is no object)"
        )
        notes.append(f"it is read as detectors are: scores by {how}, boxes by centre and size")
    return rule
