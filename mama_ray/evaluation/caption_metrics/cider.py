"""CIDEr-D (Vedantam et al., CVPR 2015): n-grams weighed by how rare they are among the references at hand.

The document frequencies come from the references of the corpus that is scored, so scores of subsets of different sizes
cannot be compared; a corpus of one item scores 0, as nothing in it is rare (log 1 = 0).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mama_ray.evaluation.caption_metrics.words import Ngram, count_ngrams

MAX_N = 4
SIGMA = 6.0
_SCALE = 10.0


@dataclass(frozen=True)
class _Vectors:
    """A caption as one vector per n, its norms, and its number of bigrams, which stands for its length."""

    weights: list[dict[Ngram, float]]
    norms: list[float]
    num_bigrams: int


def cider_d(
    hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> tuple[float, list[float]]:
    """Return the mean and each item's score, in [0, 10], of hypotheses with at least one reference each, as words.

        10 / 4 sum_n mean_r [ sum_g min(h_g, r_g) r_g / (|h| |r|) exp(-(b_h - b_r)^2 / 2 sigma^2) ]

    with h_g and r_g = count * (log N - log max(1, df)) and b the number of bigrams (the released code's length).
    """
    frequencies: Counter[Ngram] = Counter()
    for own_references in references:
        frequencies.update({ngram for words in own_references for ngram in _all_ngrams(words)})
    log_num_items = math.log(len(references)) if references else 0.0
    scores = []
    for words, own_references in zip(hypotheses, references, strict=True):
        written = _vectors(words, frequencies, log_num_items)
        similar = [_similarity(written, _vectors(other, frequencies, log_num_items)) for other in own_references]
        scores.append(_SCALE * sum(similar) / len(similar))
    return (sum(scores) / len(scores) if scores else 0.0), scores


def _all_ngrams(words: Sequence[str]) -> set[Ngram]:
    return {ngram for n in range(1, MAX_N + 1) for ngram in count_ngrams(words, n)}


def _vectors(words: Sequence[str], frequencies: Counter[Ngram], log_num_items: float) -> _Vectors:
    weights = [
        {
            ngram: count * (log_num_items - math.log(max(1, frequencies[ngram])))
            for ngram, count in count_ngrams(words, n).items()
        }
        for n in range(1, MAX_N + 1)
    ]
    norms = [math.sqrt(sum(value**2 for value in vector.values())) for vector in weights]
    return _Vectors(weights, norms, max(0, len(words) - 1))


def _similarity(written: _Vectors, reference: _Vectors) -> float:
    """Return the mean over n of the clipped cosine, in [0, 1]."""
    total = 0.0
    for mine, theirs, my_norm, their_norm in zip(
        written.weights, reference.weights, written.norms, reference.norms, strict=True
    ):
        if my_norm and their_norm:
            # A word that is repeated beyond the reference's own count gains nothing here and makes the norm longer.
            common = sum(min(value, theirs[ngram]) * theirs[ngram] for ngram, value in mine.items() if ngram in theirs)
            total += common / (my_norm * their_norm)
    distance = written.num_bigrams - reference.num_bigrams
    return total / MAX_N * math.exp(-(distance**2) / (2 * SIGMA**2))
