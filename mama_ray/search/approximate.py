"""Approximate search, for more clips than exact search is quick for: lists of neighbours by faiss, compared exactly.

What is found has its exact similarity and order; a clip may be missed, and `measure_recall` says how often. The lists
take half the memory of the table more.
"""

import logging
from collections.abc import Iterator
from typing import Literal

import faiss
import numpy as np

from mama_ray.search.embedding_table import EmbeddingTable
from mama_ray.search.index import ExactIndex, Hit, Query

logger = logging.getLogger(__name__)

IndexKind = Literal["exact", "approximate"]
_LEAST_PER_LIST, _TRAINED_PER_LIST = (
    40,
    64,
)  # below the first faiss warns of poor lists; more than the second is no gain
_PROBED_SHARE, _LEAST_PROBED = 1 / 32, 16  # of the lists
_ADDED_ROWS = 1 << 16
_CANDIDATES, _LEAST_CANDIDATES = 4, 200  # compared exactly for each clip that is wanted


class ApproximateIndex(ExactIndex):
    """Looks at the nearest lists of clips alone. May be used from several threads."""

    def __init__(self, table: EmbeddingTable, *, seed: int = 0) -> None:
        super().__init__(table)
        self._video = _build(table.video, np.flatnonzero(table.has_video), seed)
        self._captions = _build(table.captions, np.arange(len(table.captions)), seed)

    def search(self, query: Query) -> list[Hit]:
        """Return what `ExactIndex.search` does, but for clips that are missed; few clips are compared exactly."""
        rows = self.findable(query)
        num_candidates = max(_CANDIDATES * query.num_wanted, _LEAST_CANDIDATES)
        if len(rows) > num_candidates:
            found = self._candidates(query, rows, num_candidates)
            if len(found) >= query.num_wanted:  # else the lists that were looked at hold too few
                rows = found
        return self.rank(query, rows)

    def _candidates(self, query: Query, rows: np.ndarray, num_candidates: int) -> np.ndarray:
        direction = query.direction(self.table.dim).astype(np.float32)
        is_open = np.zeros(len(self.table), bool)
        is_open[rows] = True
        found = []
        if query.mixture > 0:
            found.append(_nearest(self._video, direction, num_candidates, is_open))
        if query.mixture < 1:
            is_open_caption = np.repeat(is_open, np.diff(self.table.caption_offsets))
            captions = _nearest(self._captions, direction, num_candidates, is_open_caption)
            found.append(np.searchsorted(self.table.caption_offsets, captions, side="right") - 1)
        return np.unique(np.concatenate(found))


def build_index(table: EmbeddingTable, kind: IndexKind) -> ExactIndex:
    """Build an index; of an approximate one the recall against exact search is measured and told."""
    if kind == "exact":
        return ExactIndex(table)
    index = ApproximateIndex(table)
    logger.info("approximate search: recall@10 against exact search is %.3f", measure_recall(index))
    return index


def measure_recall(index: ApproximateIndex, *, num_queries: int = 100, num_results: int = 10, seed: int = 0) -> float:
    """Return the share of the exact best clips that are found, mean over queries by captions, or without any by clips.

    A clip that is as near as the last of the exact ones counts as one of them.
    """
    exact, shares = ExactIndex(index.table), []
    for vector in _asked(index.table, num_queries, np.random.default_rng(seed)):
        query = Query(plus=[vector], limit=num_results)
        best = exact.search(query)
        if best:
            found = index.search(query)
            shares.append(sum(hit.similarity >= best[-1].similarity for hit in found) / len(best))
    return float(np.mean(shares)) if shares else 1.0


def _asked(table: EmbeddingTable, num_queries: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    features = table.captions if len(table.captions) else table.video[table.has_video]
    for row in rng.permutation(len(features))[:num_queries]:
        yield features[row].astype(np.float32)


def _build(features: np.ndarray, rows: np.ndarray, seed: int) -> faiss.Index | None:
    if not len(rows):
        return None
    num_lists = max(1, min(int(4 * len(rows) ** 0.5), len(rows) // _LEAST_PER_LIST))
    index = faiss.index_factory(features.shape[1], f"IVF{num_lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.nprobe = min(num_lists, max(_LEAST_PROBED, int(num_lists * _PROBED_SHARE)))
    rng = np.random.default_rng(seed)
    sample = rng.permutation(rows)[: _TRAINED_PER_LIST * num_lists]
    index.train(features[np.sort(sample)].astype(np.float32))
    for start in range(0, len(rows), _ADDED_ROWS):
        part = rows[start : start + _ADDED_ROWS]
        index.add_with_ids(features[part].astype(np.float32), part)
    return index


def _nearest(index: faiss.Index | None, direction: np.ndarray, number: int, is_open: np.ndarray) -> np.ndarray:
    """Return the ids of the nearest that are open, int64."""
    if index is None:
        return np.zeros(0, np.int64)
    chosen = faiss.IDSelectorBitmap(np.packbits(is_open, bitorder="little"))
    parameters = faiss.SearchParametersIVF(sel=chosen, nprobe=index.nprobe)
    _, ids = index.search(direction[None], number, params=parameters)
    return ids[0][ids[0] >= 0]
