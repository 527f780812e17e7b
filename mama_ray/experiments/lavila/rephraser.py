"""A T5 of two layers that is taught to say sentences of the embedded corpus in other words of its grammar.

It stands for the paraphraser that LaViLa takes off the shelf: it knows the language, never the clips that it rephrases
captions of. torch and transformers are imported inside the functions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import ray

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.facts import facts_of
from mama_ray.data.synthetic.grammar import Statement, render_caption
from mama_ray.models.weight_files import WEIGHTS_NAME
from mama_ray.orchestration.cluster.results import result_of

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration, T5Tokenizer

_PREFIX = "paraphrase:"
_SEED_STEP = 1000  # the sentences are of a corpus that no job makes by default
_NUM_STEPS, _BATCH, _LR, _WIDTH = 500, 64, 1e-2, 64
_LETTERS = [chr(code) for code in range(33, 127)]


def taught_rephraser(corpus: CorpusConfig, folder: Path) -> str:
    """Return the folder of the T5, taught in a task unless it is there: about two minutes of one core."""
    if not (folder / "config.json").exists():
        result_of(_teach.remote(corpus.model_copy(update={"seed": corpus.seed + _SEED_STEP}), folder))
    return str(folder)


@ray.remote(num_cpus=1)
def _teach(corpus: CorpusConfig, folder: Path) -> None:
    import torch

    pairs = paraphrases_of(corpus, _NUM_STEPS * _BATCH)
    tokenizer = word_tokenizer([text for pair in pairs for text in pair])
    torch.manual_seed(corpus.seed)
    model = small_t5(len(tokenizer)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LR, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, total_steps=_NUM_STEPS, pct_start=0.1)
    for start in range(0, len(pairs), _BATCH):
        batch = pairs[start : start + _BATCH]
        inputs = tokenizer([f"{_PREFIX} {source} </s>" for source, _ in batch], padding=True, return_tensors="pt")
        labels = tokenizer([target for _, target in batch], padding=True, return_tensors="pt").input_ids
        labels[labels == tokenizer.pad_token_id] = -100
        loss = model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    tokenizer.save_pretrained(folder)
    partial = folder / "partial"
    model.eval().save_pretrained(partial)
    for name in ("generation_config.json", WEIGHTS_NAME, "config.json"):  # config.json makes the folder a model
        (partial / name).replace(folder / name)
    partial.rmdir()


def paraphrases_of(corpus: CorpusConfig, count: int) -> list[tuple[str, str]]:
    """Return pairs of sentences that say the same of a clip."""
    rng = np.random.default_rng(corpus.seed)
    statements = [Statement(facts_of(corpus, "train", number % corpus.num_train)) for number in range(count)]
    return [
        (render_caption(one, rng, texts=corpus.texts), render_caption(one, rng, texts=corpus.texts))
        for one in statements
    ]


def word_tokenizer(texts: Sequence[str]) -> "T5Tokenizer":
    """Return a tokenizer of T5 that knows the words of the texts, and single letters for all others."""
    from transformers import T5Tokenizer

    words = sorted({word for text in texts for word in text.split()} | {_PREFIX})
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -8.0)]
    vocab += [(f"▁{word}", -4.0) for word in words] + [(letter, -10.0) for letter in _LETTERS]
    vocab += [(f"<extra_id_{number}>", 0.0) for number in (1, 0)]
    return T5Tokenizer(vocab=vocab, extra_ids=2)


def small_t5(vocab_size: int) -> "T5ForConditionalGeneration":
    """Return an untrained T5 of two layers."""
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": _WIDTH, "d_kv": _WIDTH // 4, "d_ff": 2 * _WIDTH, "num_layers": 2, "num_heads": 4}
    config = T5Config(vocab_size=vocab_size, **sizes, dropout_rate=0.0, feed_forward_proj="relu")
    config.update({"decoder_start_token_id": 0})
    return T5ForConditionalGeneration(config)
