"""The actor: a chunk's number in, its file in the storage, counts out.

A clip whose bytes or video are bad is an error row, which is committed and so done. A storage that fails is no fact
about a clip: it ends the job, which goes on from its files. While the models are at work on a clip, a thread decodes
the next.
"""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from mama_ray.data.reading import iter_payloads
from mama_ray.data.region_features.table import CHUNK_CLIPS, write_chunk
from mama_ray.data.shard import ShardError
from mama_ray.data.video.container import DecodeError
from mama_ray.features.extract import ClipPixels, decode_pixels, extract_features
from mama_ray.masking import mask_text, masked_errors
from mama_ray.orchestration.cluster.connect import start_worker_logging
from mama_ray.orchestration.features.plan import FeaturePlan, loaded_models
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.retries import with_retries
from mama_ray.storage.waits import told_wait

logger = logging.getLogger(__name__)


class FeatureActor:
    """Holds both models; wrapped by `ray.remote` where the pool is made."""

    @masked_errors
    def __init__(self, plan: FeaturePlan, use_gpu: bool) -> None:
        start_worker_logging()
        self._plan, self._table = plan, ray.get(plan.table)
        self._resources = ExitStack()
        device = "cuda" if use_gpu else "cpu"
        with told_wait(f"loading {plan.frame_model} and {plan.detector}"):
            loaded = loaded_models(plan.frame_model, plan.detector, plan.shape.num_regions, device)
            self._frame_encoder, self._detector, _ = self._resources.enter_context(loaded)
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="decode")

    def run(self, chunk: int) -> tuple[int, int, float]:
        """Extract and commit a chunk; return its clips, those of them without features, and the seconds it took."""
        began = time.perf_counter()
        start = chunk * CHUNK_CLIPS
        rows = range(start, min(start + CHUNK_CLIPS, self._plan.num_rows))
        records = self._table.take(pa.array(rows)).to_pylist()
        pixels = self._decoded(iter_payloads(Place.of(self._plan.shards), records))
        found = [self._row(row, record, seen) for row, record, seen in zip(rows, records, pixels, strict=True)]
        folder = Place.of(self._plan.output)
        with storage_errors(folder.uri):
            with_retries(partial(write_chunk, folder, chunk, found, self._plan.shape))
        return len(found), sum(row["error"] is not None for row in found), time.perf_counter() - began

    def _decoded(self, payloads: Iterator[bytes | ShardError]) -> Iterator[ClipPixels | DecodeError | ShardError]:
        """Yield each clip's frames while the next one's are decoded: no more than two clips' are there at a time."""
        ahead = self._decoder.submit(self._decode, next(payloads))
        for payload in payloads:
            current, ahead = ahead.result(), self._decoder.submit(self._decode, payload)
            yield current
        yield ahead.result()

    def _decode(self, payload: bytes | ShardError) -> ClipPixels | DecodeError | ShardError:
        if isinstance(payload, ShardError):
            return payload
        shape = self._plan.shape
        try:
            return decode_pixels(
                payload,
                self._frame_encoder,
                self._detector,
                num_clips=shape.num_clips,
                frames_per_clip=shape.frames_per_clip,
                decode=self._plan.decode,
            )
        except DecodeError as error:
            return error

    def _row(self, row: int, record: dict, pixels: ClipPixels | DecodeError | ShardError) -> dict[str, Any]:
        known = {"row": row, "clip_id": record["clip_id"], "video_sha256": record["sha256"]}
        trouble = None
        if isinstance(pixels, Exception):
            trouble = mask_text(" ".join(str(pixels).split())) or type(pixels).__name__
        else:
            features = extract_features(pixels, self._frame_encoder, self._detector)
            if all(np.isfinite(features[place]).all() for place in range(3)):
                return {**known, "error": None, **features._asdict()}
            trouble = "the models gave values that are no numbers"
        logger.warning("clip %s of %s has no features: %s", record["clip_id"], record["shard"], trouble)
        nothing = dict.fromkeys(("width", "height", *self._plan.shape.arrays))
        return {**known, "error": trouble, **nothing}
