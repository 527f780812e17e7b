"""ROUGE-L (Lin, 2004) as captioning reports it: the longest common subsequence, F with beta 1.2.

Precision and recall are each the best over the references, which need not be the same one for both.
"""

from collections.abc import Sequence

BETA = 1.2


def mean_rouge_l(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> float:
    """Return the mean over items, in [0, 1], of hypotheses with at least one reference each, all as words."""
    scores = [rouge_l(words, own) for words, own in zip(hypotheses, references, strict=True)]
    return sum(scores) / len(scores) if scores else 0.0


def rouge_l(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return F of one hypothesis: (1 + b^2) P R / (R + b^2 P); 0 where nothing is common."""
    precision = recall = 0.0
    for reference in references:
        common = longest_common_subsequence(hypothesis, reference)
        precision = max(precision, common / len(hypothesis) if hypothesis else 0.0)
        recall = max(recall, common / len(reference) if reference else 0.0)
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Return how many words two captions share in the same order, others between them or not."""
    lengths = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, start=1):
            diagonal, lengths[place] = (
                lengths[place],
                diagonal + 1 if word == other else max(lengths[place], lengths[place - 1]),
            )
    return lengths[-1]
