"""The actor with an engine that is not vLLM: what it asks of one, what it commits, and that the pool is told of it."""

import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray

from mama_ray.captioning.engines.build import ENGINES
from mama_ray.captioning.engines.captioner import Captioner
from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig, clip_seed
from mama_ray.captioning.engines.protocol import GRID, GeneratedText, RequestRefused, Shown
from mama_ray.captioning.pictures.grid import hash_pixels
from mama_ray.errors import UserError
from mama_ray.models.weight_files import hash_weights
from mama_ray.orchestration.captioning.actor import Captioning
from mama_ray.orchestration.captioning.ledger import CaptionLedger
from mama_ray.orchestration.captioning.parts import WORK_FOLDER, list_parts, read_part
from mama_ray.orchestration.captioning.plan import CaptionPlan
from mama_ray.orchestration.captioning.pool import PoolHistory, watched
from mama_ray.orchestration.captioning.source import ShardSource, ShowConfig
from mama_ray.orchestration.cluster.results import user_errors
from mama_ray.storage.places import Place

pytestmark = pytest.mark.ray

NUM_CLIPS = 4
REFUSED = 2


class TellingEngine:
    """Says at once what it was shown and asked."""

    def __init__(self, folder: Path, prompt: str, sampling: SamplingConfig, config: EngineConfig) -> None:
        self.busy_s = self.idle_s = 1.0
        self.last_step_s = time.monotonic()
        self.num_tokens = 0
        self._prompt = prompt

    def submit(self, shown: Shown, seed: int) -> Future[list[GeneratedText]]:
        answer: Future[list[GeneratedText]] = Future()
        level = int(shown.content.max())
        if level == REFUSED:
            answer.set_exception(RequestRefused("too dark to tell"))
        else:
            answer.set_result([GeneratedText(f"{self._prompt} {shown.kind} {level} {seed}", 4, "stop", -1.0)])
        return answer

    def close(self) -> None:
        self.busy_s = 0.0


class TellingCaptioning(Captioning):
    """The real actor, in whose process there is one more engine."""

    def __init__(self, *given) -> None:
        ENGINES["telling"] = TellingEngine
        super().__init__(*given)


@pytest.fixture
def plan(ray_cluster, tmp_path) -> CaptionPlan:
    numbers = range(NUM_CLIPS)
    index = pa.table({"clip_id": [f"clip-{row}" for row in numbers], "sha256": [f"sha-{row}" for row in numbers]})
    (tmp_path / WORK_FOLDER).mkdir()  # as a job has it
    captioner = Captioner("Telling", 4, "what?", 80, None, write_weights(tmp_path), "telling")
    return CaptionPlan(
        ray.put(index), NUM_CLIPS, "ids", ShardSource("nowhere", 1), str(tmp_path), str(tmp_path), captioner,
        ShowConfig(GRID, 4), SamplingConfig(), EngineConfig(),
    )  # fmt: skip


def write_weights(folder: Path, content: bytes = b"weights") -> str:
    """Write what stands for the weights of a model; return their hash."""
    (folder / "model.safetensors").write_bytes(content)
    return hash_weights(folder)


def batch_of_clips(**changes) -> dict[str, np.ndarray]:
    """Return a chunk as decoding gives it, of clips whose pixels are their numbers."""
    pictures = [np.full((4, 4, 3), row, np.uint8) for row in range(NUM_CLIPS)]
    batch = {
        "row": np.arange(NUM_CLIPS),
        "clip_id": np.array([f"clip-{row}" for row in range(NUM_CLIPS)], object),
        "video_sha256": np.array([f"sha-{row}" for row in range(NUM_CLIPS)], object),
        "shown": np.stack(pictures),
        "shown_sha256": np.array([hash_pixels(picture) for picture in pictures], object),
        "frame_indices": np.tile(np.arange(12, dtype=np.int32), (NUM_CLIPS, 1)),
        "num_filled": np.zeros(NUM_CLIPS, np.int64),
        "error": np.array([""] * NUM_CLIPS, object),
        "read_s": np.zeros(NUM_CLIPS),
        "decode_s": np.zeros(NUM_CLIPS),
    }
    return batch | changes


def caption(plan: CaptionPlan, batch: dict[str, np.ndarray]) -> tuple[dict, list[dict]]:
    """Caption one batch in an actor; return its counts and the committed rows."""
    actor = ray.remote(TellingCaptioning).options(num_cpus=0.5).remote(plan, CaptionLedger.remote(), 2, 7)
    (counts,) = ray.get(actor.__call__.remote(batch)).to_pylist()
    ray.kill(actor)
    folder = Place.of(plan.output)
    parts = [read_part(folder, name) for name in list_parts(folder)]
    return counts, pa.concat_tables(parts).to_pylist()


def test_any_engine_of_the_table_captions_and_its_refusals_are_errors_of_their_clips(plan):
    counts, rows = caption(plan, batch_of_clips())
    texts = [f"what? {GRID} {row} {clip_seed(0, f'clip-{row}')}" for row in range(NUM_CLIPS)]
    assert [row["text"] for row in rows] == [None if row == REFUSED else text for row, text in enumerate(texts)]
    assert [row["error"] for row in rows] == [None, None, "too dark to tell", None]
    assert [row["shown_sha256"] for row in rows] == batch_of_clips()["shown_sha256"].tolist()
    told = {name: counts[name] for name in ("num_clips", "num_errors", "num_tokens", "engine_busy_s", "engine_idle_s")}
    assert told == {"num_clips": 4, "num_errors": 1, "num_tokens": 12, "engine_busy_s": 1.0, "engine_idle_s": 1.0}


def test_a_clip_whose_pixels_changed_on_the_way_is_an_error_and_one_without_any_has_no_grid(plan):
    batch = batch_of_clips(error=np.array(["", "", "", "no video"], object))
    batch["shown"][1, 0, 0, 0] = 99
    batch["shown_sha256"][3] = ""
    _, rows = caption(plan, batch)
    assert rows[1]["error"] == "the pixels of the grid changed between decoding and captioning"
    assert rows[3]["error"] == "no video"
    assert [rows[3][name] for name in ("shown_sha256", "frame_indices", "num_filled", "text")] == [None] * 4
    assert rows[0]["error"] is None and rows[0]["text"]


def test_an_engine_with_other_weights_than_the_jobs_writes_nothing(plan, tmp_path):
    write_weights(tmp_path, b"others")
    with pytest.raises(UserError, match="the model is another one than when the job began"), user_errors():
        caption(plan, batch_of_clips())
    assert list_parts(Place.of(plan.output)) == []


@pytest.mark.slow
def test_engines_count_from_their_start_until_they_are_silent(plan):
    history, ledger = PoolHistory(), CaptionLedger.remote()
    actors = [ray.remote(TellingCaptioning).options(num_cpus=0.5).remote(plan, ledger, 2, 7) for _ in range(2)]
    with watched(ledger, history):
        wait_for(history, 2)
        ray.kill(actors[0])
        wait_for(history, 1)
        time.sleep(3)  # had the other one told of itself only once, it would be silent for too long as well by now
        assert history.size == 1
    sizes = [size for _, size in history.sizes]
    assert sizes in ([1, 2, 1, 0], [2, 1, 0])
    ray.kill(actors[1])


def wait_for(history: PoolHistory, size: int) -> None:
    end = time.monotonic() + 120
    while history.size != size:
        assert time.monotonic() < end, f"the pool is {history.sizes}"
        time.sleep(0.1)
