"""The training clips of a large corpus, chosen without holding them: rows of the index with a bit for each.

What adds to clips or draws among them (caption tables, exclusions, shares, classes, questions, a drawn meta-set) holds
their table all the same.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.data.clip import SPLITS
from mama_ray.data.index import has_caption
from mama_ray.data.index_rows import Chosen, IndexRows, check_index
from mama_ray.errors import UserError
from mama_ray.orchestration.training.settings import DataConfig
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)

_SHARED = {"clip_id": "clips", "video_id": "videos", "sha256": "bytes"}
_ROWS_AT_ONCE = 1 << 16
Rows = pa.Table | IndexRows


def rows_of_splits(folder: Place, columns: Sequence[str]) -> dict[str, IndexRows]:
    """Check index and shards; return the rows of each split."""
    index, splits = check_index(folder)
    chosen = {split: Chosen.of(splits == place) for place, split in enumerate(SPLITS)}
    return {split: IndexRows(index, tuple(columns), own) for split, own in chosen.items()}


def read_splits(
    rows: dict[str, IndexRows], config: DataConfig, *, max_held: int | None
) -> tuple[dict[str, pa.Table], bool]:
    """Read the splits; return their tables, and whether the rows of train stay where they are, as those of more than
    `max_held` clips do. An empty table stands for them then.
    """
    is_large = max_held is not None and len(rows["train"]) > max_held
    is_served = is_large and _takes_rows_as_they_are(config, rows["train"])
    return {split: own.read(0 if is_served and split == "train" else None) for split, own in rows.items()}, is_served


def _takes_rows_as_they_are(config: DataConfig, train: IndexRows) -> bool:
    """Tell whether the training clips need nothing but their rows of the index, whose truth is not recorded."""
    if config.caption_tables or config.exclude or config.meta_draw or config.shares or config.classes:
        return False
    return all(table["truth"].null_count == len(table) for table in train.tables(["truth"]))


def choose_rows(train: IndexRows, mix: dict[str, float] | None) -> tuple[IndexRows, int]:
    """Return the rows with a caption of a source that is drawn from, and how many have none."""
    assert train.chosen is not None
    wanted = np.zeros(len(train.index), bool)
    start = 0
    for table in train.index.tables(["captions"]):
        wanted[start : start + len(table)] = has_caption(table["captions"].combine_chunks(), mix)
        wanted[start : start + len(table)] &= train.chosen.mask(start, start + len(table))
        start += len(table)
    chosen = replace(train, chosen=Chosen.of(wanted))
    return chosen, len(train) - len(chosen)


def tables_of(rows: Rows, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the rows, some at a time, with some of their columns."""
    if isinstance(rows, IndexRows):
        yield from rows.tables(columns)
    else:
        yield rows.select(columns)


def refuse_overlap(tables: dict[str, Rows], *, is_begun: bool = False) -> None:
    """Raise UserError if a clip of train or meta, its video or its very bytes are in val or test as well: what is
    learned from would be measured on. Of a run that has begun, what train shares is told alone."""
    for learned, measured in product(("train", "meta"), ("val", "test")):
        for column in ("clip_id", "video_id", "sha256"):
            theirs = pa.concat_tables(list(tables_of(tables[measured], [column])))[column].combine_chunks()
            if not len(theirs):
                continue
            num_shared, shown = 0, []
            for ours in tables_of(tables[learned], list(dict.fromkeys(["clip_id", column]))):
                shared = ours["clip_id"].filter(pc.is_in(ours[column], value_set=theirs))
                num_shared += len(shared)
                shown += shared[: 3 - len(shown)].to_pylist()
            if num_shared:
                _tell(learned, measured, column, num_shared, shown, is_begun=is_begun)


def _tell(learned: str, measured: str, column: str, count: int, shown: list[str], *, is_begun: bool) -> None:
    error = UserError(
        f"{'meta-set' if learned == 'meta' else learned} overlaps {measured} by {column}",
        got=f"{count} clips, among them {shown}",
        wanted=f"{learned} without the {_SHARED[column]} of {measured}",
        remedy="give these clips, or those of the other split, another split in the annotations, and "
        "prepare into another folder",
    )
    if not is_begun or learned == "meta":
        raise error
    logger.warning("%s", error)
