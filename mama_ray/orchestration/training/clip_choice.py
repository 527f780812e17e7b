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

_CLIPS_AT_ONCE = 1 << 20


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
    other_mix = mix_of_others(config)
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


def mix_of_others(config: DataConfig) -> dict[str, float] | None:
    """Return the sources of which another split's clips must have one, None where any will do."""
    # A mix without human captions is about the tables' captions, which the other splits have none of.
    is_of_tables = bool(config.caption_tables and config.mix and not config.mix.get("human"))
    return None if is_of_tables else config.mix


def draw_meta_set(train: pa.Table, num_clips: int, *, seed: int) -> tuple[pa.Table, pa.Table]:
    """Return (train without the drawn clips, meta-set): equal counts per topic as far as topics reach."""
    topics = np.array([topic or "" for topic in train.column("topic").to_pylist()])
    drawn = draw_by_topic(np.unique(topics, return_inverse=True)[1], num_clips, seed=seed)
    rest = np.setdiff1d(np.arange(len(train)), drawn)
    return train.take(pa.array(rest)), train.take(pa.array(drawn))


def draw_by_topic(topics: np.ndarray, num_clips: int, *, seed: int) -> np.ndarray:
    """Return the places of so many clips, ascending: equal counts per topic as far as topics reach.

    topics: the number of each clip's topic. Memory is four bytes for each clip, but for these numbers.
    """
    if num_clips >= len(topics):
        raise UserError("meta_draw takes all training clips", got=num_clips, wanted=f"fewer than {len(topics)}")
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x6D657461]))
    order = rng.permutation(np.arange(len(topics), dtype=np.int32 if len(topics) < 1 << 31 else np.int64))
    # The k-th clip of its topic gets turn k: taking turns in order spreads the draw over topics evenly.
    sizes = np.bincount(topics)
    last = _last_turn(sizes, num_clips)
    counts = np.zeros(len(sizes), np.int64)
    places, turns = [], []
    for start in range(0, len(order), _CLIPS_AT_ONCE):
        own = order[start : start + _CLIPS_AT_ONCE]
        of_topic = topics[own].astype(np.int64)
        by_topic = np.argsort(of_topic, kind="stable")
        here = np.bincount(of_topic, minlength=len(sizes))
        own_turns = np.empty(len(own), np.int64)
        own_turns[by_topic] = np.arange(len(own)) + np.repeat(counts - (np.cumsum(here) - here), here)
        counts += here
        places.append(own[own_turns <= last])
        turns.append(own_turns[own_turns <= last])
    found = np.concatenate(places)[np.argsort(np.concatenate(turns), kind="stable")][:num_clips]
    return np.sort(found).astype(np.int64)


def _last_turn(sizes: np.ndarray, num_clips: int) -> int:
    """Return the turn in which the last of so many clips is drawn of topics of these sizes."""
    low, high = 0, int(sizes.max(initial=0))
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if np.minimum(sizes, middle + 1).sum() >= num_clips else (middle + 1, high)
    return low
