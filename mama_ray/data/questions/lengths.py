"""Questions that are longer than a model reads: they lose their end, and are counted and told."""

import logging
from collections.abc import Sequence

import numpy as np

from mama_ray.data.questions.question import Question
from mama_ray.data.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


def count_cut(questions: Sequence[Question], tokenizer: Tokenizer) -> int:
    """Return how many questions are cut at the tokenizer's context length, alone or with one of their options behind
    them, and tell it where there are any.
    """
    texts = [[f"{one.question} {option}" for option in one.options] or [one.question] for one in questions]
    lengths, _ = tokenizer.measure([text for own in texts for text in own])
    owners = np.repeat(np.arange(len(texts)), [len(own) for own in texts])
    num_cut = len(np.unique(owners[lengths > tokenizer.context_length]))
    if num_cut:
        told = (num_cut, len(questions), tokenizer.context_length)
        logger.warning("%d of %d questions are longer than %d tokens and lose their end", *told)
    return num_cut
