"""Search in a table of embeddings: exact similarity to words and examples, with filters.

A fast pass in half precision finds all clips that can be among those asked for, whatever it rounded; only these are
compared in float64. So the answer is that of brute force in float64, and equal clips are in the order of their ids.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import ArrayLike

from mama_ray.errors import UserError
from mama_ray.search.embedding_table import EmbeddingTable

MINUS_WEIGHT = 0.5
# Half precision rounds the query and each product, summed in float32, by 2**-11 of it at most; of two clips that are
# compared, both.
_SLACK = 4.5 * 2.0**-11
_GATHER_SHARE = 1 / 16  # of clips allowed; above it, reading all is quicker than picking some
_EXACT_ROWS = 4096  # compared in float64 at a time


@dataclass(frozen=True)
class Query:
    """What is looked for.

    Attributes:
        plus, minus: features (dim,) of words or of example clips. A clip's similarity is the mean of its cosines to
            `plus`, less half the mean of those to `minus`.
        mixture: 1 looks at pixels alone, 0 at captions alone, of which a clip's nearest counts.
        allowed: bool (n,), the clips that may be found; None allows all.
        limit, offset: which of the clips, ordered by similarity, are wanted.
    """

    plus: Sequence[np.ndarray]
    minus: Sequence[np.ndarray] = ()
    mixture: float = 1.0
    allowed: np.ndarray | None = None
    limit: int = 20
    offset: int = 0

    @property
    def num_wanted(self) -> int:
        """How many of the best must be known."""
        return self.offset + self.limit

    def check_page(self) -> None:
        """Raise UserError where no such results can be."""
        if self.limit < 1 or self.offset < 0:
            raise UserError("which results", got=(self.offset, self.limit), wanted="an offset from 0, a limit from 1")

    def direction(self, dim: int) -> np.ndarray:
        """Return the vector, float64 (dim,), whose dot product with a clip's feature is the clip's similarity."""
        if not len(self.plus) and not len(self.minus):
            raise UserError("nothing to look for", wanted="words or an example clip")
        wrong = [np.shape(vector) for vector in (*self.plus, *self.minus) if np.shape(vector) != (dim,)]
        if wrong:
            raise UserError("a query's feature is not the index's kind", got=wrong[0], wanted=(dim,))
        total = np.zeros(dim)
        for vectors, weight in ((self.plus, 1.0), (self.minus, -MINUS_WEIGHT)):
            for vector in vectors:
                total += weight / len(vectors) * np.asarray(vector, np.float64)
        if not np.isfinite(total).all():
            raise UserError("a query's feature holds values that are no numbers", wanted="finite numbers")
        return total


@dataclass(frozen=True)
class Hit:
    """A clip that was found: its id, its row in the table, and its similarity."""

    clip_id: str
    row: int
    similarity: float


class SearchIndex(Protocol):
    """What answers queries; whoever fulfils it needs to know nothing else of the app, and the app nothing of it."""

    @property
    def clip_ids(self) -> pa.LargeStringArray:
        """The clips in the order of the rows."""

    def search(self, query: Query) -> list[Hit]:
        """Return the clips asked for, best first; UserError for a query that is none."""

    def count(self, query: Query) -> int:
        """Return how many clips could be found if the limit were large enough."""

    def video_feature(self, clip_id: str) -> np.ndarray | None:
        """Return a clip's feature, float32 (dim,); None where there is no such clip, or it has none."""


