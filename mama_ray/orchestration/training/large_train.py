"""The splits of a corpus as a run reads them: tables, and of a large one rows of the index for the training clips.

Classes, questions and the columns that a weight net sees hold the clips' table all the same.
"""

import logging
from collections.abc import Sequence
from itertools import product

import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.data.clip import SPLITS
from mama_ray.data.index_rows import Chosen, IndexRows, check_index, tables_of
from mama_ray.errors import UserError
from mama_ray.orchestration.training.large_choice import writes_clips
from mama_ray.orchestration.training.settings import DataConfig
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)

_SHARED = {"clip_id": "clips", "video_id": "videos", "sha256": "bytes"}
Rows = pa.Table | IndexRows


def rows_of_splits(folder: Place, columns: Sequence[str]) -> dict[str, IndexRows]:
    """Check index and shards; return the rows of each split."""
    index, splits = check_index(folder)
    chosen = {split: Chosen.of(splits == place) for place, split in enumerate(SPLITS)}
    return {split: IndexRows(index, tuple(columns), own) for split, own in chosen.items()}


def read_splits(
    rows: dict[str, IndexRows], config: DataConfig, *, max_held: int | None, can_write: bool
) -> tuple[dict[str, pa.Table], bool]:
    """Read the splits; return their tables, and whether the rows of train stay where they are, as those of more than
    `max_held` clips do. An empty table stands for them then.

    can_write: whether there is a folder for the training clips as they are with the captions of tables.
    """
    is_large = max_held is not None and len(rows["train"]) > max_held
    is_served = is_large and (can_write or not writes_clips(config))
    return {split: own.read(0 if is_served and split == "train" else None) for split, own in rows.items()}, is_served


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
