"""Ranks of a whole split by Ray tasks over blocks of queries; only rank vectors reach the driver.

Features stay in the object store, where the tasks of a node share them. The maths is evaluation/retrieval.py's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import ray
from jaxtyping import Float64

from mama_ray.evaluation.protocol import BenchmarkConfig
from mama_ray.evaluation.retrieval import check_finite, dual_softmax_normalisers, rank_queries
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.evaluation.embed import read_features
from mama_ray.storage.places import Place, storage_errors

# Small enough to spread a thousand queries over two cores, large enough to be worth a task.
_TASK_QUERIES = 512
_TASK_CPUS = 0.5
_NONE_ABSENT = {"t2v": 0, "v2t": 0}


@dataclass(frozen=True)
class Features:
    """References to the features of a split and what the driver needs to know of them.

    clip_codes and text_codes are row numbers, ascending: a text's positive is the clip of its row.
    """

    videos: ray.ObjectRef
    texts: ray.ObjectRef
    clip_codes: np.ndarray
    text_codes: np.ndarray
    errors: dict[int, str]


def load_features(uri: str, table: ray.ObjectRef, num_clips: int) -> Features:
    """Read the features into the object store, checked to be finite and to cover every row."""
    videos, texts, codes = _load.options(num_returns=3).remote(uri, table, num_clips)
    text_rows, errors = result_of(codes, videos, texts)
    return Features(videos, texts, np.arange(num_clips), text_rows, errors)


@ray.remote(num_cpus=_TASK_CPUS, name="evaluate: load features")
def _load(uri: str, table, num_clips: int) -> tuple:
    with storage_errors(uri):
        videos, texts, text_rows, errors = read_features(Place.of(uri), num_clips)
    ids = table["clip_id"].to_pylist()
    check_finite(videos, ids)
    check_finite(texts, [ids[row] for row in text_rows])
    return videos, texts, (text_rows, errors)


def rank_both_ways(
    features: Features, benchmark: BenchmarkConfig, *, dual_softmax: bool, num_absent: Mapping[str, int] = _NONE_ABSENT
) -> dict[str, Float64[np.ndarray, " queries"]]:
    """Return the rank of every query of the protocol, keyed t2v and v2t, in the order of `queries_of`.

    A clip that could not be decoded is in no gallery. Where missing clips count as wrong, its queries get the last rank
    and its texts still compete. So do the queries of clips that the index does not have, which come behind all others;
    num_absent says by direction how many these are.
    """
    missing = np.isin(features.clip_codes, list(features.errors))
    missing_texts = np.isin(features.text_codes, list(features.errors))
    excludes = benchmark.missing == "excluded"
    videos = _Side(features.videos, features.clip_codes, ~missing)
    texts = _Side(features.texts, features.text_codes, ~missing_texts if excludes else np.ones_like(missing_texts))
    known_texts = _Side(features.texts, features.text_codes, ~missing_texts)
    num_clips = len(features.clip_codes) + num_absent["v2t"]
    num_texts = len(features.text_codes) + num_absent["t2v"]
    num_groups = num_clips if benchmark.video_to_text == "group_max" else num_texts
    ranks = {
        "t2v": (_rank(known_texts, videos, benchmark, dual_softmax, "best_rank"), ~missing_texts, num_clips),
        "v2t": (_rank(videos, texts, benchmark, dual_softmax, benchmark.video_to_text), ~missing, num_groups),
    }
    if excludes:
        return {way: found for way, (found, _, _) in ranks.items()}
    return {
        way: np.append(_fill(found, known, last), np.full(num_absent[way], float(last)))
        for way, (found, known, last) in ranks.items()
    }


def queries_of(features: Features, benchmark: BenchmarkConfig) -> dict[str, np.ndarray]:
    """Return the clip row of every query, keyed t2v and v2t, in the order of the ranks."""
    codes = {"t2v": features.text_codes, "v2t": features.clip_codes}
    if benchmark.missing == "excluded":
        return {way: found[~np.isin(found, list(features.errors))] for way, found in codes.items()}
    return codes


def top_clips(features: Features, text_positions: np.ndarray, count: int) -> np.ndarray:
    """Return the rows of the clips with the largest plain similarity, best first: (texts, count)."""
    known = np.setdiff1d(features.clip_codes, list(features.errors))
    return result_of(_top.remote(features.texts, features.videos, text_positions, known, count))


@dataclass(frozen=True)
class _Side:
    """One side of a ranking: features, their codes, and which of them take part."""

    features: ray.ObjectRef
    codes: np.ndarray
    keep: np.ndarray

    def __len__(self) -> int:
        return int(self.keep.sum())

    def kept(self, values: np.ndarray) -> np.ndarray:
        """Return the values that take part; no copy in the common case that all do."""
        return values if self.keep.all() else values[self.keep]


def _rank(
    queries: _Side, gallery: _Side, benchmark: BenchmarkConfig, dual_softmax: bool, group_rule: str
) -> np.ndarray:
    shared = [ray.put(side) for side in (queries, gallery)]
    normalisers = None
    if dual_softmax:
        parts = [
            _normalise.remote(gallery.features, queries.features, *shared, block) for block in _blocks(len(gallery))
        ]
        normalisers = np.concatenate(ray.get(parts))
    reference = ray.put(normalisers)
    blocks = [
        _rank_block.remote(
            queries.features, gallery.features, *shared, reference, block, ties=benchmark.ties, group_rule=group_rule
        )
        for block in _blocks(len(queries))
    ]
    return np.concatenate(ray.get(blocks)) if blocks else np.empty(0)


@ray.remote(num_cpus=_TASK_CPUS, name="evaluate: rank queries")
def _rank_block(query_features, gallery_features, queries, gallery, normalisers, block: slice, *, ties, group_rule):
    chosen = np.flatnonzero(queries.keep)[block]
    return rank_queries(
        query_features[chosen],
        queries.codes[chosen],
        gallery.kept(gallery_features),
        gallery.kept(gallery.codes),
        normalisers=normalisers,
        ties=ties,
        group_rule=group_rule,
    )


@ray.remote(num_cpus=_TASK_CPUS, name="evaluate: dual softmax")
def _normalise(gallery_features, query_features, queries, gallery, block: slice) -> np.ndarray:
    chosen = np.flatnonzero(gallery.keep)[block]
    return dual_softmax_normalisers(gallery_features[chosen], queries.kept(query_features))


@ray.remote(num_cpus=_TASK_CPUS, name="evaluate: first clips")
def _top(text_features, video_features, text_positions, known, count: int) -> np.ndarray:
    similarity = text_features[text_positions].astype(np.float64) @ video_features[known].astype(np.float64).T
    return known[np.argsort(-similarity, axis=1, kind="stable")[:, :count]]


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + _TASK_QUERIES) for start in range(0, count, _TASK_QUERIES)]


def _fill(ranks: np.ndarray, known: np.ndarray, last: int) -> np.ndarray:
    whole = np.full(len(known), float(last))
    whole[known] = ranks
    return whole
