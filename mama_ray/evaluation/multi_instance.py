"""Multi-instance retrieval (EK-100 MIR): graded relevance between clips and captions, mAP and nDCG both ways.

    rel(i, j) = 1/2 ([verb_i = verb_j] + |N_i & N_j| / |N_i | N_j|)

A positive has relevance 1. The average precision that EK-100 publishes has a *graded* running sum as its numerator,
which dominates the number; the usual one, which counts positives, is `strict` here. Both relevance and similarity are
made in blocks of queries, so neither is whole in memory. Source: Wray et al., ICCV 2021 and CVPR 2021; LaViLa, CVPR
2023.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from mama_ray.errors import UserError

# 256 x 9,668 float64 take 19 MiB, of which some ten are alive at a time.
QUERY_BLOCK = 256
NUM_THREADS = 2  # numpy sorts and multiplies without the interpreter's lock
WAYS = ("v2t", "t2v")
_PERCENT = 100.0


@dataclass(frozen=True)
class ActionClasses:
    """Verb class and set of noun classes of some clips or captions.

    Attributes:
        verbs: Int64 (items,).
        nouns: Bool (items, noun classes), which of them an item has; at least one each.
    """

    verbs: Int64[np.ndarray, " items"]
    nouns: Bool[np.ndarray, "items classes"]

    @classmethod
    def of(cls, verbs: Sequence[int], nouns: Sequence[Sequence[int]], *, num_nouns: int) -> "ActionClasses":
        """Make them of lists; UserError for a noun that is not one of `num_nouns`, and for an item without nouns."""
        has = np.zeros((len(nouns), num_nouns), bool)
        for item, own in enumerate(nouns):
            if not own or not all(0 <= noun < num_nouns for noun in own):
                got = f"item {item} with {list(own)}"
                raise UserError("noun classes", got=got, wanted=f"at least one of 0 to {num_nouns - 1}")
            has[item, list(own)] = True
        return cls(np.asarray(verbs, np.int64), has)

    def __len__(self) -> int:
        return len(self.verbs)

    def kinds(self) -> list[tuple[int, bytes]]:
        """Return verb and nouns of each item in a form that is equal for equal ones."""
        packed = np.packbits(self.nouns, axis=1)
        return [(verb, own.tobytes()) for verb, own in zip(self.verbs.tolist(), packed, strict=True)]

    def take(self, items: slice | Sequence[int] | np.ndarray) -> "ActionClasses":
        """Return some of the items."""
        return ActionClasses(self.verbs[items], self.nouns[items])


class QueryScores(NamedTuple):
    """Scores of single queries, each (queries,), from 0 to 1."""

    average_precision: Float64[np.ndarray, " queries"]
    strict_average_precision: Float64[np.ndarray, " queries"]
    ndcg: Float64[np.ndarray, " queries"]


def compute_relevance(queries: ActionClasses, gallery: ActionClasses) -> Float64[np.ndarray, "queries gallery"]:
    """Return the relevance of every gallery item to every query, from 0 to 1."""
    shared = (queries.nouns.astype(np.float32) @ gallery.nouns.astype(np.float32).T).astype(np.float64)
    either = queries.nouns.sum(1)[:, None] + gallery.nouns.sum(1)[None, :] - shared
    return 0.5 * ((queries.verbs[:, None] == gallery.verbs[None, :]) + shared / either)


def require_query_positives(videos: ActionClasses, texts: ActionClasses) -> None:
    """Raise UserError for videos or texts without a positive, which has the same verb and the same nouns."""
    of_videos, of_texts = videos.kinds(), texts.kinds()
    for queries, gallery in ((of_videos, set(of_texts)), (of_texts, set(of_videos))):
        lost = sum(kind not in gallery for kind in queries)
        if lost:
            raise _without_positive(lost, len(queries))


def _without_positive(lost: int, count: int) -> UserError:
    return UserError(
        "queries without a positive", got=f"{lost} of {count}", wanted="an item of relevance 1 for each",
        remedy="the caption list does not belong to the clips",
    )  # fmt: skip


def score_queries(
    similarity: Float[np.ndarray, "queries gallery"],
    relevance: Float64[np.ndarray, "queries gallery"],
    *,
    is_missing: Bool[np.ndarray, " gallery"] | None = None,
) -> QueryScores:
    """Score a block of queries against the whole gallery; equal similarities keep the gallery's order.

    Items of `is_missing` are last and earn nothing: what they would have earned is missed all the same.

    UserError for a query without a positive, whose average precision is no number, and for similarities that are none.
    """
    num_positives = (relevance == 1).sum(1)
    if not num_positives.all():
        raise _without_positive(int((num_positives == 0).sum()), len(relevance))
    if np.isnan(similarity).any():
        raise UserError("similarities", got="NaN", wanted="numbers")
    earned = relevance
    if is_missing is not None and is_missing.any():
        similarity, earned = np.where(is_missing, -np.inf, similarity), np.where(is_missing, 0.0, relevance)
    order = np.argsort(-similarity, axis=1, kind="stable")
    ranked = np.take_along_axis(earned, order, axis=1)
    places = np.arange(1, ranked.shape[1] + 1, dtype=np.float64)
    is_positive = ranked == 1
    graded = np.where(is_positive, np.cumsum(ranked, axis=1) / places, 0.0).sum(1) / num_positives
    strict = np.where(is_positive, np.cumsum(is_positive, axis=1) / places, 0.0).sum(1) / num_positives
    discounts = 1.0 / np.log2(places + 1)
    # As many places count as items are relevant at all; the others of the ideal ranking have relevance 0.
    counts = np.arange(ranked.shape[1]) < (relevance > 0).sum(1)[:, None]
    gain = np.where(counts, ranked, 0.0) @ discounts
    ideal = -np.sort(-relevance, axis=1) @ discounts
    return QueryScores(graded, strict, gain / ideal)


def score_both_ways(
    similarity_of: Callable[[str, slice], np.ndarray],
    videos: ActionClasses,
    texts: ActionClasses,
    *,
    is_missing: Bool[np.ndarray, " videos"] | None = None,
) -> dict[str, QueryScores]:
    """Return the scores of each video and of each text, keyed v2t and t2v.

    similarity_of: (way, block of queries) to similarity (queries, gallery), higher is more alike. A video of
    `is_missing` ranks last for every text and earns it nothing, and as a query has 0.
    """
    missing = np.zeros(len(videos), bool) if is_missing is None else is_missing
    found = {}
    for way, queries, gallery in (("v2t", videos, texts), ("t2v", texts, videos)):
        hidden = missing if way == "t2v" else None
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            score = partial(_score_block, similarity_of, way, queries, gallery, hidden)
            parts = list(pool.map(score, _blocks(len(queries))))
        found[way] = QueryScores(*map(np.concatenate, zip(*parts, strict=True)))
    if missing.any():
        found["v2t"] = QueryScores(*(np.where(missing, 0.0, one) for one in found["v2t"]))
    return found


def _score_block(
    similarity_of: Callable[[str, slice], np.ndarray],
    way: str,
    queries: ActionClasses,
    gallery: ActionClasses,
    hidden: np.ndarray | None,
    block: slice,
) -> QueryScores:
    similarity = np.asarray(similarity_of(way, block), np.float64)
    return score_queries(similarity, compute_relevance(queries.take(block), gallery), is_missing=hidden)


def similarity_of_features(
    videos: Float[np.ndarray, "videos dim"], texts: Float[np.ndarray, "texts dim"]
) -> Callable[[str, slice], np.ndarray]:
    """Return the cosine of unit features as `score_both_ways` asks for it, (queries, gallery) float64.

    The release maps it by (s + 1) / 2, which changes no rank.
    """
    sides = {"v2t": (videos, texts), "t2v": (texts, videos)}

    def similarity(way: str, block: slice) -> np.ndarray:
        queries, gallery = sides[way]
        return queries[block].astype(np.float64) @ gallery.astype(np.float64).T

    return similarity


def similarity_of_matrix(matrix: Float[np.ndarray, "videos texts"]) -> Callable[[str, slice], np.ndarray]:
    """Return the blocks of a whole matrix as `score_both_ways` asks for them."""
    return lambda way, block: matrix[block] if way == "v2t" else matrix[:, block].T


def mean_metrics(scores: dict[str, QueryScores]) -> dict[str, float]:
    """Return percent by name: mAP, mAP_v2t, mAP_t2v, nDCG and strict_mAP alike; without a way it is their mean."""
    names = {"mAP": "average_precision", "nDCG": "ndcg", "strict_mAP": "strict_average_precision"}
    metrics = {}
    for name, field in names.items():
        means = {way: _PERCENT * float(getattr(scores[way], field).mean()) for way in WAYS}
        metrics[name] = sum(means.values()) / len(means)
        metrics |= {f"{name}_{way}": mean for way, mean in means.items()}
    return metrics


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + QUERY_BLOCK, count)) for start in range(0, count, QUERY_BLOCK))
