"""The search for near-duplicates across splits: clips to be measured on that look like clips that are learned from.

    python jobs/duplicates.py --shards URI [--output FILE]

Tasks hash frames of the clips of a part of the index each; then tasks compare a part of the measured clips with all
that are learned from. The driver sees the pairs alone.
"""

import csv
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from mama_ray.data.index import read_index
from mama_ray.data.index_look import look_at_index
from mama_ray.data.reading import read_payloads
from mama_ray.data.shard import ShardError
from mama_ray.data.shard_check import check_shards
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.fingerprint import (
    FRAME_SIZE,
    NUM_BITS,
    Fingerprints,
    find_alike,
    fingerprint,
    join_fingerprints,
)
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.duplicates.job import DuplicatesJob
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place, absolute_uri, storage_errors

logger = logging.getLogger(__name__)

_COLUMNS = ("clip_id", "video_id", "split", "shard", "offset", "num_bytes", "sha256")
_NAMES = ("clip_id", "video_id", "split")
_CLIPS_PER_TASK = 128
_DECODE_CPUS, _COMPARE_CPUS, _LIGHT_CPUS = 1.0, 1.0, 0.5
_MAX_IN_FLIGHT = 1024


@dataclass(frozen=True)
class _Reading:
    """What a hashing task needs to know, beside the rows."""

    shards: str
    num_frames: int
    decode: DecodeConfig


def find_duplicates(job: DuplicatesJob) -> str:
    """Run the job and return its last line. Raises UserError for everything a user can put right."""
    shards, output = absolute_uri(job.shards), Place.of(absolute_uri(job.output))
    if both := sorted(set(job.learned) & set(job.measured)):
        raise UserError("a split is learned from and measured on", got=", ".join(both), wanted="each in one of the two")
    ensure_readable(shards)
    look_at_index(Place.of(shards))
    ensure_writable(output.parent.uri)
    with Lease(output.parent / f".{output.name}{LEASE_NAME}", "list of duplicates"):
        return _find(job, shards, output)


def _find(job: DuplicatesJob, shards: str, output: Place) -> str:
    connect()
    with storage_errors(shards):
        learned, measured, counts = _load_splits.options(num_returns=3).remote(shards, job.learned, job.measured)
        num_learned, num_measured = result_of(counts, learned, measured)
        reading = _Reading(shards, job.num_frames, job.decode)
        ours, num_unread = _hash_all(measured, num_measured, reading)
        theirs, num_others = _hash_all(learned, num_learned, reading)
        known = _join.remote(*theirs)
        found = [_compare.remote(part, known, measured, learned, number, job.max_distance)
                 for number, part in enumerate(ours)]  # fmt: skip
        pairs = [pair for part in found for pair in result_of(part)]
    pairs.sort(key=lambda pair: (pair["distance"], pair["clip_id"]))
    with storage_errors(output.uri):
        output.write_whole(_as_csv(pairs))
    if num_unread + num_others:
        logger.warning("%d clips could not be decoded and were not compared", num_unread + num_others)
    return _last_line(job, pairs, num_measured, output.uri)


def _hash_all(table: ray.ObjectRef, num_clips: int, reading: _Reading) -> tuple[list[ray.ObjectRef], int]:
    """Hash a split's clips, a bounded number of tasks at a time; return their results in order, and how many clips
    could not be decoded.
    """
    parts: list[ray.ObjectRef] = []
    counts: list[ray.ObjectRef] = []
    num_unread = 0
    for start in range(0, num_clips, _CLIPS_PER_TASK):
        if len(counts) >= _MAX_IN_FLIGHT:
            num_unread += result_of(counts.pop(0))
        part, count = _hash_part.options(num_returns=2).remote(table, start, reading)
        parts.append(part)
        counts.append(count)
    for number, count in enumerate(counts, len(parts) - len(counts) + 1):
        num_unread += result_of(count)
        logger.info("%d of %d clips hashed", min(num_clips, number * _CLIPS_PER_TASK), num_clips)
    return parts, num_unread


