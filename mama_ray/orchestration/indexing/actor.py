"""The actor: the number of a part in, its file in the storage, counts out.

A clip whose bytes or video are bad is a row with its reason, and so done. A storage that fails, or a machine without
room to decode, is no fact about a clip: it ends the job, which goes on from its files.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from mama_ray.data.reading import HELD_BYTES, bounded_runs, read_payloads
from mama_ray.data.shard import ShardError
from mama_ray.encoder.decoding import VideoError
from mama_ray.errors import UserError
from mama_ray.masking import mask_text, masked_errors
from mama_ray.orchestration.cluster.connect import start_worker_logging
from mama_ray.orchestration.indexing.plan import IndexPlan, Part, hash_texts, texts_of
from mama_ray.search.embedding_parts import read_part, write_part
from mama_ray.search.towers import Towers
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.retries import with_retries
from mama_ray.storage.waits import told_wait

logger = logging.getLogger(__name__)


class IndexActor:
    """Holds the model in an actor of Ray Data and makes parts; `has_video` are those whose captions alone changed."""

    @masked_errors
    def __init__(self, plan: IndexPlan, has_video: frozenset[str], *, num_processes: int, use_gpu: bool) -> None:
        start_worker_logging()
        self._plan, self._has_video, self._table = plan, has_video, ray.get(plan.table)
        device = "cuda" if use_gpu else "cpu"
        with told_wait(f"loading {plan.model}"):
            self._towers = Towers.load(
                plan.model, device=device, batch_size=plan.batch_size, num_processes=num_processes
            )
        if self._towers.model_hash != plan.model_hash:
            raise UserError(f"{plan.model} is another model than when the job began", remedy="start the job again")

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list]:
        """Make the parts of a batch of Ray Data; returns their clips, errors, captions and seconds."""
        made = [self._make(self._plan.parts[int(number)]) for number in batch["item"]]
        return {name: [one[name] for one in made] for name in made[0]}

    def _make(self, part: Part) -> dict[str, Any]:
        began = time.perf_counter()
        folder = Place.of(self._plan.output)
        records = self._table.take(pa.array(range(part.start, part.stop))).to_pylist()
        if part.name in self._has_video:
            videos = self._kept_videos(folder / part.name)
        else:
            videos = self._videos(records)
        rows = [
            self._row(record, video, captions)
            for record, video, captions in zip(records, videos, self._captions(records), strict=True)
        ]
        with storage_errors(folder.uri):
            counts = with_retries(partial(write_part, folder / part.name, rows, self._plan.dim))
        return {
            "clips": len(rows),
            "errors": sum(row["error"] is not None for row in rows),
            "captions": counts.num_captions,
            "seconds": time.perf_counter() - began,
        }

    def _kept_videos(self, place: Place) -> list[np.ndarray | str]:
        """Return what a part has of its videos already."""
        part = read_part(place, self._plan.dim, ("video", "error"))
        pairs = zip(part["video"].to_pylist(), part["error"].to_pylist(), strict=True)
        return [np.asarray(feature, np.float16) if error is None else error for feature, error in pairs]

    def _videos(self, records: Sequence[Mapping]) -> list[np.ndarray | str]:
        """Return each clip's feature, or why it has none."""
        found = embed_clips(self._towers, Place.of(self._plan.shards), records)
        return [self._told(record, one) for record, one in zip(records, found, strict=True)]

    def _told(self, record: Mapping, found: np.ndarray | VideoError | ShardError) -> np.ndarray | str:
        if isinstance(found, np.ndarray):
            return found
        if isinstance(found, VideoError) and not found.is_of_video:
            raise UserError("this machine cannot decode a clip", got=f"{record['clip_id']}: {found.reason}")
        reason = found.reason if isinstance(found, VideoError) else " ".join(str(found).split())
        logger.warning("clip %s of %s has no feature: %s", record["clip_id"], record["shard"], reason)
        return mask_text(reason) or type(found).__name__

    def _captions(self, records: Sequence[Mapping]) -> list[list[dict[str, Any]]]:
        """Return the captions of each clip with their features; equal texts are encoded once."""
        texts = texts_of(records)
        different = list(dict.fromkeys(text for own in texts for _, text in own))
        features = dict(zip(different, self._towers.embed_texts(different), strict=True))
        return [[{**_numbered(own, place), "feature": features[own[place][1]]} for place in range(len(own))]
                for own in texts]  # fmt: skip

    def _row(self, record: Mapping, video: np.ndarray | str, captions: list[dict]) -> dict[str, Any]:
        error = video if isinstance(video, str) else None
        return {
            "clip_id": record["clip_id"],
            "video_sha256": record["sha256"],
            "video": None if error is not None else video,
            "error": error,
            "texts_sha256": hash_texts(texts_of([record])[0]),
            "captions": captions,
        }


def embed_clips(
    towers: Towers, shards: Place, records: Sequence[Mapping], *, max_bytes: int = HELD_BYTES
) -> list[np.ndarray | VideoError | ShardError]:
    """Return each clip's feature, or what is wrong with it; the bytes of `max_bytes`, or of one clip, are held."""
    found = []
    for run in bounded_runs(records, max_bytes):
        found += _embedded(towers, read_payloads(shards, run))
    return found


def _embedded(towers: Towers, payloads: Sequence[bytes | ShardError]) -> list[np.ndarray | VideoError | ShardError]:
    features = iter(towers.embed_videos([data for data in payloads if isinstance(data, bytes)]))
    return [payload if isinstance(payload, ShardError) else next(features) for payload in payloads]


def _numbered(captions: Sequence[tuple[str, str]], place: int) -> dict[str, Any]:
    """Return the source of a caption and its number among those of that source."""
    source = captions[place][0]
    return {"source": source, "index": sum(other == source for other, _ in captions[:place])}
