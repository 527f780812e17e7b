"""Captions that many clips share, found without holding all captions: their hashes go through files of the work folder.

Each task hashes the captions of some files of the table and writes their hashes; one more reads all of these once,
sorts them into ranges on its machine's disk (0.8 GB for 100 million captions) and counts a range at a time. So the
driver holds no hash, and no task more than a hundred megabytes.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import ray

from mama_ray.captioning.postprocess import PostprocessConfig, postprocess
from mama_ray.captioning.quality import caption_key
from mama_ray.data.unique_ids import WORD, hashed_ids, hashes_of_ids
from mama_ray.orchestration.captioning.committed import num_files, read_rows
from mama_ray.orchestration.captioning.parts import WORK_FOLDER
from mama_ray.orchestration.captioning.plan import CaptionPlan
from mama_ray.orchestration.cluster.results import result_of, some_at_once
from mama_ray.storage.places import Place
from mama_ray.storage.retries import with_retries

_TASK_CPUS = 0.5
_FILES_PER_TASK = 16  # 65,536 clips
_READ_AT_ONCE = 8  # 0.5 MB each


def shared_captions(plan: CaptionPlan, clean: PostprocessConfig, max_copies: int) -> ray.ObjectRef:
    """Return a reference to the hashes, uint64 and sorted, of caption keys that more than `max_copies` clips share."""
    numbers = range(0, num_files(plan.num_clips), _FILES_PER_TASK)
    for task in some_at_once(_write_hashes.remote(plan, number, clean) for number in numbers):
        result_of(task)
    return _count_keys.remote(plan.output, numbers, max_copies)


@ray.remote(num_cpus=_TASK_CPUS, name="table: hash captions")
def _write_hashes(plan: CaptionPlan, first: int, clean: PostprocessConfig) -> None:
    """Write the hashes of the caption keys of some files of the table, those of a clip's captions once each."""
    keys: list[str] = []
    for number in range(first, min(first + _FILES_PER_TASK, num_files(plan.num_clips))):
        table, _ = read_rows(plan, number)
        told = zip(table["row"].to_pylist(), table["text"].to_pylist(), strict=True)
        of_clips = {(row, caption_key(postprocess(text, clean))) for row, text in told if text is not None}
        keys += [key for _, key in of_clips]
    content = hashes_of_ids(keys).tobytes()
    place = _place(plan.output, first)
    with_retries(lambda: place.write_whole(content))


@ray.remote(num_cpus=_TASK_CPUS, name="table: count copies")
def _count_keys(output: str, numbers: range, max_copies: int) -> np.ndarray:
    """Return the hashes that stand in the files more often than `max_copies`; each file is read once."""

    def read(number: int) -> np.ndarray:
        return np.frombuffer(with_retries(_place(output, number).read_bytes), WORD)

    with hashed_ids() as keys, ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        for start in range(0, len(numbers), _READ_AT_ONCE):
            for hashes in pool.map(read, numbers[start : start + _READ_AT_ONCE]):
                keys.add_hashes(hashes)
        return keys.frequent(max_copies)


def _place(output: str, number: int) -> Place:
    return Place.of(output) / f"{WORK_FOLDER}/hashes/{number:06d}.u64"
