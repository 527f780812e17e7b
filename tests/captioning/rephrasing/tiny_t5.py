"""Tiny T5s in folders that transformers loads: of random weights, or taught here to say a sentence in other words."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.facts import facts_of
from mama_ray.data.synthetic.grammar import Statement, render_caption

PREFIX = "paraphrase:"


def build_tokenizer(texts: Sequence[str]):
    """Return a T5 tokenizer that knows the words of some texts, and letters for all others."""
    from transformers import T5Tokenizer

    words = sorted({word for text in texts for word in text.split()} | {PREFIX})
    letters = [chr(code) for code in range(33, 127)]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -8.0)]
    vocab += [(f"▁{word}", -4.0) for word in words] + [(letter, -10.0) for letter in letters]
    vocab += [(f"<extra_id_{number}>", 0.0) for number in (1, 0)]
    return T5Tokenizer(vocab=vocab, extra_ids=2)


def build_t5(vocab_size: int, *, seed: int = 0, width: int = 64, spread: float = 6.0, ends: float = 4.0):
    """Return a T5 of two layers; `spread` is the size of its random weights, whose answers differ the more, `ends` that
    of its weights for the end of an answer."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=vocab_size,
        d_model=width,
        d_kv=width // 4,
        d_ff=2 * width,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        initializer_factor=spread,
        feed_forward_proj="relu",
    )
    config.update({"decoder_start_token_id": 0})
    model = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.shared.weight[1] *= ends  # else a model of random weights hardly ever ends an answer
    return model


def write_t5(folder: Path, texts: Sequence[str], *, seed: int = 0, spread: float = 6.0, ends: float = 4.0) -> Path:
    """Write a T5 of random weights with a tokenizer of the words of some texts."""
    tokenizer = build_tokenizer(texts)
    build_t5(len(tokenizer), seed=seed, spread=spread, ends=ends).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pairs_of(corpus: CorpusConfig, count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return pairs of captions that say the same, drawn from the grammar of the embedded corpus."""
    rng = np.random.default_rng(seed)
    statements = [Statement(facts_of(corpus, "train", number % corpus.num_train)) for number in range(count)]
    return [
        (render_caption(one, rng, texts=corpus.texts), render_caption(one, rng, texts=corpus.texts))
        for one in statements
    ]


def train_t5(folder: Path, corpus: CorpusConfig, *, num_steps: int = 500, batch_size: int = 64) -> Path:
    """Write a T5 that learned here to say captions of a corpus in other words of its grammar."""
    pairs = pairs_of(corpus, num_steps * batch_size)
    tokenizer = build_tokenizer([text for pair in pairs[:4000] for text in pair])
    model = build_t5(len(tokenizer), spread=1.0, width=64).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=num_steps, pct_start=0.1)
    for step in range(num_steps):
        batch = pairs[step * batch_size : (step + 1) * batch_size]
        inputs = tokenizer([f"{PREFIX} {source} </s>" for source, _ in batch], padding=True, return_tensors="pt")
        labels = tokenizer([target for _, target in batch], padding=True, return_tensors="pt").input_ids
        labels[labels == tokenizer.pad_token_id] = -100
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
