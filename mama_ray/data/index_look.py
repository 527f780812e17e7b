"""A look at an index before a job starts anything: is it one, and how many clips has each split."""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.data.clip import SPLITS
from mama_ray.data.index import INDEX_NAME, read_index
from mama_ray.storage.parquet import read_parquet
from mama_ray.storage.places import Place

# The column of splits is a few bytes a clip; a driver need not hold more than this of a larger corpus.
_MOST_COUNTED = 5_000_000


def look_at_index(folder: Place) -> dict[str, int] | None:
    """Check the index's file and schema and return the clips of each split; None, uncounted, for a very large index.

    Raises UserError as `read_index` does.
    """
    counts = _num_rows(folder / INDEX_NAME) <= _MOST_COUNTED
    table = read_index(folder, columns=["split"] if counts else [])
    if not counts:
        return None
    found = Counter({row["values"]: row["counts"] for row in pc.value_counts(table["split"]).to_pylist()})
    return {split: found[split] for split in SPLITS}


def _num_rows(place: Place) -> int:
    try:
        return read_parquet(place, lambda parquet: parquet.metadata.num_rows)
    except (OSError, pa.ArrowInvalid):  # told by whoever reads it
        return 0
