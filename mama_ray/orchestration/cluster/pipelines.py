"""Ray Data pipelines over numbers, as many as it takes for none to be long.

The driver keeps some kilobytes for each block that a pipeline has seen, until it ends. And a task that dies begins its
block anew: here a block is one number.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import ray
from ray.data import Dataset

NUMBERS_PER_PIPELINE = 1 << 16


def pipelines_of(count: int) -> Iterator[Dataset]:
    """Yield datasets that have the numbers 0 .. count - 1 between them in a column `id`, each number in its own block.

    Each is to be worked off before the next is asked for.
    """
    for start in range(0, count, NUMBERS_PER_PIPELINE):
        numbers = np.arange(start, min(start + NUMBERS_PER_PIPELINE, count))
        # Blocks that are there already: a read operator would run a task of its own for each of them.
        yield ray.data.from_arrow([pa.table({"id": [number]}) for number in numbers])
