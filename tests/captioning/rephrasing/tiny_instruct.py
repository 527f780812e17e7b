"""A tiny Llama of random weights with a chat template, in a folder that transformers and vLLM load."""

from collections.abc import Sequence
from pathlib import Path

import torch

from mama_ray.captioning.narrator.preset import build_tiny_processor

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def write_instruct(
    folder: Path, texts: Sequence[str], *, chat_template: str | None = CHAT_TEMPLATE, seed: int = 0
) -> Path:
    """Write the model; its weights have a size at which what it says depends on what it reads."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tiny_processor(list(texts), "say this in other words", vocab_size=384).tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>"]})
    tokenizer.chat_template = chat_template
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=2.0 * parameter.shape[1] ** -0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
