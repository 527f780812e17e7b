"""Questions that are longer than a model reads: they lose their end, and are counted and told."""

import logging
from collections.abc import Sequence

import numpy as np

from mama_ray.data.questions.question import Question
from mama_ray.data.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


def count_cut(questions: Sequence[Question], tokenizer: Tokenizer, *, num_between: int = 0) -> int:
    """Return how many questions are cut at the tokenizer's context length, alone or with one of their options behind
    them, `num_between` special tokens between the two.
    """
    texts = [[f"{one.question} {option}" for option in one.options] or [one.question] for one in questions]
    lengths, _ = tokenizer.measure([text for own in texts for text in own])
    owners = np.repeat(np.arange(len(texts)), [len(own) for own in texts])
    lengths += num_between * np.array([bool(one.options) for one in questions], bool)[owners]
    return len(np.unique(owners[lengths > tokenizer.context_length]))


def tell_cut(num_cut: int, num_questions: int, context_length: int) -> None:
    """Warn of questions that are cut, where there are any."""
    if num_cut:
        logger.warning(
            "%d of %d questions are longer than %d tokens and lose their end", num_cut, num_questions, context_length
        )
