"""An engine that dies of whatever it is shown ends the job and says why; one that dies of a clip gives up that clip."""

import time
from concurrent.futures import Future
from pathlib import Path

import pyarrow as pa
import pytest
import ray

from mama_ray.captioning.engines.build import ENGINES
from mama_ray.captioning.engines.captioner import Captioner
from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.engines.protocol import GRID, EngineDied, GeneratedText, Shown
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning import stream
from mama_ray.orchestration.captioning.actor import Captioning
from mama_ray.orchestration.captioning.job import PoolConfig
from mama_ray.orchestration.captioning.ledger import CaptionLedger
from mama_ray.orchestration.captioning.parts import WORK_FOLDER, list_parts, read_part
from mama_ray.orchestration.captioning.plan import CaptionPlan
from mama_ray.orchestration.captioning.pool import PoolHistory
from mama_ray.orchestration.captioning.source import ShardSource, ShowConfig
from mama_ray.orchestration.cluster.results import user_errors
from mama_ray.storage.places import Place
from tests.orchestration.captioning.test_actor import NUM_CLIPS, batch_of_clips, write_weights

pytestmark = pytest.mark.ray

WORDS = "OutOfMemoryError: CUDA out of memory"
DEADLY = 1  # the pixels of the clip of this number


class DyingEngine:
    """Dies of what it is shown, of all clips or of one alone."""

    def __init__(self, folder: Path, prompt: str, sampling: SamplingConfig, config: EngineConfig) -> None:
        self.busy_s = self.idle_s = 1.0
        self.last_step_s = time.monotonic()
        self.num_tokens = 0
        self._dies_of_all = prompt == "all"

    def submit(self, shown: Shown, seed: int) -> Future[list[GeneratedText]]:
        answer: Future[list[GeneratedText]] = Future()
        if self._dies_of_all or shown.content.max() == DEADLY:
            answer.set_exception(EngineDied(WORDS))
        else:
            answer.set_result([GeneratedText("a circle", 2, "stop", -1.0)])
        return answer

    def close(self) -> None:
        self.busy_s = 0.0


class DyingCaptioning(Captioning):
    """The real actor, in whose process there is one more engine."""

    def __init__(self, *given) -> None:
        ENGINES["dying"] = DyingEngine
        super().__init__(*given)


def caption(folder: Path, dies_of: str, pool: PoolConfig, monkeypatch) -> list[dict]:
    """Caption four clips by the job's own pipeline; return the rows that are committed."""
    monkeypatch.setattr(stream, "Captioning", DyingCaptioning)
    numbers = range(NUM_CLIPS)
    index = pa.table({"clip_id": [f"clip-{row}" for row in numbers], "sha256": [f"sha-{row}" for row in numbers]})
    (folder / WORK_FOLDER).mkdir(exist_ok=True)
    plan = CaptionPlan(
        ray.put(index), NUM_CLIPS, "ids", ShardSource("nowhere", 1), str(folder), str(folder),
        Captioner("Dying", 4, dies_of, 80, None, write_weights(folder), "dying"), ShowConfig(GRID, 4),
        SamplingConfig(), EngineConfig(),
    )  # fmt: skip
    batch = batch_of_clips()
    with user_errors():
        list(stream.caption_decoded(plan, pool, PoolHistory(), range(1), lambda _: batch, block_bytes=1 << 20))
    return rows_of(folder)


def rows_of(folder: Path) -> list[dict]:
    place = Place.of(folder)
    return [row for name in list_parts(place) for row in read_part(place, name).to_pylist()]


@pytest.mark.slow
def test_a_job_whose_engine_writes_nothing_ends_with_its_last_words_and_says_nothing_of_clips(
    ray_cluster, tmp_path, monkeypatch
):
    pool = PoolConfig(clips_per_commit=1, concurrent_batches=1, max_attempts=1, max_deaths=3, max_decode_tasks=1)
    with pytest.raises(UserError, match=rf"no caption is written in between: got 3 deaths, the last: {WORDS}"):
        caption(tmp_path, "all", pool, monkeypatch)
    assert rows_of(tmp_path) == []


@pytest.mark.slow
def test_a_clip_that_engines_die_of_is_given_up_with_their_last_words(ray_cluster, tmp_path, monkeypatch):
    pool = PoolConfig(max_attempts=2, max_decode_tasks=1)
    rows = caption(tmp_path, "one", pool, monkeypatch)
    reason = f"the engine died with this clip alone in it: 2 times ({WORDS})"
    assert [row["error"] for row in rows] == [reason if number == DEADLY else None for number in range(NUM_CLIPS)]


def test_lost_nodes_are_neither_a_clips_fault_nor_an_engines(ray_cluster):
    ledger, here = CaptionLedger.remote(), ray.get_runtime_context().get_node_id()
    ask = lambda name, *given: ray.get(getattr(ledger, name).remote(*given))  # noqa: E731 - one line says it
    for _ in range(3):
        assert ask("start", "engine", "a lost node")[0] == 0
        assert ask("begin_alone", 7, "engine")[0] == 0
    assert ask("start", "engine", here)[0] == 0
    assert ask("begin_alone", 7, "engine")[0] == 0
    ask("tell_death", "engine", WORDS)
    assert ask("start", "engine", here) == (1, WORDS)
    assert ask("begin_alone", 7, "engine") == (1, WORDS)
    ask("give_up", 7, "engine")
    assert ask("unproven") == [7]
    ask("end", [8], "another engine")
    assert ask("unproven") == [7]
    ask("end", [8], "engine")
    assert ask("unproven") == []
    assert ask("start", "engine", here)[0] == 1


@pytest.mark.parametrize("max_deaths", [3, 4])
def test_fewer_deaths_than_one_clip_brings_about_end_no_job(max_deaths):
    with pytest.raises(ValueError, match=f"max_deaths {max_deaths} is below max_attempts 3"):
        PoolConfig(max_deaths=max_deaths)
