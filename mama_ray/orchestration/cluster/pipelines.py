"""Ray Data pipelines over numbers, as many as it takes for none to be long.

The driver keeps some kilobytes for each block that a pipeline has seen, until it ends. And a task that dies begins its
block anew: here a block is one number.
"""

from collections.abc import Iterator

import ray
from ray.data import Dataset

from mama_ray.orchestration.cluster.freed_memory import give_back_memory

NUMBERS_PER_PIPELINE = 1 << 15


def runs_of(count: int) -> Iterator[range]:
    """Yield the numbers 0 .. count - 1 in runs, each for a pipeline of its own, to be worked off before the next.

    The caller has let go of a pipeline when it asks for the next run: its memory goes back to the system then.
    """
    for start in range(0, count, NUMBERS_PER_PIPELINE):
        yield range(start, min(start + NUMBERS_PER_PIPELINE, count))
        give_back_memory()


def dataset_of(numbers: range) -> Dataset:
    """Return a dataset with the numbers in a column `id`, each in its own block, under the DataContext of now."""
    # Blocks that are there already: a read operator would run a task of its own for each of them.
    return ray.data.from_items([{"id": number} for number in numbers], override_num_blocks=len(numbers))
