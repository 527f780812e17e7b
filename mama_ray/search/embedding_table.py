"""The table of embeddings that jobs/index.py writes, in memory: arrays that search reads as they are."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.errors import UserError
from mama_ray.search.embedding_parts import (
    INDEX_AGAIN,
    SUMMARY_NAME,
    PartCounts,
    TableIdentity,
    read_identity,
    read_part,
    read_summary,
)
from mama_ray.storage.places import Place

_NORM_TOLERANCE = 0.02  # far above the rounding of float16
_READERS, _MOST_AHEAD = 8, 8192  # of parts of an object store; clips, some 30 MB, that wait in memory


@dataclass(frozen=True)
class EmbeddingTable:
    """The features of a corpus in memory.

    Attributes:
        identity: of which model and shards.
        clip_ids: large_string (n,), one chunk.
        video: float16 (n, dim), unit norm; zeros where has_video is False.
        has_video: bool (n,).
        captions: float16 (c, dim), unit norm, those of a clip one behind the other.
        caption_offsets: int64 (n + 1,); the captions of row i are [offsets[i], offsets[i + 1]).
        caption_sources: dictionary of strings (c,), such as human, generated, rephrased.
        caption_numbers: int32 (c,), the number of a caption among its clip's of the same source.
        first_row: where a share of a table begins in the whole one.
    """

    identity: TableIdentity
    clip_ids: pa.LargeStringArray
    video: np.ndarray
    has_video: np.ndarray
    captions: np.ndarray
    caption_offsets: np.ndarray
    caption_sources: pa.DictionaryArray
    caption_numbers: np.ndarray
    first_row: int = 0

    @classmethod
    def open(cls, uri: str, share: tuple[int, int] = (0, 1)) -> "EmbeddingTable":
        """Read a finished table into memory, or of n about equal shares one: (number, n).

        UserError where there is none, or a damaged one.
        """
        folder = Place.of(uri)
        identity, parts = read_identity(folder), read_summary(folder)
        parts, first_row = _share_of(parts, *share)
        filling = _Filling(identity.dim, parts)
        for name, part in _in_order(folder, identity.dim, parts, ("clip_id", "video", "captions")):
            filling.add(folder / name, part)
            pa.default_memory_pool().release_unused()  # it keeps what parts were read into, a third of the table
        table = filling.table(identity, first_row)
        del filling
        pa.default_memory_pool().release_unused()
        return table

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def dim(self) -> int:
        """Length of a feature."""
        return self.identity.dim

    @property
    def num_bytes(self) -> int:
        """Bytes of the features."""
        return self.video.nbytes + self.captions.nbytes

    @cached_property
    def id_rank(self) -> np.ndarray:
        """int32 (n,): the place of each row's clip id among the sorted ones, by which equals are put in order."""
        rank = np.empty(len(self), np.int32)
        rank[pc.sort_indices(self.clip_ids).to_numpy()] = np.arange(len(self), dtype=np.int32)
        return rank

    def row_of(self, clip_id: str) -> int | None:
        """Return the row of a clip, None where there is no such clip."""
        row = pc.index(self.clip_ids, pa.scalar(clip_id, pa.large_string())).as_py()
        return row if row >= 0 else None

    def video_feature(self, clip_id: str) -> np.ndarray | None:
        """Return a clip's feature, float32 (dim,); None where there is no such clip, or it has none."""
        row = self.row_of(clip_id)
        return self.video[row].astype(np.float32) if row is not None and self.has_video[row] else None

    def caption_rows(self, row: int) -> range:
        """Return which captions are a clip's."""
        return range(int(self.caption_offsets[row]), int(self.caption_offsets[row + 1]))

    def require_model(self, model_hash: str) -> None:
        """Raise UserError unless the features are of that model."""
        require_model(self.identity, model_hash)


def require_model(identity: TableIdentity, model_hash: str) -> None:
    """Raise UserError unless a table's features are of the model that reads the queries."""
    if identity.model_hash != model_hash:
        raise UserError(
            "the index is of another model",
            got=f"{identity.model} ({identity.model_hash[:12]})",
            wanted=f"the model that reads the query ({model_hash[:12]})",
            remedy="run jobs/index.py with this model and another --output, or search with the index's own",
        )


def read_clip_ids(uri: str) -> pa.LargeStringArray:
    """Return the clip ids of a finished table in the order of its rows."""
    folder = Place.of(uri)
    dim, parts = read_identity(folder).dim, read_summary(folder)
    in_order = _in_order(folder, dim, dict(sorted(parts.items())), ("clip_id",))
    ids = [part["clip_id"].cast(pa.large_string()) for _, part in in_order]
    return pa.chunked_array([chunk for column in ids for chunk in column.chunks], pa.large_string()).combine_chunks()