class ExactIndex:
    """Compares a query with every clip that is allowed. May be used from several threads."""

    def __init__(self, table: EmbeddingTable) -> None:
        self.table = table
        self._has_captions = np.diff(table.caption_offsets) > 0

    def search(self, query: Query) -> list[Hit]:
        """Return the clips asked for, best first; of equals the first by clip id.

        A clip without what is looked at is not found; where pixels and captions both are, what it lacks counts as 0.
        Raises UserError for a query that is none.
        """
        direction, rows = query.direction(self.table.dim), self.findable(query)
        if query.num_wanted < len(rows):
            rows = self._shortlist(direction, query.mixture, rows, query.num_wanted)
        return self.rank(query, rows)

    def rank(self, query: Query, rows: np.ndarray) -> list[Hit]:
        """Return the clips asked for as if there were only these rows, int64, each once."""
        similarity = self.similarity(query.direction(self.table.dim), query.mixture, rows)
        order = np.lexsort((self.table.id_rank[rows], -similarity))[query.offset : query.num_wanted]
        return [Hit(self.table.clip_ids[int(rows[i])].as_py(), int(rows[i]), float(similarity[i])) for i in order]

    @property
    def clip_ids(self) -> pa.LargeStringArray:
        """The clips in the order of the rows."""
        return self.table.clip_ids

    def count(self, query: Query) -> int:
        """Return how many clips could be found if the limit were large enough."""
        return len(self.findable(query))

    def video_feature(self, clip_id: str) -> np.ndarray | None:
        """Return a clip's feature, float32 (dim,); None where there is no such clip, or it has none."""
        return self.table.video_feature(clip_id)

    def findable(self, query: Query) -> np.ndarray:
        """Return the rows, int64, that are allowed and have what the query looks at; UserError for a wrong query."""
        query.check_page()
        if not 0 <= query.mixture <= 1:
            raise UserError("mixture", got=query.mixture, wanted="0 (captions alone) to 1 (pixels alone)")
        found = np.zeros(len(self.table), bool)
        if query.mixture > 0:
            found |= self.table.has_video
        if query.mixture < 1:
            found |= self._has_captions
        if query.allowed is not None:
            if np.shape(query.allowed) != found.shape:
                raise UserError("a filter of another index", got=np.shape(query.allowed), wanted=found.shape)
            found &= query.allowed
        return np.flatnonzero(found)

    def similarity(self, direction: np.ndarray, mixture: float, rows: np.ndarray) -> np.ndarray:
        """Return the similarity of some rows, float64 (rows,); a row's does not depend on the others."""
        parts = [rows[start : start + _EXACT_ROWS] for start in range(0, len(rows), _EXACT_ROWS)]
        return np.concatenate([np.zeros(0), *(self._similarity(direction, mixture, part) for part in parts)])

    def _similarity(self, direction: np.ndarray, mixture: float, rows: np.ndarray) -> np.ndarray:
        total = np.zeros(len(rows))
        if mixture > 0:
            total += mixture * _dot(self.table.video[rows], direction)
        if mixture < 1:
            total += (1 - mixture) * self._nearest_captions(rows, lambda own: _dot(self.table.captions[own], direction))
        return total

    def _shortlist(self, direction: np.ndarray, mixture: float, rows: np.ndarray, num_wanted: int) -> np.ndarray:
        """Return those of the rows that may be among the best `num_wanted`."""
        norm = np.linalg.norm(direction)
        half = torch.from_numpy(direction / norm if norm else direction).half()  # which ends at 65,504
        is_sparse = len(rows) < _GATHER_SHARE * len(self.table)
        total = np.zeros(len(rows), np.float32)
        if mixture > 0:
            video = torch.from_numpy(self.table.video)
            some = torch.mv(video[torch.from_numpy(rows)], half) if is_sparse else torch.mv(video, half)
            total += np.float32(mixture) * (some.numpy() if is_sparse else some.numpy()[rows])
        if mixture < 1:
            captions = torch.from_numpy(self.table.captions)
            if is_sparse:
                nearest = self._nearest_captions(rows, lambda own: torch.mv(captions[torch.from_numpy(own)], half))
            else:
                nearest = self._nearest_of_all(torch.mv(captions, half).float().numpy())[rows]
            total += np.float32(1 - mixture) * nearest.astype(np.float32)
        last = np.partition(total, len(total) - num_wanted)[len(total) - num_wanted]
        return rows[total >= last - _SLACK]

    def _nearest_of_all(self, values: np.ndarray) -> np.ndarray:
        """Return of every row the largest of the values of its captions, 0 where it has none."""
        nearest = np.zeros(len(self.table), np.float32)
        if len(values):
            begins = self.table.caption_offsets[:-1][self._has_captions]
            nearest[self._has_captions] = np.maximum.reduceat(values, begins)
        return nearest

    def _nearest_captions(self, rows: np.ndarray, compare: Callable[[np.ndarray], ArrayLike]) -> np.ndarray:
        """Return of each row the largest of what `compare` gives its captions, 0 where it has none."""
        starts = self.table.caption_offsets[rows]
        counts = self.table.caption_offsets[rows + 1] - starts
        begins = np.cumsum(counts) - counts
        own = np.arange(counts.sum()) + np.repeat(starts - begins, counts)
        nearest, has_any = np.zeros(len(rows)), counts > 0
        if has_any.any():
            nearest[has_any] = np.maximum.reduceat(np.asarray(compare(own), np.float64), begins[has_any])
        return nearest


def _dot(features: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return dot products in float64, each the same in whatever company: a matrix product rounds by its size."""
    return (features.astype(np.float64) * direction).sum(axis=1)
