"""Models of images and texts (CLIP, SigLIP): their image encoder, and classifiers made of texts."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitedge.core.errors import InputError, error_line, first_few
from vitedge.models.sources.base import ModelRequest, any_file

PROMPT = "a photo of a {}"
"""The text of a class, unless a user says another."""
TEXTS = 64
"""How many go through the text tower at a time."""
AGREEMENT = 1e-4
"""Largest error of logits against the library's own, of the largest of these."""
_OF_TEXTS = ("text_", "logit_")
"""Parts and parameters that an image needs none of, by how their names begin."""


def has_towers(kind: Any) -> bool:
    """Whether a class of transformers compares images with texts, in a space of both."""
    if not (hasattr(kind, "get_image_features") and hasattr(kind, "get_text_features")):
        return False
    gives = kind.forward.__annotations__.get("return", "")
    name = str(getattr(gives, "__name__", gives)).rpartition("|")[2].rpartition(".")[2].strip()
    output = getattr(sys.modules[kind.__module__], name, None)  # of `tuple | CLIPOutput`
    fields = {f.name for f in dataclasses.fields(output)} if output else set()
    return {"logits_per_image", "image_embeds", "text_embeds"} <= fields


def of_texts(key: str) -> bool:
    """Whether a tensor of a checkpoint is of texts alone."""
    return key.startswith(_OF_TEXTS)


class ImageTower(nn.Module):
    """What of `model` makes features of images: projected where it projects, of length 1."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config.vision_config
        self.model = model
        names = [*dict(model.named_children()), *dict(model.named_parameters(recurse=False))]
        for name in filter(of_texts, names):
            delattr(model, name)

    @property
    def of_images(self) -> Any:
        """The library's function that takes `pixel_values`."""
        return self.model.get_image_features

    def forward(self, **inputs: Any) -> dict[str, Tensor]:
        output = self.of_images(**inputs)
        embeds = output.pooler_output  # (B, D), projected
        length = embeds.norm(dim=-1, keepdim=True)
        return {
            "image_embeds": embeds / length,
            "last_hidden_state": output.last_hidden_state,
        }


class ZeroShot(ImageTower):
    """The same, and a Linear on these features whose rows are texts: logits (B, classes)."""

    def __init__(self, model: Any, head: nn.Linear) -> None:
        super().__init__(model)
        self.head = head

    def forward(self, **inputs: Any) -> dict[str, Tensor]:
        outputs = super().forward(**inputs)
        return {"logits": self.head(outputs["image_embeds"]), **outputs}


def tower(model: Any, name: str, request: ModelRequest) -> ImageTower:
    """The image tower of `model`, with a classifier where the request names classes.

    `name`: the folder or hub ID of its tokenizer. Raises InputError.
    """
    if not request.classes:
        return ImageTower(model)
    source = f"hf:{name}"
    if not hasattr(model, "logit_scale"):
        raise InputError(
            f"{source}: {type(model).__name__} has no `logit_scale` to make logits of texts with",
            fix="drop `classes`, or give a CLIP or SigLIP",
        )
    if request.shapes_only:
        return ZeroShot(model, _shape_of_head(model, len(request.classes)))
    tokens = tokenized(name, model, request)
    with torch.no_grad():
        head = _head(model, tokens)
        _check(model, head, tokens[0], source)
    return ZeroShot(model, head)


def note(kind: Any, request: ModelRequest) -> str:
    """How the classes came to be."""
    return (
        f"{kind.__name__}'s text tower made its last layer of {len(request.classes)} classes, "
        f"each as '{request.prompt or PROMPT}'"
    )


