"""The clips of a corpus by their ids, and every caption of each: the index's own and those of caption tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.captioning.join import is_of_clip
from mama_ray.captioning.table import read_caption_files
from mama_ray.data.index import INDEX_SCHEMA, read_index
from mama_ray.storage.places import Place

_TABLE_COLUMNS = (
    "clip_id", "video_sha256", "sample", "caption", "source", "model", "similarity", "flags", "error",
)  # fmt: skip
_NOT_READ, _NOT_KEPT = ("truth", "questions", "video"), "source_sha256"


@dataclass(frozen=True)
class CaptionLine:
    """A caption, or why there is none; `table` is the name of its caption table, None for the shards' own."""

    text: str | None
    source: str
    index: int
    table: str | None = None
    model: str | None = None
    flags: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class ClipRecord:
    """What the index says of a clip; `row` is its row there."""

    row: int
    clip_id: str
    video_id: str
    shard: str
    offset: int
    num_bytes: int
    sha256: str
    start_s: float
    end_s: float
    duration_s: float
    width: int
    height: int
    fps: float
    codec: str
    extension: str
    split: str
    topic: str | None
    captions: tuple[CaptionLine, ...] = field(default=())


class Catalog:
    """The rows of a corpus, found by clip id in logarithmic time without a dictionary of them.

    Attributes:
        clips: the index's table, in its order.
        tables: names of the caption tables.
        captions: rows of the caption tables with a column `row` (int64, of the clip) and `table` (int32), sorted by
            row, table and sample; captions of clips that the index does not have, or that were written from other
            videos than its clips, are left out.
        num_foreign: how many those were.
    """

    def __init__(self, clips: pa.Table, tables: Sequence[tuple[str, pa.Table]] = ()) -> None:
        """tables: name and rows, with the columns of a caption table that are read here, of each."""
        self.clips = clips.drop_columns([name for name in clips.column_names if name in (*_NOT_READ, _NOT_KEPT)])
        self._order = pc.sort_indices(clips["clip_id"]).to_numpy()
        self._sorted_ids = clips["clip_id"].take(pa.array(self._order)).combine_chunks()
        self.tables = [name for name, _ in tables]
        self.captions, self.num_foreign = self._joined(clips, tables)
        self._first = np.searchsorted(self.captions["row"].to_numpy(), np.arange(len(clips) + 1))

    def __len__(self) -> int:
        return len(self.clips)

    def row_of(self, clip_id: str) -> int | None:
        """Return the row of a clip, None where the corpus has no such clip."""
        (row,) = self.rows_of([clip_id]) if _is_text(clip_id) else (-1,)
        return int(row) if row >= 0 else None

    def rows_of(self, clip_ids: Sequence[str] | pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Return the rows of clips, int64, -1 for ids that the corpus does not have."""
        if isinstance(clip_ids, (list, tuple)):
            return np.array([self._find(clip_id) for clip_id in clip_ids], np.int64)
        ids = clip_ids if isinstance(clip_ids, (pa.Array, pa.ChunkedArray)) else pa.array(clip_ids)
        found = pc.index_in(ids.cast(pa.large_string()), value_set=self.clips["clip_id"])
        return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)

    def record(self, clip_id: str) -> ClipRecord | None:
        """Return what is known of a clip, with all its captions; None where the corpus has no such clip."""
        row = self.row_of(clip_id)
        return None if row is None else self.record_at(row)

    def record_at(self, row: int) -> ClipRecord:
        """Return the same of a row."""
        values: dict[str, Any] = {name: self.clips[name][row].as_py() for name in self.clips.column_names}
        values["captions"] = tuple(self._captions_of(row, values["captions"]))
        return ClipRecord(row=row, **values)

    def _captions_of(self, row: int, own: list[dict] | None) -> list[CaptionLine]:
        lines, counts = [], {}
        for caption in own or ():
            number = counts.get(caption["source"], 0)
            counts[caption["source"]] = number + 1
            lines.append(CaptionLine(caption["text"], caption["source"], number))
        part = self.captions.slice(self._first[row], self._first[row + 1] - self._first[row])
        for written in part.to_pylist():
            lines.append(
                CaptionLine(
                    written["caption"], written["source"] or "generated", written["sample"] or 0,
                    self.tables[written["table"]], written["model"], tuple(written["flags"] or ()), written["error"],
                )
            )  # fmt: skip
        return lines

    def _find(self, clip_id: str) -> int:
        low, high = 0, len(self._sorted_ids)
        while low < high:
            middle = (low + high) // 2
            if self._sorted_ids[middle].as_py() < clip_id:
                low = middle + 1
            else:
                high = middle
        is_there = low < len(self._sorted_ids) and self._sorted_ids[low].as_py() == clip_id
        return int(self._order[low]) if is_there else -1

    def _joined(self, clips: pa.Table, tables: Sequence[tuple[str, pa.Table]]) -> tuple[pa.Table, int]:
        schema = pa.schema(
            [
                *[("row", pa.int64()), ("table", pa.int32()), ("sample", pa.int32()), ("caption", pa.large_string())],
                *[("source", pa.large_string()), ("model", pa.large_string()), ("similarity", pa.float32())],
                *[("flags", pa.large_list(pa.large_string())), ("error", pa.large_string())],
            ]
        )
        parts, num_foreign = [schema.empty_table()], 0
        for number, (_, table) in enumerate(tables):
            rows = self.rows_of(table["clip_id"])
            part = table.append_column("row", pa.array(rows, mask=rows < 0))
            part = part.append_column("table", pa.array(np.full(len(table), number, np.int32)))
            is_ours = is_of_clip(part, clips)
            num_foreign += len(table) - (pc.sum(is_ours).as_py() or 0)
            parts.append(part.select(schema.names).cast(schema).filter(is_ours))
        joined = pa.concat_tables(parts)
        return joined.sort_by([("row", "ascending"), ("table", "ascending"), ("sample", "ascending")]), num_foreign


def open_catalog(shards: Place, captions: Sequence[str] = ()) -> Catalog:
    """Read the index of a corpus and caption tables. Raises UserError where one is missing or damaged."""
    names = _names_of(captions)
    tables = [
        (name, pa.concat_tables(read_caption_files(Place.of(uri), columns=_TABLE_COLUMNS)))
        for name, uri in zip(names, captions, strict=True)
    ]
    columns = [name for name in INDEX_SCHEMA.names if name not in _NOT_READ and (captions or name != _NOT_KEPT)]
    return Catalog(read_index(shards, columns), tables)


def _names_of(uris: Sequence[str]) -> list[str]:
    """Return the last part of each, with a number where two are alike."""
    names: list[str] = []
    for uri in uris:
        name = Place.of(uri).name
        same = sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({same + 1})" if same else name)
    return names


def _is_text(clip_id: str) -> bool:
    try:
        clip_id.encode()
    except UnicodeEncodeError:
        return False
    return True
