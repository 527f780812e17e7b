"""How well captions fit clips by a dual encoder: each clip's own, and those of others that fit it better."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

_CHUNK = 512  # clips whose similarities to all compared texts are in memory at a time
# Equal texts get equal features to within rounding, and none of them fits better than the other.
_MARGIN = 1e-4


@dataclass(frozen=True)
class Fit:
    """Of every clip, with one caption that is judged.

    Attributes:
        cosine: of each caption and its clip.
        share_better: share of the compared captions of others that fit the clip better than its judged one.
        best_others: the places of the captions of others that fit best and better, the best first; -1 fills up.
        best_cosine: their cosines.
    """

    cosine: Float[np.ndarray, " captions"]
    share_better: Float[np.ndarray, " clips"]
    best_others: Int[np.ndarray, "clips shown"]
    best_cosine: Float[np.ndarray, "clips shown"]


def compare_captions(
    videos: Float[np.ndarray, "clips dim"],
    texts: Float[np.ndarray, "captions dim"],
    offsets: Int[np.ndarray, " bounds"],
    judged: Int[np.ndarray, " clips"],
    *,
    num_compared: int,
    num_shown: int = 3,
    seed: int = 0,
) -> Fit:
    """Compare each clip's judged caption with those of other clips, `num_compared` of all drawn at random.

    offsets: where each clip's captions begin among `texts`, and where the last one's end. Features are of unit norm.
    """
    clip_of = np.repeat(np.arange(len(videos)), np.diff(offsets))
    cosine = np.einsum("td,td->t", texts, videos[clip_of])
    compared = np.arange(len(texts))
    if len(texts) > num_compared:
        compared = np.sort(np.random.default_rng(seed).choice(len(texts), size=num_compared, replace=False))
    num_shown = min(num_shown, len(compared))
    shares = np.zeros(len(videos))
    places = np.full((len(videos), num_shown), -1, np.int64)
    found = np.full((len(videos), num_shown), np.nan)
    chosen, owners = texts[compared], clip_of[compared]
    for start in range(0, len(videos), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(videos)))
        similarity = videos[rows] @ chosen.T
        is_own = owners[None, :] == rows[:, None]
        is_better = (similarity > cosine[judged[rows]][:, None] + _MARGIN) & ~is_own
        shares[rows] = is_better.sum(1) / np.maximum(1, (~is_own).sum(1))
        ranked = np.where(is_better, similarity, -np.inf)
        top = np.argpartition(-ranked, num_shown - 1, axis=1)[:, :num_shown]
        values = np.take_along_axis(ranked, top, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        top, values = np.take_along_axis(top, order, axis=1), np.take_along_axis(values, order, axis=1)
        is_there = np.isfinite(values)
        places[rows] = np.where(is_there, compared[top], -1)
        found[rows] = np.where(is_there, values, np.nan)
    return Fit(cosine, shares, places, found)
