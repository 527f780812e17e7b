"""What is left of a job that works off chunks of clips and commits parts."""

from dataclasses import dataclass
from itertools import chain

import numpy as np
import ray

from mama_ray.orchestration.captioning.parts import CHUNK_CLIPS, committed_rows, iterate_parts
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.storage.places import Place, storage_errors

_TASK_CPUS = 0.5


@dataclass(frozen=True)
class PendingChunks:
    """The chunks that still have clips to work off.

    `chunks` refers to their numbers, `done` to a bit for every clip, eight to a uint8: 12.5 MB for 100 million.
    """

    chunks: ray.ObjectRef
    done: ray.ObjectRef
    num_chunks: int
    num_clips: int
    chunk_clips: int = CHUNK_CLIPS

    def rows(self, position: int) -> np.ndarray:
        """Return the rows that are left of a pending chunk, int64."""
        start = int(ray.get(self.chunks)[position]) * self.chunk_clips
        done = np.unpackbits(ray.get(self.done)[start // 8 : (start + self.chunk_clips) // 8])
        return start + np.flatnonzero(done == 0)


def find_pending(output: str, num_clips: int, *, chunk_clips: int = CHUNK_CLIPS) -> PendingChunks:
    """List the committed parts, in a task, and return what is left of so many clips."""
    chunks, done, counts = _find_pending.options(num_returns=3).remote(output, num_clips, chunk_clips)
    return PendingChunks(chunks, done, *result_of(counts, chunks, done), chunk_clips)


@ray.remote(num_cpus=_TASK_CPUS, name="list parts")
def _find_pending(output: str, num_clips: int, chunk_clips: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    with storage_errors(output):
        done = committed_rows(chain.from_iterable(iterate_parts(Place.of(output))), num_clips)
    # The last chunk has no clips behind the last one.
    whole = np.concatenate([done, np.ones(-num_clips % chunk_clips, bool)])
    chunks = np.flatnonzero(~whole.reshape(-1, chunk_clips).all(axis=1))
    return chunks, np.packbits(whole), (len(chunks), int((~done).sum()))
