"""The pipeline of a rephrasing job: a task is one chunk, however many there are, and engines that hang start anew."""

import time
from pathlib import Path

import pyarrow as pa
import pytest
import ray

from mama_ray.captioning.engines.generation import EngineConfig
from mama_ray.captioning.rephrasing.settings import DecodingConfig, WordingConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning import deaths
from mama_ray.orchestration.captioning.parts import CHUNK_CLIPS, WORK_FOLDER, list_parts
from mama_ray.orchestration.captioning.pending import PendingChunks
from mama_ray.orchestration.captioning.pool import PoolHistory
from mama_ray.orchestration.cluster.results import user_errors
from mama_ray.orchestration.rephrase import actor, stream
from mama_ray.orchestration.rephrase.actor import Rephrasing
from mama_ray.orchestration.rephrase.job import RephrasePoolConfig
from mama_ray.orchestration.rephrase.plan import RephrasePlan, find_rephraser, load_texts, scan_pending
from mama_ray.storage.places import Place
from tests.orchestration.rephrase.rephrase_runs import grammar_captions, write_captioned_shards, write_random_t5

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_CHUNKS = 4200
DECODING = DecodingConfig(num_beams=4, num_groups=4, max_length=24)


class Telling:
    """Stands where an engine would, and tells which task of Ray it is called in."""

    def __init__(self, *given) -> None:
        pass

    def __call__(self, batch) -> pa.Table:
        return pa.table({"task": [ray.get_runtime_context().get_task_id()] * len(batch["id"])})


class HangingRephrasing(Rephrasing):
    """The real actor with a real engine that hangs in its first process, or in all."""

    def __init__(self, plan, *given) -> None:
        deaths._HUNG_AFTER_S, actor.POLL_S = 1.0, 0.1
        super().__init__(plan, *given)
        flag = Path(plan.output) / "hung"
        if hasattr(self, "_engine") and (not flag.exists() or plan.decoding.length_penalty == 0):
            flag.touch()
            setattr(self._engine, "_decode", lambda *_: time.sleep(3600))  # noqa: B010 - the protocol has no such name


def test_what_a_lost_actor_does_again_is_one_chunk_of_any_number(ray_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "Rephrasing", Telling)
    pending = PendingChunks(ray.put(None), ray.put(None), NUM_CHUNKS, NUM_CHUNKS * CHUNK_CLIPS)
    plan = RephrasePlan(ray.put(None), 1, 1, "", str(tmp_path), "", None, DECODING, WordingConfig(), EngineConfig())
    told = list(stream.rephrase_chunks(plan, pending, RephrasePoolConfig(cpus_per_engine=0.5), PoolHistory()))
    tasks = [task for one in told for task in one["task"]]
    assert len(tasks) == len(set(tasks)) == NUM_CHUNKS


def rephrase(folder: Path, decoding: DecodingConfig, pool: RephrasePoolConfig, monkeypatch) -> int:
    """Rephrase a chunk of captions; return the parts that are committed."""
    monkeypatch.setattr(stream, "Rephrasing", HangingRephrasing)
    shards = write_captioned_shards(folder / "shards", grammar_captions(4))
    model, output = str(write_random_t5(folder / "t5")), folder / "output"
    (output / WORK_FOLDER).mkdir(parents=True)
    rephraser = find_rephraser(model, None, decoding, EngineConfig())
    facts = (str(output), model, rephraser, decoding, WordingConfig(), EngineConfig())
    plan = RephrasePlan(*load_texts(str(shards), "train"), *facts)
    with user_errors():
        list(stream.rephrase_chunks(plan, scan_pending(plan), pool, PoolHistory()))
    return len(list_parts(Place.of(output)))


def test_an_engine_that_hangs_starts_anew(ray_cluster, tmp_path, monkeypatch):
    assert rephrase(tmp_path, DECODING, RephrasePoolConfig(), monkeypatch) == 1


def test_an_engine_that_hangs_again_and_again_ends_the_job(ray_cluster, tmp_path, monkeypatch):
    decoding = DECODING.model_copy(update={"length_penalty": 0.0})
    pool = RephrasePoolConfig(max_attempts=1, max_deaths=3)
    with pytest.raises(UserError, match="got 3 deaths, the last: no step of the engine in 1 s"):
        rephrase(tmp_path, decoding, pool, monkeypatch)
