"""A look at an index before a job starts anything: is it one, and how many clips has each split."""

from collections import Counter

import pyarrow.compute as pc

from mama_ray.data.clip import SPLITS
from mama_ray.data.index_file import open_index
from mama_ray.storage.places import Place

# Of a larger corpus reading the column of splits takes more than the second that a look may take.
_MOST_COUNTED = 5_000_000


def look_at_index(folder: Place) -> dict[str, int] | None:
    """Check the index's file and schema and return the clips of each split; None, uncounted, for a very large index.

    Raises UserError as `open_index` does.
    """
    index = open_index(folder)
    if len(index) > _MOST_COUNTED:
        return None
    found: Counter = Counter()
    for table in index.tables(["split"]):
        found.update({row["values"]: row["counts"] for row in pc.value_counts(table["split"]).to_pylist()})
    return {split: found[split] for split in SPLITS}