def tokenized(name: str, model: Any, request: ModelRequest) -> list[Mapping[str, Tensor]]:
    """The texts of all classes as the text tower takes them, `TEXTS` at a time.

    Raises InputError for a tokenizer that is not there or another model's, for texts that are too
    long, and for classes of one text.
    """
    source, classes = f"hf:{name}", request.classes
    prompt = request.prompt or PROMPT
    texts = [prompt.replace("{}", label) for label in classes]
    config, tokenizer = model.config.text_config, _tokenizer(name, source)
    limit = min(config.max_position_embeddings, tokenizer.model_max_length)
    rows = tokenizer(texts)["input_ids"]
    long = [
        f"'{label}' ({len(row)})"
        for label, row in zip(classes, rows, strict=True)
        if len(row) > limit
    ]
    if long:
        raise InputError(
            f"{source} takes texts of {limit} tokens, and these classes are longer with `prompt` "
            f"'{prompt}': {first_few(long)}",
            fix="give shorter names in `classes`, or a shorter `prompt`",
        )
    first: dict[tuple[int, ...], str] = {}
    for label, row in zip(classes, rows, strict=True):
        same = first.setdefault(tuple(row), label)
        if same != label:
            raise InputError(
                f"{source}: classes '{same}' and '{label}' are the same text to its tokenizer",
                fix="drop one of them from `classes`, or say more of both",
            )
    largest = max(map(max, rows))
    if largest >= config.vocab_size:
        raise InputError(
            f"{source}: its tokenizer gives token {largest}, and its text tower knows "
            f"{config.vocab_size}",
            fix="save the tokenizer that belongs to the model beside it",
        )
    whole = "siglip" in model.config.model_type  # trained on texts of full length
    padding: dict[str, Any] = {"padding": "max_length" if whole else True}
    if whole:
        padding["max_length"] = limit
    return [
        tokenizer(texts[start : start + TEXTS], return_tensors="pt", **padding)
        for start in range(0, len(texts), TEXTS)
    ]


def _tokenizer(name: str, source: str) -> Any:
    from transformers import AutoTokenizer

    said = ""
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        files = tuple(type(tokenizer).vocab_files_names.values())
        if any_file(name, (*files, "tokenizer.json")):  # without, it would be an empty one
            return tokenizer
    except ImportError:
        raise
    except Exception as error:  # OS, value, key and hub errors alike
        said = f": {error_line(error)}"
    raise InputError(
        f"{source} has no tokenizer that can be read{said}",
        fix="save its tokenizer there, or drop `classes`",
    )


def _head(model: Any, tokens: Sequence[Mapping[str, Tensor]]) -> nn.Linear:
    """exp(logit_scale) times texts of length 1, and SigLIP's bias: cosines become logits."""
    texts = torch.cat([model.get_text_features(**part).pooler_output for part in tokens])
    texts = texts / texts.norm(dim=-1, keepdim=True)  # (classes, D)
    bias = getattr(model, "logit_bias", None)
    head = nn.Linear(texts.shape[1], len(texts), bias=bias is not None)
    head.weight.copy_(model.logit_scale.exp() * texts)
    if bias is not None:
        head.bias.copy_(bias.expand(len(texts)))
    return head.requires_grad_(False)


def _shape_of_head(model: Any, classes: int) -> nn.Linear:
    """Likewise, on the meta device."""
    length = model.config.text_config.max_position_embeddings
    text = torch.zeros(1, length, dtype=torch.long, device="meta")
    width = model.get_text_features(input_ids=text).pooler_output.shape[-1]
    return nn.Linear(width, classes, bias=hasattr(model, "logit_bias"), device="meta")


def _check(model: Any, head: nn.Linear, tokens: Mapping[str, Tensor], source: str) -> None:
    """Raise InputError unless `head` gives the library's own logits, on an image of noise."""
    size = model.config.vision_config.image_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(
        1, 3, *((size, size) if isinstance(size, int) else size), generator=generator
    )
    outputs = model(pixel_values=pixels, **tokens)
    want = outputs.logits_per_image
    got = head(outputs.image_embeds)[:, : want.shape[1]]
    error = float((got - want).abs().max() / want.abs().max())
    if not error <= AGREEMENT:
        raise InputError(
            f"{source}: {type(model).__name__} compares images and texts in a way of its own "
            f"(logits differ by {error:.1e})",
            fix="drop `classes`, or give a CLIP or SigLIP",
        )
