"""The plan's table: numbers that a person can use, one fact to a row."""

from dataclasses import replace

import pytest

from mama_ray.captioning.engines.captioner import Captioner
from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.pictures.settings import GRID
from mama_ray.orchestration.captioning.dry_run import Trial, plan_rows
from mama_ray.orchestration.captioning.job import PoolConfig
from mama_ray.orchestration.captioning.plan import CaptionPlan
from mama_ray.orchestration.captioning.source import ShardSource, ShowConfig

CAPTIONER = Captioner(
    architecture="LlavaForConditionalGeneration", engine="vllm", prompt="USER: <image> describe", num_prompt_tokens=600,
    side=336, weights_sha256="0" * 64, context_length=4096,
)  # fmt: skip


@pytest.fixture
def plan() -> CaptionPlan:
    return CaptionPlan(
        None, 12_000, "", ShardSource("shards", 1), "/captions", "llava", CAPTIONER, ShowConfig(GRID, 336),
        SamplingConfig(), EngineConfig(),
    )  # fmt: skip


def test_decoding_that_is_the_slower_one_decides_on_the_time(plan):
    trial = Trial(num_clips=100, num_tokens=1000, start_s=60.0, decode_s=200.0, caption_s=2.0)
    rows = plan_rows(plan, 10_000, trial, PoolConfig(max_decode_tasks=2))
    assert rows["clips"] == "12,000 clips in 1 shard, 2,000 captioned already"
    assert rows["tokens"] == "about 6,000,000 to read, 100,000 to write"
    assert rows["captioning"] == "3 min 20 s of an engine, after a start of 1 min 00 s"
    assert rows["decoding"] == "5 h 33 min of a CPU; 100 CPUs would keep 1 engine busy"
    assert rows["time"] == "about 2 h 47 min with 1 engine and 2 CPUs for decoding"


def test_engines_that_are_the_slower_ones_decide_on_the_time(plan):
    trial = Trial(num_clips=100, num_tokens=1000, start_s=60.0, decode_s=1.0, caption_s=100.0)
    rows = plan_rows(plan, 12_000, trial, PoolConfig(max_size=4))
    assert rows["decoding"] == "2 min 00 s of a CPU; 1 CPU would keep 4 engines busy"
    assert rows["time"] == "about 51 min 00 s with 4 engines"


def test_a_table_that_is_done_has_no_time(plan):
    rows = plan_rows(replace(plan, num_clips=1), 0, None, PoolConfig())
    assert "time" not in rows
    assert rows["clips"] == "1 clip in 1 shard, 1 captioned already"
