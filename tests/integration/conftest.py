"""Folders of weights that more than one file of tests reads."""

import pytest


@pytest.fixture
def hf_folder(tmp_path, peers):
    """A ViT classifier and its processor, saved by transformers."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        id2label={0: "tench", 1: "goldfish", 2: "white shark"},
    )
    folder = tmp_path / "my-vit"
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    transformers.ViTImageProcessor(size=size, image_mean=[0.4, 0.5, 0.6]).save_pretrained(folder)
    return folder
