"""The rephrasing stage: numbers of pending chunks in, paraphrases committed; only counts leave the actor.

A chunk is always the same clips in the same order, and its captions go into the engine together: what is written does
not depend on what was killed before.
"""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from mama_ray.captioning.rephrasing.clips import ClipTexts, error_rows, rephrase_clips
from mama_ray.captioning.rephrasing.engine import build_rephraser
from mama_ray.errors import UserError
from mama_ray.masking import masked_errors
from mama_ray.orchestration.captioning.deaths import POLL_S, EngineRecord
from mama_ray.orchestration.captioning.parts import require_work_folder, write_parts
from mama_ray.orchestration.captioning.pending import PendingChunks
from mama_ray.orchestration.cluster.connect import start_worker_logging
from mama_ray.orchestration.rephrase.parts import PART_SCHEMA
from mama_ray.orchestration.rephrase.plan import RephrasePlan, planned_folder, with_texts
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.retries import with_retries
from mama_ray.storage.waits import told_wait

logger = logging.getLogger(__name__)

CALLS_AT_A_TIME = 2  # one at work in the engine, one that reads or commits


class Rephrasing:
    """Holds an engine in an actor; a second chunk waits in it while the first is at work."""

    @masked_errors
    def __init__(
        self,
        plan: RephrasePlan,
        pending: PendingChunks,
        ledger: ray.actor.ActorHandle,
        max_attempts: int,
        max_deaths: int,
        use_gpu: bool,
    ) -> None:
        start_worker_logging()
        self._plan, self._pending = plan, pending
        self._record = EngineRecord(ledger, max_attempts, max_deaths)
        self._folder = Place.of(plan.output)
        self._one_suspect_at_a_time = threading.Lock()
        self._calls = ThreadPoolExecutor(CALLS_AT_A_TIME, "rephrase")
        self._resources = ExitStack()
        with self._record.told_later():
            self._record.require_engine()
            self._table = ray.get(plan.table)
            with told_wait(f"starting an engine with {plan.model}"):
                folder = self._resources.enter_context(planned_folder(plan))
                self._engine = build_rephraser(plan.rephraser, folder, plan.decoding, plan.engine, use_gpu=use_gpu)
            self._record.is_alive()

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        """Rephrase and commit a chunk; returns its counts as one row."""
        self._record.require_engine()
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
                "engine": [self._record.name],
                "engine_busy_s": [self._engine.busy_s],
                "engine_idle_s": [self._engine.idle_s],
            }
        )

    def _rephrase(self, rows: list[int], clips: list[ClipTexts]) -> list[list[dict[str, Any]]]:
        """Return the rows of the clips. They go into the engine together, unless it died with one of them in it: then
        each goes alone, so that the next death tells which it was.
        """
        if not self._record.begin(rows):
            found = self._ask(clips)
            wrote = any(map(_has_text, found))
        else:
            found = [self._rephrase_alone(row, clip) for row, clip in zip(rows, clips, strict=True)]
            wrote = False  # told already, clip by clip
        self._record.end(rows, wrote=wrote)
        return found

    def _rephrase_alone(self, row: int, clip: ClipTexts) -> list[dict[str, Any]]:
        with self._one_suspect_at_a_time:
            if reason := self._record.begin_alone(row):
                return error_rows(clip, self._plan.decoding, reason)
            found = self._ask([clip])[0]
            self._record.end([row], wrote=_has_text(found))
            return found

    def _ask(self, clips: list[ClipTexts]) -> list[list[dict[str, Any]]]:
        """Ask the engine. One that fails or hangs is dead, and its process with it: Ray starts the actor anew and gives
        its chunks to it or to others."""
        call = self._calls.submit(rephrase_clips, clips, self._engine, self._plan.decoding, self._plan.wording)
        while not wait([call], timeout=POLL_S).done:
            self._record.require_step(self._engine.last_step_s, self._resources)
        try:
            return call.result()
        except UserError:
            raise
        except Exception as error:
            logger.exception("the rephrasing engine failed")
            self._record.die(f"{type(error).__name__}: {error}", self._resources)

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


def _has_text(rows: list[dict[str, Any]]) -> bool:
    """Whether the engine wrote anything for a clip, be it kept or not."""
    return any(row["num_looked_at"] for row in rows)
