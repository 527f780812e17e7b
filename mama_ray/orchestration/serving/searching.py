"""Searches as the page and the JSON interface ask for them: words and clips in, clips with their captions out."""

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mama_ray.errors import UserError
from mama_ray.orchestration.serving.catalog import CaptionLine, ClipRecord
from mama_ray.orchestration.serving.examples import Examples
from mama_ray.orchestration.serving.filters import Choice, Filters
from mama_ray.orchestration.serving.previews import plays_in_browsers
from mama_ray.orchestration.serving.state import AppState
from mama_ray.search.index import Query

_MOST_TEXTS_KEPT = 4096
_FURTHEST = 10_000  # results that can be leafed through

# Models read some dozen words; what was asked with is kept for the next time, so it must not be of any length.
Words = Annotated[str, Field(max_length=2_000)]
ClipName = Annotated[str, Field(max_length=200)]


class SearchRequest(BaseModel):
    """What is looked for, and among which clips."""

    model_config = ConfigDict(extra="forbid")

    plus: list[Words] = Field(default=[], max_length=16)
    """Words that the clips should fit."""
    minus: list[Words] = Field(default=[], max_length=16)
    """Words that they should not fit."""
    like: list[ClipName] = Field(default=[], max_length=64)
    """Ids of clips that they should be like, or `example:` and the name of an uploaded one."""
    unlike: list[ClipName] = Field(default=[], max_length=64)
    """Ids of clips that they should not be like, or the same."""
    mixture: float = Field(default=1.0, ge=0, le=1)
    """1 compares with the pixels of clips alone, 0 with their captions alone."""
    filters: Choice = Choice()
    """Which clips may be found."""
    limit: int = Field(default=24, ge=1, le=200)
    """Most clips of the answer."""
    offset: int = Field(default=0, ge=0, le=_FURTHEST)
    """How many of the best to leave out, for the next page."""


class Searcher:
    """Answers requests over the index of a state. May be used from several threads.

    Attributes:
        filters: those of the corpus.
        num_found: clips of the index that the corpus has.
    """

    def __init__(self, state: AppState, examples: Examples) -> None:
        self._state, self._examples = state, examples
        self.filters = Filters(state.catalog)
        self._rows = np.zeros(0, np.int64)  # of the catalog, for each row of the index
        if state.index is not None:
            self._rows = state.catalog.rows_of(state.index.clip_ids)
        self._is_known = self._rows >= 0
        self.num_found = int(self._is_known.sum())
        self._embed = lru_cache(_MOST_TEXTS_KEPT)(self._embed_text)

    def search(self, request: SearchRequest) -> dict:
        """Return the clips that fit best; without words and examples, all that pass the filters, in the corpus's order.

        Raises UserError for a request that cannot be answered.
        """
        began = time.perf_counter()
        if not (_texts([*request.plus, *request.minus]) or request.like or request.unlike):
            return self._browse(request)
        query = self.query(request)
        hits = self._state.index.search(query)
        found = [self._told(int(self._rows[hit.row]), round(hit.similarity, 4)) for hit in hits]
        took_ms = 1000 * (time.perf_counter() - began)
        total = self._state.index.count(query)
        return {"hits": found, "total": total, "offset": request.offset, "took_ms": round(took_ms, 1)}

    def query(self, request: SearchRequest) -> Query:
        """Return what the index is asked for a request."""
        if self._state.index is None:
            raise UserError(self._state.missing.get("search", "there is nothing to search with"))
        plus = [self._embed(text) for text in _texts(request.plus)] + [self._clip(one) for one in request.like]
        minus = [self._embed(text) for text in _texts(request.minus)] + [self._clip(one) for one in request.unlike]
        allowed = self.filters.allowed(request.filters)
        mask = self._is_known if allowed is None else self._is_known & allowed[self._rows]
        return Query(plus, minus, request.mixture, None if mask.all() else mask, request.limit, request.offset)

    def neighbours(self, clip_id: str, limit: int = 8) -> list[dict]:
        """Return the clips that are most like one, without it; none where it has no feature."""
        try:
            found = self.search(SearchRequest(like=[clip_id], limit=limit + 1))
        except UserError:
            return []
        return [hit for hit in found["hits"] if hit["clip_id"] != clip_id][:limit]

    def similarities(self, record: ClipRecord) -> list[float | None]:
        """Return the cosine of a clip and each of its captions, None where one of both has no feature."""
        if self._state.index is None:
            return [None] * len(record.captions)
        try:
            video = self._clip(record.clip_id).astype(np.float64)
        except UserError:
            return [None] * len(record.captions)
        return [float(video @ self._embed(line.text)) if line.text else None for line in record.captions]

    def _embed_text(self, text: str) -> np.ndarray:
        return self._state.towers.embed_texts([text])[0]

    def _clip(self, name: str) -> np.ndarray:
        """Return the feature of a clip of the corpus, or of an uploaded example."""
        example = self._examples.feature(name)
        if example is not None:
            return example
        feature = self._state.index.video_feature(name)
        if feature is None:
            raise UserError("this clip cannot be an example: the index has no feature of it", got=name)
        return feature

    def _browse(self, request: SearchRequest) -> dict:
        allowed = self.filters.allowed(request.filters)
        rows = np.arange(len(self._state.catalog)) if allowed is None else np.flatnonzero(allowed)
        shown = rows[request.offset : request.offset + request.limit]
        found = [self._told(int(row), None) for row in shown]
        return {"hits": found, "total": len(rows), "offset": request.offset, "took_ms": 0.0}

    def _told(self, row: int, similarity: float | None) -> dict:
        return {"similarity": similarity, **card_facts(self._state.catalog.record_at(row))}


def card_facts(record: ClipRecord) -> dict:
    """Return what a card of a clip shows."""
    line = shown_caption(record.captions)
    return {
        "clip_id": record.clip_id,
        "caption": line.text if line else None,
        "source": line.source if line else None,
        "topic": record.topic,
        "split": record.split,
        "duration_s": record.duration_s,
        "num_captions": sum(one.text is not None for one in record.captions),
        "flags": sorted({flag for one in record.captions for flag in one.flags}),
        "has_error": any(one.error for one in record.captions),
        "plays": plays_in_browsers(record),
    }


def shown_caption(lines: Sequence[CaptionLine]) -> CaptionLine | None:
    """Return the caption that stands for a clip: a human one where there is any."""
    written = [line for line in lines if line.text]
    return next((line for line in written if line.source == "human"), written[0] if written else None)


def _texts(given: Sequence[str]) -> list[str]:
    return [text.strip() for text in given if text.strip()]
