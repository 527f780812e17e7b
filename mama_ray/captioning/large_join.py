"""Joins caption tables to more clips than a process holds: what `join.py` does, a range of clips at a time.

Hashes of ids, 16 bytes for each clip and caption, are sorted into ranges on this machine's disk, where each caption
finds the row of its clip; then captions are sorted by ranges of clips there, some 100 bytes for each. Clips read in
order afterwards get theirs. Two ids with the same 64 bits are one here: for 100 million that is one case in 4,000.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.captioning.join import COLUMNS, CaptionUse, TableUse, append_captions, refuse_strangers
from mama_ray.data.index_rows import batches_of
from mama_ray.data.range_files import RangeFiles, RangeTables, range_files
from mama_ray.data.unique_ids import NUM_RANGES, hashes_of_ids, range_of_hash

_CLIPS_PER_RANGE = 1 << 16
_CAPTIONS_PER_RANGE = 1 << 16
_ID = np.dtype([("hash", "<u8"), ("row", "<i8")])
_PAIR = np.dtype([("place", "<i8"), ("row", "<i8")])
_TEXT = pa.large_string()
# A flagged caption has no text here: it is only to be of its clip's video.
_FOUND = pa.schema(
    [("row", pa.int64()), ("table", pa.int32()), ("video_sha256", _TEXT), ("caption", _TEXT), ("source", _TEXT)]
)
ReadTable = Callable[[Sequence[str]], Iterable[pa.Table]]
"""Gives the parts of a table, in order, with some of its columns, as often as it is called."""


@dataclass(frozen=True)
class LargeJoin:
    """Captions of tables that lie on this machine's disk by ranges of clips.

    Attributes:
        uses: what was used of each table.
    """

    uses: dict[str, TableUse]
    found: RangeTables
    _strangers: dict[str, list] = field(default_factory=dict)

    def add_to(self, clips: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield the clips with their captions behind those they had.

        clips: the very rows, in order, whose ids were given, with clip_id, sha256 and captions, perhaps source_sha256.
        Raises UserError, behind the last, for a table that was written from other videos.
        """
        for number, batch in enumerate(batches_of(clips, _CLIPS_PER_RANGE)):
            found = self.found.read(number)
            rows = pc.subtract(found["row"], number * _CLIPS_PER_RANGE)
            found = found.set_column(0, "row", rows)
            self._note_strangers(batch, found)
            found = found.filter(pc.is_valid(found["caption"])).select(["row", "caption", "source"])
            captions = append_captions(batch["captions"].combine_chunks(), [found])
            yield batch.set_column(batch.schema.get_field_index("captions"), "captions", captions)
        for name, (count, *first) in self._strangers.items():
            refuse_strangers(name, count, *first)

    def _note_strangers(self, batch: pa.Table, found: pa.Table) -> None:
        columns = [name for name in ("sha256", "source_sha256") if name in batch.column_names]
        same = [
            pc.fill_null(pc.equal(found["video_sha256"], batch[name].cast(_TEXT).take(found["row"])), False)
            for name in columns
        ]
        others = found.filter(pc.invert(reduce(pc.or_, same)))
        for number in pc.unique(others["table"]).to_pylist():
            own = others.filter(pc.equal(others["table"], number))
            clip = batch.select(["clip_id", "sha256"]).take(own["row"][:1]).to_pylist()[0]
            first = [0, clip["clip_id"], own["video_sha256"][0].as_py(), clip["sha256"]]
            self._strangers.setdefault(list(self.uses)[number], first)[0] += len(own)


@contextmanager
def large_join(
    ids: Iterable[pa.Table], tables: Mapping[str, ReadTable], *, exclude_flags: Sequence[str]
) -> Iterator[LargeJoin]:
    """Find the clips of the captions of tables; the block may add them to the clips, and its end deletes the files.

    Args:
        ids: the clips in order, with clip_id.
        tables: by name, what reads each table.
        exclude_flags: captions with one of these flags are left out.

    Raises UserError for a table of which nothing can be used.
    """
    with ExitStack() as stack:
        clips = stack.enter_context(range_files(_ID))
        _hash_ids(ids, clips)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mama_ray-captions-"))
        found = RangeTables(Path(folder), _FOUND)
        uses = {}
        for number, (name, read) in enumerate(tables.items()):
            with range_files(_PAIR) as pairs:
                with range_files(_ID) as captions:
                    _hash_ids(read(["clip_id"]), captions)
                    _match(clips, captions, pairs)
                uses[name] = _choose(name, number, read(COLUMNS), pairs, found, list(exclude_flags))
        yield LargeJoin(uses, found)


def _hash_ids(tables: Iterable[pa.Table], files: RangeFiles) -> None:
    start = 0
    for table in tables:
        hashes = hashes_of_ids(pc.fill_null(table["clip_id"], "").to_pylist())
        rows = np.arange(start, start + len(table))
        files.add(range_of_hash(hashes), np.rec.fromarrays([hashes, rows], dtype=_ID))
        start += len(table)


def _match(clips: RangeFiles, captions: RangeFiles, pairs: RangeFiles) -> None:
    """Write the clip's row of each caption that has one, by ranges of captions."""
    for number in range(NUM_RANGES):
        own, asked = clips.read(number), captions.read(number)
        own = own[np.argsort(own["hash"], kind="stable")]
        places = np.searchsorted(own["hash"], asked["hash"])
        has_clip = places < len(own)
        has_clip[has_clip] = own["hash"][places[has_clip]] == asked["hash"][has_clip]
        captioned = asked["row"][has_clip]
        records = np.rec.fromarrays([captioned, own["row"][places[has_clip]]], dtype=_PAIR)
        pairs.add(captioned // _CAPTIONS_PER_RANGE, records)


def _choose(
    name: str, number: int, parts: Iterable[pa.Table], pairs: RangeFiles, found: RangeTables, exclude_flags: list[str]
) -> TableUse:
    use = CaptionUse(name, exclude_flags)
    for batch_number, part in enumerate(batches_of((part.select(COLUMNS) for part in parts), _CAPTIONS_PER_RANGE)):
        rows = np.full(len(part), -1, np.int64)
        records = pairs.read(batch_number)
        rows[records["place"] - batch_number * _CAPTIONS_PER_RANGE] = records["row"]
        part, is_used = use.take(part, pa.array(rows, mask=rows < 0))
        columns = {
            "row": part["row"],
            "table": pa.array(np.full(len(part), number, np.int32)),
            "video_sha256": part["video_sha256"],
            "caption": pc.if_else(pa.array(is_used), part["caption"], None),
            "source": part["source"],
        }
        found.add(part["row"].to_numpy() // _CLIPS_PER_RANGE, pa.table(columns).cast(_FOUND))
    return use.result()
