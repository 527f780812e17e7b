"""How well a score tells faulty pairs from good ones: area under the ROC curve, share of faulty ones among the lowest.

Scores are such that a faulty pair should have a low one: a weight, a cosine, a loss with its sign turned.
"""

import numpy as np
from jaxtyping import Bool, Float


def separation_auc(scores: Float[np.ndarray, " pairs"], is_faulty: Bool[np.ndarray, " pairs"]) -> float:
    """Return how often a faulty pair scores lower than a good one, ties counted half; NaN where either kind is absent.

    0.5 is chance, 1 tells all apart.
    """
    good, faulty = np.sort(scores[~is_faulty]), scores[is_faulty]
    if not len(good) or not len(faulty):
        return float("nan")
    below, up_to = np.searchsorted(good, faulty, "left"), np.searchsorted(good, faulty, "right")
    return float(1 - (below + up_to).mean() / 2 / len(good))


def precision_of_lowest(scores: Float[np.ndarray, " pairs"], is_faulty: Bool[np.ndarray, " pairs"], num: int) -> float:
    """Return the share of faulty pairs among the `num` with the lowest scores; of equal scores the first counts."""
    return float(is_faulty[lowest(scores, num)].mean())


def lowest(scores: Float[np.ndarray, " pairs"], num: int) -> np.ndarray:
    """Return the places of the `num` lowest scores, the lowest first; what has no score (NaN) comes last."""
    return np.argsort(scores, kind="stable")[:num]
