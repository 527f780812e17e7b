"""Ranks and recall of video-text retrieval, in blocks: no matrix of queries by gallery is ever whole in memory.

The one design fact: a query's positives are the gallery items with the same id (never the same string), and its rank
is that of its best positive among the negatives, so rank statistics and recall always speak of the same positives:

    rank(q) = 1 + #{negatives above} + t * #{negatives equal}        t = 0 optimistic, 1/2 average, 1 pessimistic

Similarities are accumulated in float64 and compared in float32: equal items then tie whatever order a matrix product
summed in. `rank_queries` is the maths of one block of queries (a Ray task calls it); `compute_ranks` and
`retrieval_metrics` drive it on one machine.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64, Int64

from mama_ray.errors import UserError

TieRule = Literal["average", "optimistic", "pessimistic"]
GroupRule = Literal["best_rank", "group_max"]

# An array of row numbers serves as well as names: only equality counts.
Ids = Sequence[str] | np.ndarray

TIE_SHARE: dict[str, float] = {"average": 0.5, "optimistic": 0.0, "pessimistic": 1.0}
RECALL_CUTOFFS = (1, 5, 10)
DSL_TEMPERATURE = 100.0
# 1024 x 4096 scores take 32 MiB in float64 and keep a matrix product busy.
QUERY_BLOCK, GALLERY_BLOCK = 1024, 4096


def retrieval_metrics(
    video_features: Float[np.ndarray, "videos dim"],
    text_features: Float[np.ndarray, "texts dim"],
    video_ids: Ids,
    text_video_ids: Ids,
    *,
    prefix: str = "",
    ties: TieRule = "average",
    dual_softmax: bool = False,
    video_to_text: GroupRule = "best_rank",
) -> dict[str, float]:
    """Return recall (percent), median and mean rank both ways, keyed `<prefix>t2v_R@1` and so on.

    `text_video_ids[j]` is the id of the video that text j belongs to. Several texts per video are fine: every text is
    a query of t2v, and `video_to_text` says how a video's own texts count in v2t (see `compute_ranks`).
    """
    ranks = {
        "t2v": compute_ranks(
            text_features,
            text_video_ids,
            video_features,
            video_ids,
            ties=ties,
            dual_softmax=dual_softmax,
        ),
        "v2t": compute_ranks(
            video_features,
            video_ids,
            text_features,
            text_video_ids,
            ties=ties,
            dual_softmax=dual_softmax,
            group_rule=video_to_text,
        ),
    }
    return {f"{prefix}{way}_{key}": value for way in ranks for key, value in recall_metrics(ranks[way]).items()}


def recall_metrics(ranks: Float64[np.ndarray, " queries"]) -> dict[str, float]:
    """Return R@1, R@5, R@10 in percent, median_rank (averaged when even) and mean_rank of ranks that start at 1."""
    if ranks.size == 0:
        raise UserError(
            "retrieval has no queries",
            got=0,
            wanted="at least one",
            remedy="check the split's name",
        )
    metrics = {f"R@{cutoff}": 100.0 * float(np.mean(ranks <= cutoff)) for cutoff in RECALL_CUTOFFS}
    return metrics | {
        "median_rank": float(np.median(ranks)),
        "mean_rank": float(np.mean(ranks)),
    }


def compute_ranks(
    queries: Float[np.ndarray, "queries dim"],
    query_ids: Ids,
    gallery: Float[np.ndarray, "gallery dim"],
    gallery_ids: Ids,
    *,
    ties: TieRule = "average",
    dual_softmax: bool = False,
    group_rule: GroupRule = "best_rank",
) -> Float64[np.ndarray, " queries"]:
    """Return the rank of each query's best positive, in blocks on this machine.

    `group_rule` matters where several gallery items share an id: `best_rank` lets every item compete (collaborative
    experts), `group_max` lets one item per id compete, by its best score (CLIP4Clip). The two are not comparable.
    """
    check_finite(queries, query_ids)
    check_finite(gallery, gallery_ids)
    query_codes, gallery_codes = encode_ids(query_ids, gallery_ids)
    order = np.argsort(gallery_codes, kind="stable")
    gallery, gallery_codes = np.asarray(gallery)[order], gallery_codes[order]
    normalisers = dual_softmax_normalisers(gallery, queries) if dual_softmax else None
    blocks = [
        rank_queries(
            np.asarray(queries)[start : start + QUERY_BLOCK],
            query_codes[start : start + QUERY_BLOCK],
            gallery,
            gallery_codes,
            normalisers=normalisers,
            ties=ties,
            group_rule=group_rule,
        )
        for start in range(0, len(query_codes), QUERY_BLOCK)
    ]
    return np.concatenate(blocks) if blocks else np.empty(0)


def encode_ids(query_ids: Ids, gallery_ids: Ids) -> tuple[Int64[np.ndarray, " queries"], Int64[np.ndarray, " gallery"]]:
    """Return one integer per id, the same on both sides. A query without a positive is a UserError."""
    names, codes = np.unique(np.asarray(gallery_ids, dtype=str), return_inverse=True)
    wanted = np.asarray(query_ids, dtype=str)
    if names.size == 0:
        raise UserError("retrieval has an empty gallery", got=0, wanted="at least one item")
    places = np.minimum(np.searchsorted(names, wanted), names.size - 1)
    orphans = names[places] != wanted
    if orphans.any():
        raise UserError(
            f"{int(orphans.sum())} queries have no positive in the gallery",
            got=", ".join(sorted(set(wanted[orphans].tolist()))[:5]),
            wanted="every query's id among the gallery's ids",
        )
    return places.astype(np.int64), codes.astype(np.int64)


def check_finite(features: Float[np.ndarray, "items dim"], ids: Ids) -> None:
    """Raise UserError naming the ids of rows that hold NaN or infinity."""
    bad = np.flatnonzero(~np.isfinite(np.asarray(features)).all(axis=1))
    if bad.size:
        raise UserError(
            f"{bad.size} of {len(ids)} features are not finite",
            got=", ".join(str(ids[row]) for row in bad[:5]),
            wanted="finite numbers",
            remedy="the model has diverged or the checkpoint is damaged: evaluate an earlier one",
        )


def rank_queries(
    queries: Float[np.ndarray, "queries dim"],
    query_codes: Int64[np.ndarray, " queries"],
    gallery: Float[np.ndarray, "gallery dim"],
    gallery_codes: Int64[np.ndarray, " gallery"],
    *,
    normalisers: Float64[np.ndarray, " gallery"] | None = None,
    ties: TieRule = "average",
    group_rule: GroupRule = "best_rank",
) -> Float64[np.ndarray, " queries"]:
    """Return the ranks of one block of queries against the whole gallery, GALLERY_BLOCK columns at a time.

    `gallery_codes` must ascend, so that the items of an id are neighbours. `normalisers` turns the dual softmax on.
    """
    if not (np.diff(gallery_codes) >= 0).all():
        raise ValueError("gallery_codes must ascend")
    queries = np.asarray(queries, dtype=np.float64)
    positive = _best_positive(queries, query_codes, gallery, gallery_codes, normalisers)
    above = np.zeros(len(queries), dtype=np.int64)
    equal = np.zeros(len(queries), dtype=np.int64)
    for start, stop in _group_blocks(gallery_codes):
        codes = gallery_codes[start:stop]
        block = scores(
            queries,
            gallery[start:stop],
            None if normalisers is None else normalisers[start:stop],
        )
        if group_rule == "group_max":
            codes, starts = np.unique(codes, return_index=True)
            block = np.maximum.reduceat(block, starts, axis=1)
        negative = codes[None, :] != query_codes[:, None]
        above += ((block > positive[:, None]) & negative).sum(axis=1)
        equal += ((block == positive[:, None]) & negative).sum(axis=1)
    return 1.0 + above + TIE_SHARE[ties] * equal


def scores(
    queries: Float[np.ndarray, "queries dim"],
    gallery: Float[np.ndarray, "gallery dim"],
    normalisers: Float64[np.ndarray, " gallery"] | None = None,
) -> Float64[np.ndarray, "queries gallery"]:
    """Return what is ranked: the similarity S, or S * exp(100 S - normaliser) under the dual softmax.

    Negative similarities stay negative in the product, which is not monotone there: the protocol says so.
    """
    similarity = _as_float32(np.asarray(queries, np.float64) @ np.asarray(gallery, np.float64).T)
    return similarity if normalisers is None else _dual_softmax(similarity, normalisers[None, :])


def dual_softmax_normalisers(
    gallery: Float[np.ndarray, "gallery dim"], queries: Float[np.ndarray, "queries dim"]
) -> Float64[np.ndarray, " gallery"]:
    """Return log sum_q exp(100 S[q, k]) of every gallery item over *all* queries.

    Ranking videos for a text normalises over texts and ranking texts for a video over videos: each direction has its
    own axis. May be called on parts of the gallery.
    """
    gallery, queries = np.asarray(gallery), np.asarray(queries)
    parts = []
    for start in range(0, len(gallery), QUERY_BLOCK):
        part = gallery[start : start + QUERY_BLOCK]
        peak, total = np.full(len(part), -np.inf), np.zeros(len(part))
        for first in range(0, len(queries), GALLERY_BLOCK):
            logits = DSL_TEMPERATURE * scores(part, queries[first : first + GALLERY_BLOCK])
            higher = np.maximum(peak, logits.max(axis=1))
            total = total * np.exp(peak - higher) + np.exp(logits - higher[:, None]).sum(axis=1)
            peak = higher
        parts.append(peak + np.log(total))
    return np.concatenate(parts)


def _best_positive(queries, query_codes, gallery, gallery_codes, normalisers) -> Float64[np.ndarray, " queries"]:
    """Return the score of each query's best positive; the pairs are few, so they are scored one by one."""
    first = np.searchsorted(gallery_codes, query_codes, side="left")
    count = np.searchsorted(gallery_codes, query_codes, side="right") - first
    assert (count > 0).all(), "encode_ids refuses queries without a positive"
    pair_starts = np.cumsum(count) - count
    pair_query = np.repeat(np.arange(len(queries)), count)
    pair_gallery = np.arange(count.sum()) - np.repeat(pair_starts - first, count)
    pair_scores = np.empty(len(pair_query))
    for start in range(0, len(pair_query), GALLERY_BLOCK):
        rows, columns = (
            pair_query[start : start + GALLERY_BLOCK],
            pair_gallery[start : start + GALLERY_BLOCK],
        )
        products = np.einsum("pd,pd->p", queries[rows], np.asarray(gallery[columns], np.float64))
        similarity = _as_float32(products)
        pair_scores[start : start + GALLERY_BLOCK] = (
            similarity if normalisers is None else _dual_softmax(similarity, normalisers[columns])
        )
    return np.maximum.reduceat(pair_scores, pair_starts) if len(queries) else np.empty(0)


def _dual_softmax(similarity, normalisers) -> np.ndarray:
    return _as_float32(similarity * np.exp(DSL_TEMPERATURE * similarity - normalisers))


def _as_float32(values: np.ndarray) -> np.ndarray:
    """Round to float32's 24 bits but keep float64's range: a dual softmax product may be as small as 1e-90."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(mantissa.astype(np.float32).astype(np.float64), exponent)


def _group_blocks(
    gallery_codes: Int64[np.ndarray, " gallery"],
) -> list[tuple[int, int]]:
    """Return [start, stop) ranges of about GALLERY_BLOCK columns that never cut a group of equal codes."""
    ends = np.append(np.flatnonzero(np.diff(gallery_codes)) + 1, len(gallery_codes))
    blocks, start = [], 0
    while start < len(gallery_codes):
        stop = int(ends[min(np.searchsorted(ends, start + GALLERY_BLOCK), len(ends) - 1)])
        blocks.append((start, stop))
        start = stop
    return blocks
