"""The decoding stage: a chunk's number in, what the engines are shown out.

A clip whose bytes or video are bad is an error row, which is committed and so done. A storage that fails is no fact
about a clip: it ends the job, which goes on from its parts.
"""

import logging
import time

import numpy as np
import pyarrow as pa
import ray

from mama_ray.captioning.pictures.clip_grid import make_clip_grid
from mama_ray.data.reading import read_payloads
from mama_ray.data.shard import ShardError
from mama_ray.data.video.container import DecodeError
from mama_ray.masking import mask_text
from mama_ray.orchestration.captioning.parts import CHUNK_CLIPS
from mama_ray.orchestration.captioning.plan import CaptionPlan, PendingChunks
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)


def decode_chunk(plan: CaptionPlan, pending: PendingChunks, position: int) -> dict[str, np.ndarray]:
    """Return the uncaptioned clips of a pending chunk: row, clip_id, video_sha256, what the engine is shown of each
    (shown, the grid's pixels; shown_sha256; frame_indices; num_filled), error ("" for a clip that can be shown), read_s
    and decode_s. Raises UserError where the storage fails for good.
    """
    start = int(ray.get(pending.chunks)[position]) * CHUNK_CLIPS
    done = ray.get(pending.done)[start : start + CHUNK_CLIPS]
    rows = start + np.flatnonzero(~done)
    records = ray.get(plan.table).take(pa.array(rows)).to_pylist()
    began = time.perf_counter()
    payloads = read_payloads(Place.of(plan.shards), records)
    read_s = (time.perf_counter() - began) / len(rows)
    return _columns([_decode(plan, *clip, read_s) for clip in zip(rows.tolist(), records, payloads, strict=True)])


def _decode(plan: CaptionPlan, row: int, record: dict, payload: bytes | ShardError, read_s: float) -> dict:
    began = time.perf_counter()
    side = plan.captioner.side
    pixels, num_filled, digest, trouble = np.zeros((side, side, 3), np.uint8), 0, "", ""
    # One shape for every row, as a tensor column wants it; an error row has no frames to tell.
    indices = np.full(plan.frames.layout.num_cells, -1)
    try:
        if isinstance(payload, ShardError):
            raise payload
        grid = make_clip_grid(payload, plan.frames, side=side, decode=plan.decode)
        pixels, indices, num_filled, digest = grid.pixels, grid.frame_indices, grid.num_filled, grid.sha256
    except (DecodeError, ShardError) as error:
        trouble = mask_text(" ".join(str(error).split())) or type(error).__name__
        logger.warning("clip %s of %s cannot be captioned: %s", record["clip_id"], record["shard"], trouble)
    return {
        "row": row,
        "clip_id": record["clip_id"],
        "video_sha256": record["sha256"],
        "shown": pixels,
        "frame_indices": indices.astype(np.int32),
        "num_filled": num_filled,
        "shown_sha256": digest,
        "error": trouble,
        "read_s": read_s,
        "decode_s": time.perf_counter() - began,
    }


def _columns(rows: list[dict]) -> dict[str, np.ndarray]:
    texts = ("clip_id", "video_sha256", "shown_sha256", "error")
    return {
        name: np.array([row[name] for row in rows], dtype=object)
        if name in texts
        else np.stack([row[name] for row in rows])
        for name in rows[0]
    }
