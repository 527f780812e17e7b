"""The rephrasing stage: numbers of pending chunks in, paraphrases committed; only counts leave the actor.

A chunk is always the same clips in the same order, and its captions go into the engine together: what is written does
not depend on what was killed before.
"""

import logging
import threading
import time
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from mama_ray.captioning.rephrasing.clips import ClipTexts, error_rows, rephrase_clips
from mama_ray.captioning.rephrasing.engine import build_rephraser
from mama_ray.errors import UserError
from mama_ray.masking import masked_errors
from mama_ray.orchestration.captioning.ending import end_process
from mama_ray.orchestration.captioning.ledger import keep_beating
from mama_ray.orchestration.captioning.parts import require_work_folder, write_parts
from mama_ray.orchestration.captioning.pending import PendingChunks
from mama_ray.orchestration.cluster.connect import start_worker_logging
from mama_ray.orchestration.rephrase.parts import PART_SCHEMA
from mama_ray.orchestration.rephrase.plan import RephrasePlan, rephraser_folder, with_texts
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.retries import with_retries
from mama_ray.storage.waits import told_wait

logger = logging.getLogger(__name__)


class Rephrasing:
    """Holds an engine in an actor; a second chunk waits in it while the first is at work."""

    @masked_errors
    def __init__(
        self,
        plan: RephrasePlan,
        pending: PendingChunks,
        ledger: ray.actor.ActorHandle,
        max_attempts: int,
        use_gpu: bool,
    ) -> None:
        start_worker_logging()
        self._plan, self._pending = plan, pending
        self._ledger, self._max_attempts = ledger, max_attempts
        self._table, self._folder = ray.get(plan.table), Place.of(plan.output)
        self._name = str(ray.get_runtime_context().get_actor_id())
        self._one_suspect_at_a_time = threading.Lock()
        self._resources = ExitStack()
        folder = self._resources.enter_context(rephraser_folder(plan.model))
        with told_wait(f"starting an engine with {plan.model}"):
            self._engine = build_rephraser(plan.rephraser, folder, plan.decoding, plan.engine, use_gpu=use_gpu)
        keep_beating(ledger, self._name)

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        """Rephrase and commit a chunk; returns its counts as one row."""
        began = time.perf_counter()
        rows = self._pending.rows(int(batch["id"][0])).tolist()
        records = with_texts(self._table.take(pa.array(rows, pa.int64())))
        clips = [ClipTexts(record["clip_id"], tuple(record["texts"])) for record in records]
        found = self._rephrase(rows, clips)
        rephrase_s = time.perf_counter() - began
        began = time.perf_counter()
        table = self._commit(rows, records, found)
        return pa.table(
            {
                "num_clips": [len(rows)],
                "num_errors": [sum(all(row["error"] for row in own) for own in found)],
                "num_tokens": [int(np.sum(table["num_tokens"].drop_null().to_numpy()))],
                "read_s": [0.0],
                "decode_s": [0.0],
                "caption_s": [rephrase_s],
                "write_s": [time.perf_counter() - began],
                "engine": [self._name],
                "engine_busy_s": [self._engine.busy_s],
                "engine_idle_s": [self._engine.idle_s],
            }
        )

    def _rephrase(self, rows: list[int], clips: list[ClipTexts]) -> list[list[dict[str, Any]]]:
        """Return the rows of the clips. They go into the engine together, unless it died with one of them in it: then
        each goes alone, so that the next death tells which it was.
        """
        if not ray.get(self._ledger.begin_batch.remote(rows)):
            found = self._ask(clips)
        else:
            found = [self._rephrase_alone(row, clip) for row, clip in zip(rows, clips, strict=True)]
        ray.get(self._ledger.end.remote(rows))
        return found

    def _rephrase_alone(self, row: int, clip: ClipTexts) -> list[dict[str, Any]]:
        with self._one_suspect_at_a_time:
            deaths = ray.get(self._ledger.begin_alone.remote(row))
            if deaths >= self._max_attempts:
                reason = f"the engine died with this clip alone in it: {deaths} times"
                return error_rows(clip, self._plan.decoding, reason)
            found = self._ask([clip])[0]
            ray.get(self._ledger.end.remote([row]))
            return found

    def _ask(self, clips: list[ClipTexts]) -> list[list[dict[str, Any]]]:
        """Ask the engine. One that fails is dead, and its process with it: Ray starts the actor anew and gives its
        chunks to it or to others."""
        try:
            return rephrase_clips(clips, self._engine, self._plan.decoding, self._plan.wording)
        except UserError:
            raise
        except Exception:
            logger.exception("the rephrasing engine died, its actor starts anew")
            end_process(self._resources)

    def _commit(self, rows: list[int], records: list[dict], found: list[list[dict[str, Any]]]) -> pa.Table:
        whole = [
            {"row": row, "clip_id": record["clip_id"], "video_sha256": record["sha256"], **one}
            for row, record, own in zip(rows, records, found, strict=True)
            for one in own
        ]
        table = pa.Table.from_pylist(whole, schema=PART_SCHEMA)
        with storage_errors(self._folder.uri):
            require_work_folder(self._folder)
            with_retries(lambda: write_parts(self._folder, table))
        return table
