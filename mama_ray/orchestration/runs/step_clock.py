"""How long steps take, and how much of that is waiting for batches: the `throughput/` metrics of a training run."""

import resource
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

_Batch = TypeVar("_Batch")


class StepClock:
    """Measures the steps since the last record."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin the steps of the next record."""
        self._data_wait_s, self._start = 0.0, time.perf_counter()

    def timed(self, batches: Iterable[_Batch]) -> Iterator[_Batch]:
        """Pass batches through and count the time spent waiting for them, from the first one on."""
        iterator = iter(batches)
        is_first = True
        while True:
            start = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._data_wait_s += time.perf_counter() - start
            if is_first:  # starting the decode processes is no part of a step
                self.restart()
                is_first = False
            yield batch

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what is done inside."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def throughput(self, num_steps: int, global_batch_size: int) -> dict[str, float]:
        """Return the metrics of the `num_steps` steps since the last record."""
        seconds = time.perf_counter() - self._start
        return {
            "throughput/clips_per_s": num_steps * global_batch_size / seconds,
            "throughput/step_s": seconds / num_steps,
            "throughput/data_wait_s": self._data_wait_s / num_steps,
            "throughput/peak_memory_gib": _peak_memory_gib(),
        }


def _peak_memory_gib() -> float:
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
