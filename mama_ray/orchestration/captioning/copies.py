"""Captions that many clips share, found without holding all captions: their hashes go through files of the work folder.

Each task hashes the captions of some files of the table and writes their hashes; each of a second kind counts those of
one range of hashes in all of these files. So the driver holds no hash, and no task more than a hundred
megabytes.
"""

import hashlib

import numpy as np
import ray

from mama_ray.captioning.postprocess import PostprocessConfig, postprocess
from mama_ray.captioning.quality import caption_key
from mama_ray.orchestration.captioning.committed import num_files, read_rows
from mama_ray.orchestration.captioning.parts import WORK_FOLDER
from mama_ray.orchestration.captioning.plan import CaptionPlan
from mama_ray.orchestration.cluster.results import result_of, some_at_once
from mama_ray.storage.places import Place
from mama_ray.storage.retries import with_retries

_TASK_CPUS = 0.5
_FILES_PER_TASK = 16  # 65,536 clips
_HASHES_PER_RANGE = 4_000_000
_WORD = np.dtype("<u8")


def shared_captions(plan: CaptionPlan, clean: PostprocessConfig, max_copies: int) -> ray.ObjectRef:
    """Return a reference to the hashes, uint64 and sorted, of caption keys of more than `max_copies` captions."""
    numbers = range(0, num_files(plan.num_clips), _FILES_PER_TASK)
    for task in some_at_once(_write_hashes.remote(plan, number, clean) for number in numbers):
        result_of(task)
    num_ranges = 1 + plan.num_clips * plan.sampling.num_captions // _HASHES_PER_RANGE
    found = [_count_keys.remote(plan.output, numbers, part, num_ranges, max_copies) for part in range(num_ranges)]
    return _join.remote(*found)


def hash_of(key: str) -> int:
    """Return 64 bits of a caption's key."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


@ray.remote(num_cpus=_TASK_CPUS, name="table: hash captions")
def _write_hashes(plan: CaptionPlan, first: int, clean: PostprocessConfig) -> None:
    """Write the hashes of the caption keys of some files of the table."""
    hashes: list[int] = []
    for number in range(first, min(first + _FILES_PER_TASK, num_files(plan.num_clips))):
        table, _ = read_rows(plan, number)
        hashes += [hash_of(caption_key(postprocess(text, clean))) for text in table["text"].drop_null().to_pylist()]
    content = np.array(hashes, _WORD).tobytes()
    place = _place(plan.output, first)
    with_retries(lambda: place.write_whole(content))


@ray.remote(num_cpus=_TASK_CPUS, name="table: count copies")
def _count_keys(output: str, numbers: range, part: int, num_ranges: int, max_copies: int) -> np.ndarray:
    """Return the hashes of one of so many ranges of hashes that stand in the files more often than `max_copies`."""
    own = [np.empty(0, _WORD)]
    for number in numbers:
        hashes = np.frombuffer(with_retries(_place(output, number).read_bytes), _WORD)
        own.append(hashes[((hashes >> np.uint64(32)) * np.uint64(num_ranges)) >> np.uint64(32) == part])
    keys, counts = np.unique(np.concatenate(own), return_counts=True)
    return keys[counts > max_copies]


@ray.remote(num_cpus=_TASK_CPUS, name="table: join copies")
def _join(*parts: np.ndarray) -> np.ndarray:
    return np.sort(np.concatenate(parts))


def _place(output: str, number: int) -> Place:
    return Place.of(output) / f"{WORK_FOLDER}/hashes/{number:06d}.u64"
