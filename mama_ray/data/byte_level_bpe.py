"""Training a byte-level BPE, GPT-2's kind of tokenizer: all bytes are in it, so no text is ever unknown."""

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers


def train_byte_level_bpe(texts: Iterable[str], special_tokens: Sequence[str], *, vocab_size: int) -> Tokenizer:
    """Learn merges from texts; the special tokens have the first ids, and a small corpus may yield fewer ids."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend
