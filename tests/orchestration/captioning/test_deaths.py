"""A clip that kills every engine it meets becomes an error row, and takes no other clip with it."""

import os

import pytest
import ray

from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.pictures.settings import ClipShowConfig
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.orchestration.captioning.actor import Captioning
from mama_ray.orchestration.captioning.decode import decode_chunk
from mama_ray.orchestration.captioning.ledger import CaptionLedger
from mama_ray.orchestration.captioning.parts import WORK_FOLDER, list_parts, read_part
from mama_ray.orchestration.captioning.plan import CaptionPlan, find_captioner, how_to_show, load_clips, scan_pending
from mama_ray.storage.places import Place
from tests.orchestration.captioning.captioning_runs import write_caption_shards

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow]

CORPUS = CorpusConfig(num_train=24, num_meta=8, num_val=8, num_test=24)  # two chunks
POISON = "simple-0-train-000005"
MAX_ATTEMPTS = 2


class PoisonedCaptioning(Captioning):
    """A real actor with a real engine, whose process ends as soon as one clip goes in."""

    def _submit(self, batch, position):
        if batch["clip_id"][position] == POISON:
            os._exit(1)
        return super()._submit(batch, position)


@pytest.fixture
def plan(ray_cluster, tmp_path):
    shards = str(write_caption_shards(tmp_path / "shards", CORPUS))
    frames = ClipShowConfig()
    captioner = find_captioner(None, None, frames=frames, side=None)
    table, *facts = load_clips(shards, None)
    show = how_to_show(captioner, frames, DecodeConfig())
    output = str(tmp_path / "table")
    (tmp_path / "table" / WORK_FOLDER).mkdir(parents=True)  # as a job has it
    return CaptionPlan(table, *facts, output, None, captioner, show, SamplingConfig(), EngineConfig())


def test_a_clip_that_kills_engines_is_found_alone_and_becomes_an_error_row(plan):
    options = {"max_restarts": -1, "max_task_retries": -1, "max_concurrency": 2}
    ledger = CaptionLedger.remote()
    actor = ray.remote(PoisonedCaptioning).options(**options).remote(plan, ledger, MAX_ATTEMPTS, 7)
    pending = scan_pending(plan)
    chunks = [decode_chunk(plan, pending, position) for position in range(pending.num_chunks)]
    counts = ray.get([actor.__call__.remote(chunk) for chunk in chunks])
    assert sum(table["num_clips"][0].as_py() for table in counts) == sum(CORPUS.num_clips.values())
    output = Place.of(plan.output)
    parts = [read_part(output, name) for name in list_parts(output)]
    rows = [row for part in parts for row in part.to_pylist()]
    assert len(rows) == len({row["row"] for row in rows}) == sum(CORPUS.num_clips.values())
    errors = {row["clip_id"]: row["error"] for row in rows if row["error"]}
    reason = "2 times (its process ended without a word, as when memory runs out)"
    assert errors == {POISON: f"the engine died with this clip alone in it: {reason}"}
    assert scan_pending(plan).num_clips == 0
