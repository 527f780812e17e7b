"""Which clips of each split a run learns from, and with which captions: generated ones of tables join, what is excluded
goes, the meta-set is drawn.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.auditing.exclusions import Exclusion, leave_out, sum_counts
from mama_ray.captioning.join import COLUMNS, TableUse, join_captions
from mama_ray.captioning.table import read_caption_files
from mama_ray.data.index import select_captioned
from mama_ray.errors import UserError
from mama_ray.orchestration.training.settings import DataConfig
from mama_ray.storage.places import Place


def choose_clips(
    tables: dict[str, pa.Table],
    config: DataConfig,
    seed: int,
    *,
    needs_captions: bool = True,
    excluded: Sequence[Exclusion] = (),
) -> tuple[dict[str, pa.Table], dict[str, int], dict[str, TableUse], dict[str, int]]:
    """Leave out what is excluded, add the captions of the caption tables, draw the meta-set and leave out clips without
    a needed caption.

    Returns the splits, how many clips each lost for want of a caption, what was used of each table, and what was
    excluded.
    """
    train, meta, uses = tables["train"], tables["meta"], {}
    if config.meta_captions == "all":
        both, uses = _join(pa.concat_tables([train, meta]).combine_chunks(), config)
        train, meta = both.slice(0, len(train)), both.slice(len(train))
    (train, *counts), (meta, *of_meta) = leave_out(train, excluded), leave_out(meta, excluded)
    # A mix without human captions is about the tables' captions, which the other splits have none of.
    is_of_tables = bool(config.caption_tables and config.mix and not config.mix.get("human"))
    other_mix = None if is_of_tables else config.mix
    select = select_captioned if needs_captions else lambda clips, _: clips
    tables = tables | {"train": train, "meta": meta}
    chosen = {split: select(table, other_mix) for split, table in tables.items()}
    num_uncaptioned = {split: len(tables[split]) - len(table) for split, table in chosen.items()}
    if config.meta_draw:
        _, chosen["meta"] = draw_meta_set(chosen["train"], config.meta_draw, seed=seed)
        drawn = chosen["meta"]["clip_id"].combine_chunks()
        train = train.filter(pc.invert(pc.is_in(train["clip_id"], value_set=drawn)))
    if config.meta_captions == "human":  # after the draw, which is then the same with tables as without
        train, uses = _join(train, config)
        train, *of_tables = leave_out(train, excluded)
        counts += of_tables
    chosen["train"] = select(train, config.mix)
    num_excluded = sum_counts([*counts, *of_meta])
    return chosen, num_uncaptioned | {"train": len(train) - len(chosen["train"])}, uses, num_excluded


def _join(clips: pa.Table, config: DataConfig) -> tuple[pa.Table, dict[str, TableUse]]:
    files = {uri: read_caption_files(Place.of(uri), columns=COLUMNS) for uri in config.caption_tables}
    return join_captions(clips, files, exclude_flags=config.exclude_flags)


def draw_meta_set(train: pa.Table, num_clips: int, *, seed: int) -> tuple[pa.Table, pa.Table]:
    """Return (train without the drawn clips, meta-set): equal counts per topic as far as topics reach."""
    if num_clips >= len(train):
        raise UserError("meta_draw takes all training clips", got=num_clips, wanted=f"fewer than {len(train)}")
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x6D657461]))
    topics = np.array([topic or "" for topic in train.column("topic").to_pylist()])
    order = rng.permutation(len(train))
    # The k-th clip of its topic gets turn k: taking turns in order spreads the draw over topics evenly.
    turns = np.empty(len(train), np.int64)
    for topic in np.unique(topics):
        members = order[topics[order] == topic]
        turns[members] = np.arange(len(members))
    drawn = np.sort(order[np.argsort(turns[order], kind="stable")][:num_clips])
    rest = np.setdiff1d(np.arange(len(train)), drawn)
    return train.take(pa.array(rest)), train.take(pa.array(drawn))
