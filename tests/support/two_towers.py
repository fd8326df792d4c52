"""CLIP and SigLIP as the hub has them, tiny: random weights, processor, a real tokenizer."""

import io
from pathlib import Path

import torch

SIDE = 32
TEXT_TOKENS = 48
CLASSES = ("circle", "square", "triangle", "star", "a white ring")
CORPUS = [f"a photo of a {name}" for name in CLASSES] + ["this is a very long sketch of many dogs"]
TOWER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
FAMILIES = ("clip", "siglip", "siglip2")


def save(family: str, folder: Path) -> Path:
    """A directory of `family` as save_pretrained() leaves it."""
    import transformers

    torch.manual_seed(0)
    tokenizer = TOKENIZERS[family](folder)
    tokenizer.save_pretrained(folder)
    vision = {**TOWER, "image_size": SIDE, "patch_size": 8}
    text = {**TOWER, "max_position_embeddings": TEXT_TOKENS, "vocab_size": len(tokenizer)}
    if family == "clip":
        text |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
        config = transformers.CLIPConfig(
            vision_config=vision, text_config=text, projection_dim=24, logit_scale_init_value=4.0
        )
        model = transformers.CLIPModel(config)
    else:
        config = transformers.SiglipConfig(
            vision_config=vision, text_config={**text, "projection_size": TOWER["hidden_size"]}
        )
        model = transformers.SiglipModel(config)
    with torch.no_grad():  # else a random tower says the same of all texts
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 2 * parameter[0].numel() ** -0.5)
    model.save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    transformers.ViTImageProcessor(size=size).save_pretrained(folder)
    return folder


def _clip(folder: Path):
    """Byte pairs with ends of words, tokenizer.json."""
    import transformers

    return transformers.CLIPTokenizer().train_new_from_iterator(CORPUS * 4, 350)


def _siglip(folder: Path):
    """SentencePiece's own file, spiece.model."""
    import sentencepiece
    import transformers

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4),
        model_writer=model,
        vocab_size=80,
        hard_vocab_limit=False,
        minloglevel=2,
        unk_id=0,
        eos_id=1,
        bos_id=-1,
        pad_id=-1,
    )
    file = folder / "spiece.model"
    file.write_bytes(model.getvalue())
    return transformers.SiglipTokenizer(str(file), model_input_names=["input_ids"])


def _siglip2(folder: Path):
    """Gemma's byte pairs in lower case; `model_type` is siglip where the resolution is fixed."""
    import transformers

    fresh = transformers.Siglip2Tokenizer().train_new_from_iterator(CORPUS * 4, 350)
    fresh.padding_side = "right"
    fresh.model_input_names = ["input_ids"]
    return fresh


TOKENIZERS = {"clip": _clip, "siglip": _siglip, "siglip2": _siglip2}


def library_logits(folder: Path, pixels, classes=CLASSES, prompt="a photo of a {}"):
    """What transformers' own zero-shot pipeline computes, without its images' files."""
    import transformers

    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    padding = {"padding": True}
    if model.config.model_type == "siglip":
        length = model.config.text_config.max_position_embeddings
        padding = {"padding": "max_length", "max_length": length}
    texts = [prompt.format(name) for name in classes]
    tokens = tokenizer(texts, return_tensors="pt", **padding)
    with torch.no_grad():
        return model(pixel_values=pixels, **tokens).logits_per_image