def _in_order(
    folder: Place, dim: int, parts: Mapping[str, PartCounts], columns: Sequence[str]
) -> Iterator[tuple[str, pa.Table]]:
    """Yield the parts by name; of an object store some are read beside each other, as each takes several answers."""
    if folder.is_local:
        yield from ((name, read_part(folder / name, dim, columns)) for name in parts)
        return
    waiting: deque[tuple[str, Future[pa.Table]]] = deque()
    num_clips = 0
    with ThreadPoolExecutor(_READERS, thread_name_prefix="parts") as pool:
        for name, counts in parts.items():
            waiting.append((name, pool.submit(read_part, folder / name, dim, columns)))
            num_clips += counts.num_clips
            while waiting and (len(waiting) > _READERS or num_clips > _MOST_AHEAD):
                first, part = waiting.popleft()
                num_clips -= parts[first].num_clips
                yield first, part.result()
        yield from ((name, part.result()) for name, part in waiting)


def _share_of(parts: Mapping[str, PartCounts], number: int, of: int) -> tuple[dict[str, PartCounts], int]:
    """Return the parts of a share, which follow each other, and the row of the whole table where it begins."""
    num_clips = sum(counts.num_clips for counts in parts.values())
    chosen: dict[str, PartCounts] = {}
    start = first_row = 0
    for name in sorted(parts):
        is_ours = start * of // max(num_clips, 1) == number
        if is_ours:
            first_row = first_row if chosen else start
            chosen[name] = parts[name]
        start += parts[name].num_clips
    return chosen, first_row


class _Filling:
    """Arrays for a whole table, filled part by part: memory is that of the table and of one part."""

    def __init__(self, dim: int, parts: Mapping[str, PartCounts]) -> None:
        num_clips, num_captions = (sum(getattr(one, key) for one in parts.values()) for key in PartCounts.model_fields)
        self._parts, self._ids, self._sources = parts, [], []
        self._video, self._has_video = np.zeros((num_clips, dim), np.float16), np.zeros(num_clips, bool)
        self._captions, self._numbers = np.zeros((num_captions, dim), np.float16), np.zeros(num_captions, np.int32)
        self._offsets = np.zeros(num_clips + 1, np.int64)
        self._row = self._caption = 0

    def add(self, place: Place, part: pa.Table) -> None:
        captions = part["captions"].combine_chunks()
        flat = captions.flatten()
        counts = self._parts[place.name]
        if (len(part), len(flat)) != (counts.num_clips, counts.num_captions):
            got = f"{len(part)} clips, {len(flat)} captions"
            wanted = f"{counts.num_clips} clips, {counts.num_captions} captions"
            raise UserError(
                f"{place} is another part than {SUMMARY_NAME} says", got=got, wanted=wanted, remedy=INDEX_AGAIN
            )
        rows, own = slice(self._row, self._row + len(part)), slice(self._caption, self._caption + len(flat))
        video = part["video"].combine_chunks()
        self._has_video[rows] = video.is_valid().to_numpy(zero_copy_only=False)
        self._video[rows][self._has_video[rows]] = _values(place, video, self._video.shape[1])
        self._captions[own] = _values(place, flat.field("feature"), self._video.shape[1])
        self._numbers[own] = flat.field("index").to_numpy()
        lengths = pc.list_value_length(captions).to_numpy(zero_copy_only=False)
        self._offsets[rows.start + 1 : rows.stop + 1] = self._caption + np.cumsum(lengths)
        self._ids.append(part["clip_id"].cast(pa.large_string()).combine_chunks())
        self._sources.append(flat.field("source").dictionary_encode())
        self._row, self._caption = rows.stop, own.stop

    def table(self, identity: TableIdentity, first_row: int) -> EmbeddingTable:
        sources = pa.chunked_array(self._sources, pa.dictionary(pa.int32(), pa.string())).unify_dictionaries()
        return EmbeddingTable(
            identity=identity,
            clip_ids=pa.chunked_array(self._ids, pa.large_string()).combine_chunks(),
            video=self._video,
            has_video=self._has_video,
            captions=self._captions,
            caption_offsets=self._offsets,
            caption_sources=sources.combine_chunks(),
            caption_numbers=self._numbers,
            first_row=first_row,
        )


def _values(place: Place, features: pa.FixedSizeListArray, dim: int) -> np.ndarray:
    """Return the features that are not null, float16 (rows, dim); UserError unless they are of unit norm, as search
    takes them for granted.
    """
    values = features.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    wide = values.astype(np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    if not (np.abs(norms - 1) < _NORM_TOLERANCE).all():
        got = f"norm {norms[~(np.abs(norms - 1) < _NORM_TOLERANCE)][0]}"
        raise UserError(f"{place} has features that are no unit vectors", got=got, remedy=INDEX_AGAIN)
    return values
