"""From the record of a run to means: of every caption that was learned from, and of every clip by epoch."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from mama_ray.errors import UserError

NAMES = ("weight", "loss", "cosine")
# Which caption of its clip a sample read: rows, samples and epochs in, places among the clip's captions out.
Drawn = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class RecordMeans:
    """Means over what was recorded; NaN where nothing was.

    Attributes:
        count: samples with a number, by caption, in the order of the clips' captions.
        by_caption: mean weight, loss and cosine of each caption.
        epochs: the epochs that were recorded.
        by_epoch: mean weight and loss of each clip, a row per epoch.
    """

    count: Int[np.ndarray, " captions"]
    by_caption: dict[str, Float[np.ndarray, " captions"]]
    epochs: list[int]
    by_epoch: dict[str, Float[np.ndarray, "epochs clips"]]


def average_record(
    parts: Iterable[pa.Table], clip_ids: pa.Array | pa.ChunkedArray, offsets: np.ndarray, drawn: Drawn
) -> RecordMeans:
    """Average a record's parts, one in memory at a time.

    offsets: where each clip's captions begin among all, and where the last one's end. UserError for a record of other
    clips.
    """
    num_clips, num_captions = len(offsets) - 1, int(offsets[-1])
    sums = {name: np.zeros(num_captions) for name in NAMES}
    counts = {name: np.zeros(num_captions, np.int64) for name in NAMES}
    epochs: dict[int, dict[str, np.ndarray]] = {}
    for part in parts:
        rows = _rows_of(part, clip_ids)
        part_epochs = part["epoch"].to_numpy()
        places = offsets[rows] + drawn(rows, part["sample"].to_numpy(), part_epochs)
        for name in NAMES:
            values = part[name].to_numpy(zero_copy_only=False)
            known = np.isfinite(values)
            np.add.at(sums[name], places[known], values[known])
            np.add.at(counts[name], places[known], 1)
            if name != "cosine":
                _add_by_epoch(epochs, name, part_epochs[known], rows[known], values[known], num_clips)
    return RecordMeans(
        counts["weight"],
        {name: _means(sums[name], counts[name]) for name in NAMES},
        sorted(epochs),
        {
            name: np.stack([_means(epochs[epoch][name], epochs[epoch][f"{name} count"]) for epoch in sorted(epochs)])
            for name in NAMES
            if name != "cosine" and epochs
        },
    )


def _rows_of(part: pa.Table, clip_ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    rows = pc.index_in(part["clip_id"].cast(clip_ids.type), value_set=_whole(clip_ids))
    if rows.null_count:
        stranger = part["clip_id"].filter(pc.is_null(rows))[0]
        raise UserError(
            "the record is of other clips than the shards hold",
            got=f"{rows.null_count} samples, the first of clip {stranger}",
            remedy="name the shards that the run was trained on: --shards",
        )
    return rows.to_numpy().astype(np.int64)


def _whole(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _add_by_epoch(
    epochs: dict[int, dict[str, np.ndarray]],
    name: str,
    part_epochs: np.ndarray,
    rows: np.ndarray,
    values: np.ndarray,
    num_clips: int,
) -> None:
    for epoch in np.unique(part_epochs).tolist():
        if epoch not in epochs:  # with all sums, also those of which it may have no number
            epochs[epoch] = {
                key: np.zeros(num_clips, np.float32) for key in ("weight", "weight count", "loss", "loss count")
            }
        is_own = part_epochs == epoch
        for key, amounts in ((name, values[is_own]), (f"{name} count", np.ones(int(is_own.sum())))):
            np.add.at(epochs[epoch][key], rows[is_own], amounts)


def _means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full(len(sums), np.nan, sums.dtype), where=counts > 0)
