"""What `clip_choice.py` does with the clips of a table, done with rows of an index that no process holds.

Clips are told by bits of the index's rows as long as nothing but their number changes. Where captions come or go, the
training clips are written as an index of their own, in the run's folder, whose rows are read as those of any index.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.auditing.exclusion_table import ExclusionTable
from mama_ray.auditing.exclusions import ExclusionCounts, sum_counts
from mama_ray.captioning.join import TableUse
from mama_ray.captioning.large_join import LargeJoin, ReadTable, large_join
from mama_ray.captioning.table import read_caption_files
from mama_ray.data.index import has_caption, select_captioned
from mama_ray.data.index_file import write_rows
from mama_ray.data.index_rows import Chosen, IndexRows
from mama_ray.orchestration.training.clip_choice import draw_by_topic, mix_of_others
from mama_ray.orchestration.training.settings import DataConfig
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)

_IDS_AND_CAPTIONS = ("clip_id", "captions")


@dataclass(frozen=True)
class LargeChoice:
    """The clips of the splits, train as rows that are read; the rest is as `choose_clips` returns it."""

    train: IndexRows
    others: dict[str, pa.Table]
    num_uncaptioned: dict[str, int]
    uses: dict[str, TableUse]
    num_excluded: dict[str, int]


def choose_large(
    train: IndexRows,
    others: dict[str, pa.Table],
    config: DataConfig,
    seed: int,
    *,
    excluded: ExclusionTable | None,
    work: Place | None,
) -> LargeChoice:
    """Do what `choose_clips` does; `others` are the tables of the other splits.

    work: folder for an index of the training clips, which is needed where `writes_clips` says so. Memory is that of
    some hundred thousand clips, a few bytes for each row of train, eight where a meta-set is drawn of them.
    """
    choice = _Choosing(train, excluded)
    meta, uses = others["meta"], {}
    if _is_joined_first(config):
        assert work is not None
        meta, uses = choice.join(config, work, meta)
    elif excluded is not None:
        choice.leave_out_clips()
    meta, *of_meta = _left(excluded, meta)
    chosen = {
        split: select_captioned(table, mix_of_others(config)) for split, table in (others | {"meta": meta}).items()
    }
    num_uncaptioned = {split: len((others | {"meta": meta})[split]) - len(table) for split, table in chosen.items()}
    if config.meta_draw:
        chosen["meta"] = choice.draw(config, seed)
    if not _is_joined_first(config) and (excluded is not None or config.caption_tables):
        assert work is not None
        _, uses = choice.join(config, work, meta.slice(0, 0))
    selected, lost = choice.select(config.mix)
    return LargeChoice(
        selected, chosen, num_uncaptioned | {"train": lost}, uses, sum_counts([*choice.counts, *of_meta])
    )


def writes_clips(config: DataConfig) -> bool:
    """Tell whether the training clips become an index of their own."""
    return bool(config.caption_tables or config.exclude)


def _is_joined_first(config: DataConfig) -> bool:
    """Tell whether clips get captions before any is left out or drawn."""
    return config.meta_captions == "all" and bool(config.caption_tables)


class _Choosing:
    """The training clips on their way: rows, with what is still to be left out of those that are read."""

    def __init__(self, rows: IndexRows, excluded: ExclusionTable | None) -> None:
        self.rows, self._excluded = rows, excluded
        self.counts: list[ExclusionCounts] = []

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the rows as they are without excluded captions."""
        for table in self.rows.tables(columns):
            yield table if self._excluded is None else self._excluded.mark(table)[0]

    def leave_out_clips(self) -> None:
        """Take away the clips that are excluded, and count their and the others' excluded captions."""
        assert self._excluded is not None
        keep = []
        for table in self.rows.tables(_IDS_AND_CAPTIONS):
            _, own, counts = self._excluded.mark(table)
            keep.append(own)
            self.counts.append(counts)
        self._keep(keep)

    def select(self, mix: dict[str, float] | None) -> tuple[IndexRows, int]:
        """Return the rows with a caption of a source that is drawn from, and how many have none."""
        before = self.rows
        self._keep(self._captioned(mix))
        selected, self.rows = self.rows, before
        return selected, len(before) - len(selected)

    def draw(self, config: DataConfig, seed: int) -> pa.Table:
        """Take the meta-set away from the clips, and return it."""
        selected, _ = self.select(mix_of_others(config))
        places = draw_by_topic(_codes_of(selected), config.meta_draw, seed=seed)
        meta = selected.take(places)
        meta = meta if self._excluded is None else self._excluded.mark(meta)[0]
        drawn = selected.rows_at(places)
        mask = np.ones(len(self.rows.index), bool)
        mask[drawn] = False
        self._keep_rows(mask)
        return meta

    def join(self, config: DataConfig, work: Place, meta: pa.Table) -> tuple[pa.Table, dict[str, TableUse]]:
        """Write the clips with the captions of the tables, without what is excluded, as an index; it has the rows now.

        meta: clips that get captions as well; none where the training clips alone do, of which excluded ones were taken
        away already. Returns these clips, and what was used of each table.
        """
        tables = {uri: _reads(uri) for uri in config.caption_tables}
        num_train, metas = len(self.rows), [meta] if len(meta) else []
        ids = chain(self.rows.tables(["clip_id"]), (table.select(["clip_id"]) for table in metas))
        joining = large_join(ids, tables, exclude_flags=config.exclude_flags) if tables else nullcontext()
        sizes = self.rows.index.shard_sizes()
        with joining as found:
            read = self.rows.tables if _is_joined_first(config) else self.tables
            clips = chain(read(self.rows.columns), metas)
            of_meta: list[pa.Table] = []
            written = self._written(clips, found, num_train, of_meta)
            index = write_rows(work / "clips.parquet", written, self.rows.columns, sizes)
        self.rows, self._excluded = IndexRows(index, self.rows.columns), None
        joined = pa.concat_tables(of_meta) if of_meta else meta
        return joined, {} if found is None else found.uses

    def _written(
        self, clips: Iterable[pa.Table], found: LargeJoin | None, num_train: int, of_meta: list[pa.Table]
    ) -> Iterator[pa.Table]:
        """Yield the training clips as they are written; what comes behind them goes to `of_meta`."""
        start = 0
        for table in clips if found is None else found.add_to(clips):
            own, other = table.slice(0, max(0, num_train - start)), table.slice(max(0, num_train - start))
            start += len(table)
            if len(other):
                of_meta.append(other)
            if len(own) and self._excluded is not None:
                own, *counts = _left(self._excluded, own)
                self.counts += counts
            yield own

    def _captioned(self, mix: dict[str, float] | None) -> Iterator[np.ndarray]:
        for table in self.tables(_IDS_AND_CAPTIONS if self._excluded is not None else ("captions",)):
            yield has_caption(table["captions"].combine_chunks(), mix)

    def _keep(self, keep: Iterable[np.ndarray]) -> None:
        """Keep some of the rows: bool, as many as they come in."""
        mask, start = np.zeros(len(self.rows.index), bool), 0
        for own in keep:
            mask[self.rows.rows_at(np.arange(start, start + len(own)))] = own
            start += len(own)
        self._keep_rows(mask)

    def _keep_rows(self, mask: np.ndarray) -> None:
        chosen = self.rows.chosen
        bits = np.packbits(mask) if chosen is None else np.packbits(mask) & chosen.bits
        self.rows = replace(self.rows, chosen=Chosen.of_bits(bits))


def _left(excluded: ExclusionTable | None, clips: pa.Table) -> tuple[pa.Table, ExclusionCounts]:
    if excluded is None:
        return clips, ExclusionCounts(0, 0)
    clips, keep, counts = excluded.mark(clips)
    return clips.filter(pa.array(keep)), counts


def _reads(uri: str) -> ReadTable:
    return lambda columns: read_caption_files(Place.of(uri), columns=columns)


def _codes_of(rows: IndexRows) -> np.ndarray:
    """Return a number for the topic of each row, of as few bytes as do; a clip without one is of the topic ""."""
    places: dict[str, int] = {}
    parts = [np.empty(0, np.uint8)]
    for table in rows.tables(["topic"]):
        own = pc.dictionary_encode(pc.fill_null(table["topic"].combine_chunks(), ""))
        codes = np.array([places.setdefault(topic, len(places)) for topic in own.dictionary.to_pylist()], np.int64)
        parts.append(codes[own.indices.to_numpy()].astype(np.min_scalar_type(max(len(places) - 1, 0))))
    return np.concatenate(parts)
