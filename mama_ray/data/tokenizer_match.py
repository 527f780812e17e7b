"""Whether a tokenizer is the one that a model's weights were trained with, and what a tokenizer does to captions.

A tokenizer of another model gives ids that mean other words: nothing fails, and every text feature is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mama_ray.data.tokenizer import Tokenizer
from mama_ray.errors import UserError

_MEASURED_AT_ONCE = 4096  # texts: what a tokenizer says of one is some kilobytes
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)


@dataclass(frozen=True)
class TextLayout:
    """What ids a model's text encoder takes; `own` is the tokenizer that came with the weights, where one did."""

    vocab_size: int
    context_length: int
    own: Tokenizer | None = None


@dataclass(frozen=True)
class CaptionCounts:
    """What a tokenizer does to captions.

    Attributes:
        num_captions: captions that were looked at.
        num_cut: those that lose their end, being longer than the context.
        num_unknown: those with a piece that the tokenizer has no id for, or with a special token's name in them: CLIP's
            text encoder takes it for the end.
        context_length: tokens of a caption at most, start and end included.
        longest: tokens of the longest, start and end included.
    """

    num_captions: int
    num_cut: int
    num_unknown: int
    context_length: int
    longest: int


def tokenizer_beside(directory: Path) -> Tokenizer | None:
    """Return the tokenizer in a model's folder, None where there is none."""
    return (
        Tokenizer.from_directory(directory) if any((directory / name).is_file() for name in TOKENIZER_FILES) else None
    )


def refuse_other_tokenizer(tokenizer: Tokenizer, layout: TextLayout, *, name: str, model: str) -> None:
    """Raise UserError unless a tokenizer's ids are those that a model learned, naming both.

    Compared are vocabulary size, context length and ids of the special tokens, and every piece's id where the weights
    came with their own tokenizer. `name` and `model` say where the two come from.
    """
    own = layout.own
    is_clip = tokenizer.is_clip if own is None else own.is_clip
    like = own or tokenizer  # without one beside the weights nothing says which ids their special tokens have
    # Other layouts than CLIP's may have fewer ids than the table of the weights has rows.
    vocab_size = layout.vocab_size if is_clip or own is None else min(own.vocab_size, layout.vocab_size)
    theirs = (vocab_size, layout.context_length, like.start_id, vocab_size - 1 if is_clip else like.eot_id)
    ours = (tokenizer.vocab_size, tokenizer.context_length, tokenizer.start_id, tokenizer.eot_id)
    num_other = 0 if own is None else tokenizer.count_other_pieces(own)
    cuts_otherwise = own is not None and tokenizer.long_texts != own.long_texts
    if ours == theirs and not num_other and not cuts_otherwise:
        return
    other = f", {num_other} pieces or merges of them others" if num_other else ""
    other += f", long_texts {tokenizer.long_texts}" if cuts_otherwise else ""
    raise UserError(
        "the tokenizer is not that of the pretrained weights",
        got=f"{name}: {_describe(*ours)}{other}",
        wanted=f"{model}: {_describe(*theirs)}",
        remedy=_remedy(tokenizer, layout),
    )


def refuse_other_vocabulary(tokenizer: Tokenizer, vocab_size: int, *, model: str) -> None:
    """Raise UserError where the tokenizer in a model's folder has not the vocabulary of the model's weights."""
    if not tokenizer.fits(vocab_size):
        raise UserError(
            "the tokenizer in the model's folder is that of another model: its vocabulary",
            got=tokenizer.vocab_size,
            wanted=f"{vocab_size} as {model} has",
            remedy="put the tokenizer of these weights there",
        )


def count_captions(tokenizer: Tokenizer, texts: Sequence[str]) -> CaptionCounts:
    """Count the captions that a tokenizer cuts, and those with pieces that it does not know."""
    starts = range(0, max(1, len(texts)), _MEASURED_AT_ONCE)
    measured = [tokenizer.measure(texts[start : start + _MEASURED_AT_ONCE]) for start in starts]
    lengths, unknown = (np.concatenate(parts) for parts in zip(*measured, strict=True))
    context = tokenizer.context_length
    return CaptionCounts(
        num_captions=len(texts),
        num_cut=int((lengths > context).sum()),
        num_unknown=int(unknown.sum()),
        context_length=context,
        longest=int(lengths.max(initial=0)),
    )


def tell_counts(counts: CaptionCounts, *, remedy: str, things: str = "captions") -> list[str]:
    """Return what a user should know of the counts, one sentence each; [] where no caption is cut or unknown."""
    told = []
    if counts.num_cut:
        share = _percent(counts.num_cut, counts.num_captions)
        told.append(
            f"{share} {things} are longer than {counts.context_length} tokens and lose their end (the longest has "
            f"{counts.longest}); {remedy}"
        )
    if counts.num_unknown:
        share = _percent(counts.num_unknown, counts.num_captions)
        told.append(f"{share} {things} hold pieces that the tokenizer does not know (where CLIP takes a text to end)")
    return told


def _remedy(tokenizer: Tokenizer, layout: TextLayout) -> str:
    if layout.own is None or (layout.own.is_clip and layout.own.vocab_size != layout.vocab_size):
        return "set data.tokenizer to the folder of the tokenizer that these weights were trained with"
    if layout.own.context_length != layout.context_length:
        return f"write model_max_length {layout.context_length} into tokenizer_config.json beside these weights"
    return "leave data.tokenizer out: the weights bring theirs"


def _describe(vocab_size: int, context_length: int, start_id: int | None, eot_id: int | None) -> str:
    if eot_id is None:
        return f"vocabulary {vocab_size}, context {context_length}"
    return f"vocabulary {vocab_size}, context {context_length}, start token {start_id}, end token {eot_id}"


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole
    return f"{share:.0f} % of" if share >= 10 else f"{share:.1f} % of" if share >= 0.1 else f"{part:,} of {whole:,}"
