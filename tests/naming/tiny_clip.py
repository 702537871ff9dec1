"""A CLIP of a few numbers, drawn at random, in the layout of transformers."""

from __future__ import annotations

import json
from pathlib import Path

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_tiny_clip(folder: Path) -> Path:
    """Weights, tokenizer and image processor, as a user's folder has them."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    torch.manual_seed(0)
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    tower = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    ends = dict(bos_token_id=len(pieces) - 2, eos_token_id=len(pieces) - 1, pad_token_id=0)
    config = CLIPConfig(
        text_config=dict(
            **tower, **ends, vocab_size=len(pieces), max_position_embeddings=40, projection_dim=8
        ),
        vision_config=dict(**tower, image_size=16, patch_size=8, projection_dim=8),
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({p: n for n, p in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 40
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    ).save_pretrained(folder)
    return folder
