"""The decoding stage: a chunk's number in, what the engines are shown out.

A clip whose bytes or video are bad is an error row, which is committed and so done. A storage that fails is no fact
about a clip: it ends the job, which goes on from its parts.
"""

import logging
import time

import numpy as np
import pyarrow as pa
import ray

from mama_ray.captioning.engines.protocol import GRID, Shown
from mama_ray.orchestration.captioning.pending import PendingChunks
from mama_ray.orchestration.captioning.plan import CaptionPlan
from mama_ray.orchestration.captioning.source import ShowConfig, ShownClip

logger = logging.getLogger(__name__)


def decode_chunk(plan: CaptionPlan, pending: PendingChunks, position: int) -> dict[str, np.ndarray]:
    """Return the uncaptioned clips of a pending chunk: row, clip_id, video_sha256, what the engine is shown of each
    (shown, the pixels; shown_sha256; times_s; frame_indices; num_filled), error ("" for a clip that can be shown),
    read_s and decode_s. Raises UserError where the storage fails for good.
    """
    rows = pending.rows(position)
    records = ray.get(plan.table).take(pa.array(rows)).to_pylist()
    began = time.perf_counter()
    shown = list(plan.source.show(records, plan.show))
    read_s = sum(one.read_s for one in shown if isinstance(one, ShownClip)) / len(rows)
    decode_s = max(0.0, (time.perf_counter() - began) / len(rows) - read_s)
    columns = _columns([_row(plan.show, one) for one in shown])
    facts = [{"row": row, "clip_id": record["clip_id"], "video_sha256": record["sha256"]}
             for row, record in zip(rows.tolist(), records, strict=True)]  # fmt: skip
    for record, error in zip(records, columns["error"], strict=True):
        if error:
            logger.warning("clip %s cannot be captioned: %s", record["clip_id"], error)
    times = {"read_s": np.full(len(rows), read_s), "decode_s": np.full(len(rows), decode_s)}
    return _columns(facts) | columns | times


def shown_of(kind: str, batch: dict[str, np.ndarray], position: int) -> Shown:
    """Return what the engine is shown of one clip of a decoded batch."""
    times_s = None if kind == GRID else tuple(batch["times_s"][position].tolist())
    content = np.ascontiguousarray(batch["shown"][position])
    return Shown(kind, content, str(batch["shown_sha256"][position]), times_s)


def _row(how: ShowConfig, shown: ShownClip | str) -> dict:
    """Return what the columns hold of one clip; an error row has a shape too, as a column of pixels wants it."""
    if isinstance(shown, str):
        return {
            "shown": how.blank(),
            "shown_sha256": "",
            "times_s": np.full(how.num_indices, np.nan),
            "frame_indices": np.full(how.num_indices, -1, np.int32),
            "num_filled": 0,
            "error": shown,
        }
    no_times = np.full(how.num_indices, np.nan)
    return {
        "shown": shown.content,
        "shown_sha256": shown.sha256,
        "times_s": no_times if shown.times_s is None else shown.times_s,
        "frame_indices": shown.frame_indices.astype(np.int32),
        "num_filled": shown.num_filled,
        "error": "",
    }


def _columns(rows: list[dict]) -> dict[str, np.ndarray]:
    return {name: _column([row[name] for row in rows]) for name in rows[0]}


def _column(values: list) -> np.ndarray:
    """Return values of one column; text and pixels of several sizes are objects, which Ray Data takes as they are."""
    if isinstance(values[0], str) or len({np.shape(value) for value in values}) > 1:
        column = np.empty(len(values), object)
        column[:] = values
        return column
    return np.stack(values)
