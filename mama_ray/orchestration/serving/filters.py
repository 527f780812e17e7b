"""Filters on a corpus: which clips a search may find, and what can be chosen from."""

from collections import Counter
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from mama_ray.data.clip import CAPTION_SOURCES, SPLITS
from mama_ray.errors import unknown_name
from mama_ray.orchestration.serving.catalog import Catalog

_MOST_LISTED = 200  # topics a page offers; others are searched by words

NO_TOPIC = ""


class Choice(BaseModel):
    """What a person has chosen; what is left out filters nothing."""

    model_config = ConfigDict(extra="forbid")

    splits: list[str] = Field(default=[], max_length=8)
    """Clips of one of these splits."""
    topics: list[str] = Field(default=[], max_length=256)
    """Clips of one of these topics; an empty text is no topic."""
    sources: list[str] = Field(default=[], max_length=8)
    """Clips with a caption of one of these sources."""
    min_duration_s: float | None = Field(default=None, ge=0)
    """Clips of at least so many seconds."""
    max_duration_s: float | None = Field(default=None, ge=0)
    """Clips of at most so many seconds."""
    flags: list[str] = Field(default=[], max_length=32)
    """Clips with a caption that has one of these flags of the quality gate."""
    without_flags: bool = False
    """Clips none of whose captions has a flag."""
    error: Literal["any", "with", "without"] = "any"
    """Clips with a caption that could not be written, or without one."""


class Filters:
    """Answers a choice with an array over the clips of a catalog; everything is counted once, at the start.

    Attributes:
        facets: per filter, what can be chosen and how many clips it has, the most frequent first.
    """

    def __init__(self, catalog: Catalog) -> None:
        clips = catalog.clips
        self._splits, self._topics = _codes(clips["split"]), _codes(clips["topic"])
        self._durations = clips["duration_s"].to_numpy()
        self._sources = _sources_of(catalog)
        self._flags = _flags_of(catalog)
        self._has_error = np.zeros(len(clips), bool)
        self._has_error[_rows_where(catalog, pc.is_valid(catalog.captions["error"]))] = True
        self._num_clips = len(clips)
        self.facets = self._count()

    def allowed(self, choice: Choice) -> np.ndarray | None:
        """Return bool (clips,), or None where the choice filters nothing. Raises UserError for an unknown name."""
        masks = [
            _one_of("split", choice.splits, self._splits),
            _one_of("topic", choice.topics, self._topics),
            _any_of("source", choice.sources, self._sources),
            _any_of("flag", choice.flags, self._flags),
        ]
        if choice.min_duration_s is not None:
            masks.append(self._durations >= choice.min_duration_s)
        if choice.max_duration_s is not None:
            masks.append(self._durations <= choice.max_duration_s)
        if choice.without_flags:
            masks.append(~np.any(list(self._flags.values()) or [np.zeros(self._num_clips, bool)], axis=0))
        if choice.error != "any":
            masks.append(self._has_error == (choice.error == "with"))
        given = [mask for mask in masks if mask is not None]
        return np.logical_and.reduce(given) if given else None

    def _count(self) -> dict:
        by_order = {name: number for number, name in enumerate((*SPLITS, *CAPTION_SOURCES))}
        topics = _counts(self._topics)
        return {
            "splits": sorted(_counts(self._splits), key=lambda one: by_order.get(one["name"], len(by_order))),
            "topics": topics[:_MOST_LISTED],
            "num_topics": len(topics),
            "sources": sorted(_sums(self._sources), key=lambda one: by_order.get(one["name"], len(by_order))),
            "flags": sorted(_sums(self._flags), key=lambda one: -one["count"]),
            "num_errors": int(self._has_error.sum()),
            "num_clips": self._num_clips,
            "min_duration_s": float(self._durations.min()) if self._num_clips else 0.0,
            "max_duration_s": float(self._durations.max()) if self._num_clips else 0.0,
        }


_Codes = tuple[dict[str, int], np.ndarray]


def _codes(column: pa.ChunkedArray) -> _Codes:
    """Return the number of each name, and the number of every clip's."""
    encoded = column.fill_null(NO_TOPIC).combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return {name: code for code, name in enumerate(encoded.dictionary.to_pylist())}, encoded.indices.to_numpy()


def _counts(codes: _Codes) -> list[dict]:
    names, values = codes
    counts = np.bincount(values, minlength=len(names)) if len(values) else np.zeros(len(names), int)
    found = [{"name": name, "count": int(counts[code])} for name, code in names.items()]
    return sorted(found, key=lambda one: (-one["count"], one["name"]))


def _sums(masks: dict[str, np.ndarray]) -> list[dict]:
    return [{"name": name, "count": int(mask.sum())} for name, mask in masks.items()]


def _one_of(kind: str, chosen: list[str], codes: _Codes) -> np.ndarray | None:
    names, values = codes
    _check(kind, chosen, names)
    return np.isin(values, [names[name] for name in chosen]) if chosen else None


def _any_of(kind: str, chosen: list[str], masks: dict[str, np.ndarray]) -> np.ndarray | None:
    _check(kind, chosen, masks)
    return np.any([masks[name] for name in chosen], axis=0) if chosen else None


def _check(kind: str, chosen: list[str], known: dict) -> None:
    for name in chosen:
        if name not in known:
            raise unknown_name(kind, name, list(known)[:50])


def _rows_where(catalog: Catalog, mask: pa.ChunkedArray) -> np.ndarray:
    return catalog.captions["row"].filter(mask).to_numpy()


def _sources_of(catalog: Catalog) -> dict[str, np.ndarray]:
    """Return bool (clips,) per source of which any clip has a caption."""
    own = catalog.clips["captions"].combine_chunks()
    flat, parents = pc.list_flatten(own), pc.list_parent_indices(own).to_numpy(zero_copy_only=False)
    pairs = [(parents, pc.struct_field(flat, "source"))]
    written = catalog.captions.filter(pc.is_valid(catalog.captions["caption"]))
    pairs.append((written["row"].to_numpy(), written["source"].combine_chunks()))
    found: dict[str, np.ndarray] = {}
    for rows, sources in pairs:
        for name in pc.unique(sources).drop_null().to_pylist():
            mask = found.setdefault(name, np.zeros(len(catalog), bool))
            mask[rows[pc.equal(sources, name).fill_null(False).to_numpy(zero_copy_only=False)]] = True
    return found


def _flags_of(catalog: Catalog) -> dict[str, np.ndarray]:
    flags = catalog.captions["flags"].combine_chunks()
    flat, parents = pc.list_flatten(flags), pc.list_parent_indices(flags).to_numpy(zero_copy_only=False)
    rows, names = catalog.captions["row"].to_numpy()[parents], flat.to_pylist()
    found: dict[str, np.ndarray] = {}
    for name in Counter(names):
        mask = found.setdefault(name, np.zeros(len(catalog), bool))
        mask[rows[pc.equal(flat, name).to_numpy(zero_copy_only=False)]] = True
    return found
