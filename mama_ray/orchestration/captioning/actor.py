"""The captioning stage: batches of decoded clips in, captions committed; only counts leave the actor.

Rows carry clip_id and the hashes of the video and of what is shown of it from decoding to here. The actor hashes that
again before the engine sees it, finds the answer by its request, compares the row with the index, and only then
commits: a caption cannot end up at another clip.
"""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, TimeoutError
from contextlib import ExitStack

import numpy as np
import pyarrow as pa
import ray

from mama_ray.captioning.engines.build import build_engine
from mama_ray.captioning.engines.generation import clip_seed
from mama_ray.captioning.engines.protocol import EngineDied, GeneratedText, RequestRefused
from mama_ray.masking import mask_text, masked_errors
from mama_ray.orchestration.captioning.deaths import POLL_S, EngineRecord
from mama_ray.orchestration.captioning.decode import shown_of
from mama_ray.orchestration.captioning.parts import PART_SCHEMA, require_work_folder, write_parts
from mama_ray.orchestration.captioning.plan import CaptionPlan, planned_folder
from mama_ray.orchestration.cluster.connect import start_worker_logging
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.retries import with_retries
from mama_ray.storage.waits import told_wait

logger = logging.getLogger(__name__)


class Captioning:
    """Holds an engine in an actor; several batches are in it at a time, each called from a thread of its own."""

    @masked_errors
    def __init__(self, plan: CaptionPlan, ledger: ray.actor.ActorHandle, max_attempts: int, max_deaths: int) -> None:
        start_worker_logging()
        self._plan, self._record = plan, EngineRecord(ledger, max_attempts, max_deaths)
        self._folder = Place.of(plan.output)
        self._one_suspect_at_a_time = threading.Lock()
        self._resources = ExitStack()
        with self._record.told_later():
            self._record.require_engine()
            self._table = ray.get(plan.table)
            with told_wait(f"starting an engine with {plan.model or 'the embedded narrator'}"):
                folder = self._resources.enter_context(planned_folder(plan))
                self._engine = build_engine(plan.captioner, folder, plan.sampling, plan.engine)
            self._record.is_alive()

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        """Caption and commit a batch; returns its counts as one row."""
        self._record.require_engine()
        began = time.perf_counter()
        rows = [int(row) for row in batch["row"]]
        answers: list = [str(error) or None for error in batch["error"]]
        open_positions = [position for position, error in enumerate(answers) if error is None]
        self._caption(batch, open_positions, answers)
        caption_s = time.perf_counter() - began
        began = time.perf_counter()
        table = self._commit(batch, rows, answers)
        write_s = time.perf_counter() - began
        return pa.table(
            {
                "num_clips": [len(rows)],
                "num_errors": [sum(isinstance(answer, str) for answer in answers)],
                "num_tokens": [int(np.sum(table["num_tokens"].drop_null().to_numpy()))],
                "read_s": [float(np.sum(batch["read_s"]))],
                "decode_s": [float(np.sum(batch["decode_s"]))],
                "caption_s": [caption_s],
                "write_s": [write_s],
                "engine": [self._record.name],
                "engine_busy_s": [self._engine.busy_s],
                "engine_idle_s": [self._engine.idle_s],
            }
        )

    def _caption(self, batch: dict[str, np.ndarray], positions: list[int], answers: list) -> None:
        """Put answers in place: a list of GeneratedText, or the reason why there is none.

        All clips go into the engine together, unless it died with one of them in it: then each goes alone, so that the
        next death tells which it was.
        """
        if not positions:
            return
        rows = [int(batch["row"][position]) for position in positions]
        if not self._record.begin(rows):
            futures = [self._submit(batch, position) for position in positions]
            for position, future in zip(positions, futures, strict=True):
                answers[position] = self._wait(future)
            wrote = any(isinstance(answers[position], list) for position in positions)
        else:
            for position, row in zip(positions, rows, strict=True):
                answers[position] = self._caption_alone(batch, position, row)
            wrote = False  # told already, clip by clip
        self._record.end(rows, wrote=wrote)

    def _caption_alone(self, batch: dict[str, np.ndarray], position: int, row: int) -> list[GeneratedText] | str:
        with self._one_suspect_at_a_time:
            if reason := self._record.begin_alone(row):
                return reason
            answer = self._wait(self._submit(batch, position))
            self._record.end([row], wrote=isinstance(answer, list))
            return answer

    def _submit(self, batch: dict[str, np.ndarray], position: int) -> Future[list[GeneratedText]] | str:
        shown = shown_of(self._plan.show.kind, batch, position)
        if not shown.is_intact():
            return f"the pixels of the {shown.kind} changed between decoding and captioning"
        return self._engine.submit(shown, self._seed(str(batch["clip_id"][position])))

    def _wait(self, future: Future[list[GeneratedText]] | str) -> list[GeneratedText] | str:
        while not isinstance(future, str):
            try:
                return future.result(timeout=POLL_S)
            except TimeoutError:
                self._record.require_step(self._engine.last_step_s, self._resources)
            except RequestRefused as error:
                return mask_text(str(error))
            except EngineDied as error:
                self._record.die(str(error), self._resources)
        return future

    def _commit(self, batch: dict[str, np.ndarray], rows: list[int], answers: list) -> pa.Table:
        records = self._table.select(["clip_id", "sha256"]).take(pa.array(rows)).to_pylist()
        found = []
        for position, (row, record, answer) in enumerate(zip(rows, records, answers, strict=True)):
            clip_id, sha256 = str(batch["clip_id"][position]), str(batch["video_sha256"][position])
            if (clip_id, sha256) != (record["clip_id"], record["sha256"]):
                raise RuntimeError(f"row {row} is clip {record['clip_id']}, its caption came with {clip_id} ({sha256})")
            shown_sha256 = str(batch["shown_sha256"][position]) or None
            known = {
                "row": row,
                "clip_id": clip_id,
                "video_sha256": sha256,
                "frame_indices": batch["frame_indices"][position].tolist() if shown_sha256 else None,
                "num_filled": int(batch["num_filled"][position]) if shown_sha256 else None,
                "shown_sha256": shown_sha256,
            }
            found += _part_rows(known, answer, self._plan.sampling.num_captions, self._seed(clip_id))
        table = pa.Table.from_pylist(found, schema=PART_SCHEMA)
        with storage_errors(self._folder.uri):
            require_work_folder(self._folder)
            with_retries(lambda: write_parts(self._folder, table, self._plan.chunk_clips))
        return table

    def _seed(self, clip_id: str) -> int:
        return clip_seed(self._plan.sampling.seed, clip_id)


def _part_rows(known: dict, answer: Sequence[GeneratedText] | str, num_captions: int, seed: int) -> list[dict]:
    """Return one row per sample: the captions, or the error for each of them."""
    empty = dict.fromkeys(PART_SCHEMA.names)
    if isinstance(answer, str):
        return [{**empty, **known, "sample": sample, "error": answer} for sample in range(num_captions)]
    return [
        {
            **empty,
            **known,
            "sample": sample,
            "text": text.text,
            "seed": seed + sample,
            "num_tokens": text.num_tokens,
            "finish_reason": text.finish_reason,
            "mean_logprob": text.mean_logprob,
        }
        for sample, text in enumerate(answer)
    ]