@ray.remote(num_cpus=_LIGHT_CPUS, name="duplicates: load splits")
def _load_splits(
    shards: str, learned: Sequence[str], measured: Sequence[str]
) -> tuple[pa.Table, pa.Table, tuple[int, int]]:
    folder = Place.of(shards)
    index = read_index(folder, columns=_COLUMNS)
    check_shards(folder, index)
    tables = []
    for splits in (learned, measured):
        table = index.filter(pc.is_in(index["split"], value_set=pa.array(splits, index["split"].type)))
        if not len(table):
            raise UserError(
                "no clips to compare", got=f"{shards}, splits {', '.join(splits)}", wanted="at least one clip"
            )
        tables.append(table.combine_chunks())
    return tables[0], tables[1], (len(tables[0]), len(tables[1]))


@ray.remote(num_cpus=_DECODE_CPUS, name="duplicates: hash clips")
def _hash_part(table: pa.Table, start: int, reading: _Reading) -> tuple[Fingerprints, int]:
    records = table.slice(start, _CLIPS_PER_TASK).to_pylist()
    hashes = np.zeros((len(records), reading.num_frames), np.uint64)
    usable = np.zeros(hashes.shape, bool)
    transform, num_unread = TransformConfig(image_size=FRAME_SIZE), 0
    for row, payload in enumerate(read_payloads(Place.of(reading.shards), records)):
        try:
            if isinstance(payload, Exception):
                raise payload
            frames = load_clip_frames(
                payload, num_frames=reading.num_frames, transform=transform, decode=reading.decode
            )
            hashes[row], usable[row] = fingerprint(frames)
        except (DecodeError, ShardError) as error:  # it is like nothing
            num_unread += 1
            logger.warning("clip %s cannot be compared: %s", records[row]["clip_id"], error)
    return Fingerprints(hashes, usable), num_unread


@ray.remote(num_cpus=_LIGHT_CPUS, name="duplicates: join hashes")
def _join(*parts: Fingerprints) -> Fingerprints:
    return join_fingerprints(list(parts))


@ray.remote(num_cpus=_COMPARE_CPUS, name="duplicates: compare")
def _compare(
    part: Fingerprints, known: Fingerprints, measured: pa.Table, learned: pa.Table, number: int, max_distance: int
) -> list[dict[str, Any]]:
    pairs = []
    for row, other, distance in find_alike(part, known, max_distance=max_distance):
        ours = measured.slice(number * _CLIPS_PER_TASK + row, 1).to_pylist()[0]
        theirs = learned.slice(other, 1).to_pylist()[0]
        names = {name: ours[name] for name in _NAMES} | {f"like_{name}": theirs[name] for name in _NAMES}
        pairs.append(names | {"distance": distance, "same_bytes": ours["sha256"] == theirs["sha256"]})
    return pairs


def _as_csv(pairs: list[dict[str, Any]]) -> str:
    columns = [*_NAMES, *(f"like_{name}" for name in _NAMES), "distance", "same_bytes"]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns)
    writer.writeheader()
    writer.writerows(pairs)
    return stream.getvalue()


def _last_line(job: DuplicatesJob, pairs: list[dict[str, Any]], num_measured: int, output: str) -> str:
    learned, measured = " and ".join(job.learned), " and ".join(job.measured)
    if not pairs:
        return f"none of {num_measured} clips of {measured} looks like one of {learned}: {output}"
    closest = pairs[0]
    pair = f"{closest['clip_id']} like {closest['like_clip_id']} ({closest['distance']} of {NUM_BITS} bits differ)"
    return (
        f"{len(pairs)} of {num_measured} clips of {measured} look like clips of {learned}, such as {pair}: copies, "
        f"cuts of one recording or of one camera; look, and put copies into one split: {output}"
    )
