"""Who was in the engine when it died: the clips that are being captioned right now, and how often they were begun.

A clip on which every engine dies must become an error row, not a job that never ends. An actor that dies forgets what
it was doing; this one, which does nothing else, remembers. It holds the clips in flight and those that saw a death.
"""

import ray


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class CaptionLedger:
    """Counts beginnings without an end. Its own death only forgets counts."""

    def __init__(self) -> None:
        self._in_batches: set[int] = set()
        self._alone: dict[int, int] = {}

    def begin_batch(self, rows: list[int]) -> bool:
        """Note that these rows go into an engine; tell whether one of them did before without coming out."""
        is_suspect = not self._in_batches.isdisjoint(rows)
        self._in_batches.update(rows)
        return is_suspect

    def begin_alone(self, row: int) -> int:
        """Note that a row goes into an engine alone; return how often it did before without coming out."""
        deaths = self._alone.get(row, 0)
        self._alone[row] = deaths + 1
        return deaths

    def end(self, rows: list[int]) -> None:
        """Note that these rows came out."""
        for row in rows:
            self._in_batches.discard(row)
            self._alone.pop(row, None)
