"""BLEU of a corpus (Papineni et al., ACL 2002): clipped n-gram precisions and a brevity penalty.

Counts are summed over the corpus before they are divided, so a short caption weighs less than a long one; the length
that a hypothesis is held against is that of the closest reference, the shorter of two that are as close.
"""

import math
from collections.abc import Sequence

from mama_ray.evaluation.caption_metrics.words import count_ngrams

MAX_N = 4


def corpus_bleu(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> list[float]:
    """Return BLEU-1 to BLEU-4, each in [0, 1], of hypotheses with at least one reference each, all as words.

    Without smoothing: where no run of n words is right, BLEU-n and all above are 0.
    """
    matches, totals = [0] * MAX_N, [0] * MAX_N
    hypothesis_length = reference_length = 0
    for words, own_references in zip(hypotheses, references, strict=True):
        hypothesis_length += len(words)
        reference_length += min((abs(len(other) - len(words)), len(other)) for other in own_references)[1]
        for n in range(1, MAX_N + 1):
            most = count_ngrams(own_references[0], n)
            for other in own_references[1:]:
                most |= count_ngrams(other, n)  # a run counts as often as the reference that has it most
            counts = count_ngrams(words, n)
            matches[n - 1] += (counts & most).total()
            totals[n - 1] += counts.total()
    if not hypothesis_length:
        return [0.0] * MAX_N
    penalty = min(1.0, math.exp(1.0 - reference_length / hypothesis_length))
    scores, log_sum = [], 0.0
    for n, (right, total) in enumerate(zip(matches, totals, strict=True), start=1):
        log_sum += math.log(right / total) if right else -math.inf
        scores.append(penalty * math.exp(log_sum / n))
    return scores
