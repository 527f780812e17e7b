"""The simulation of benchmarks/scaling.py against what can be worked out by hand."""

import pytest

from mama_ray.experiments.scaling.captioning import simulate
from mama_ray.experiments.scaling.scenario import CaptionScenario, read_seconds
from mama_ray.experiments.scaling.training import TrainScenario, simulate_training
from mama_ray.orchestration.captioning.parts import CHUNK_CLIPS
from mama_ray.orchestration.cluster.pipelines import NUMBERS_PER_PIPELINE

# 4 engines of 50 clips/s; everything else is ten times as fast as they are.
BALANCED = CaptionScenario(
    num_clips=64_000, num_engines=4, engines_per_node=2, engine_clips_per_s=50.0, decode_tasks=20, decode_s=0.01,
    gets_per_chunk=60, opens_per_chunk=4, gets_per_s=4000, clip_bytes=1e6, read_bytes_per_s=2e9,
    connection_bytes_per_s=1e12, puts_per_chunk=3, puts_per_s=200, driver_s_per_chunk=0.016, ledger_s_per_chunk=0.016,
)  # fmt: skip


def changed(**values) -> CaptionScenario:
    return BALANCED.model_copy(update=values)


@pytest.mark.parametrize(
    ("changes", "rate", "bottleneck"),
    [
        ({}, 4 * 50.0, "engines"),
        ({"decode_s": 0.4}, 20 / 0.4, "decode CPUs"),
        ({"gets_per_s": 100}, 100 / 64 * CHUNK_CLIPS, "storage requests"),
        ({"puts_per_s": 5}, 5 / 3 * CHUNK_CLIPS, "storage requests"),
        ({"read_bytes_per_s": 6e7}, 60.0, "storage bandwidth"),
        ({"driver_s_per_chunk": 0.5}, CHUNK_CLIPS / 0.5, "driver"),
        ({"ledger_s_per_chunk": 0.5}, CHUNK_CLIPS / 0.5, "ledger"),
    ],
)
def test_with_one_bottleneck_the_throughput_is_that_of_the_bottleneck(changes, rate, bottleneck):
    run = simulate(changed(**changes))
    assert run.clips_per_s == pytest.approx(rate, rel=0.03)
    assert run.bottleneck == bottleneck


def test_doubling_what_is_no_bottleneck_changes_nothing():
    base = simulate(changed(decode_s=0.4))
    for more in (
        {"num_engines": 8},
        {"gets_per_s": 8000},
        {"driver_s_per_chunk": 0.008},
        {"engine_clips_per_s": 100.0},
    ):
        assert simulate(changed(decode_s=0.4, **more)).wall_s == pytest.approx(base.wall_s, rel=0.01)


@pytest.mark.parametrize("num_clips", [1, 31, 33, 64_000, 64_001])
@pytest.mark.parametrize("losses", [0.0, 60.0])
@pytest.mark.parametrize("chunks_per_pipeline", [NUMBERS_PER_PIPELINE, 700])
def test_every_clip_is_committed_once_whatever_was_lost(num_clips, losses, chunks_per_pipeline):
    lost = {"losses_per_node_hour": losses, "replacement_s": 5.0, "decode_s": 0.05}
    run = simulate(changed(num_clips=num_clips, chunks_per_pipeline=chunks_per_pipeline, **lost))
    assert run.num_committed == num_clips
    if losses or chunks_per_pipeline == NUMBERS_PER_PIPELINE:  # else one pipeline stands for all
        assert sum(clips for _, clips in run.commits) == num_clips


def test_each_pipeline_starts_engines_drains_and_is_followed_by_the_next():
    # Three of 100 chunks and one of 50. Engines: 30 s of start, then 1,600 clips of 200/s are 16 s, or 8 s.
    s = changed(num_clips=350 * CHUNK_CLIPS, chunks_per_pipeline=100, engine_start_s=30.0, source_s_per_chunk=0.05)
    run = simulate(s)
    assert run.num_pipelines == 4
    assert run.wall_s == pytest.approx(350 * 0.05 + 4 * 30 + 350 * CHUNK_CLIPS / 200, rel=0.02)
    assert run.busy["engines"] == pytest.approx(350 * CHUNK_CLIPS / 200 / run.wall_s, rel=0.01)


def test_a_pipeline_drains_before_the_next_one_decodes():
    # 5 chunks on 4 cores are two rounds, in the second of which three cores have nothing to do: 12.8 s a round.
    s = changed(num_clips=15 * CHUNK_CLIPS, chunks_per_pipeline=5, decode_tasks=4, decode_s=0.4)
    last_chunk_s = CHUNK_CLIPS / 50
    assert simulate(s).wall_s == pytest.approx(3 * (2 * CHUNK_CLIPS * 0.4 + last_chunk_s), rel=0.02)
    whole = simulate(s.model_copy(update={"chunks_per_pipeline": 15}))  # four rounds
    assert whole.wall_s == pytest.approx(4 * CHUNK_CLIPS * 0.4 + last_chunk_s, rel=0.04)


def test_pipelines_that_are_taken_to_be_like_the_first_take_as_long_as_they_do():
    one = simulate(changed(num_clips=100 * CHUNK_CLIPS, engine_start_s=7.0))
    ten = simulate(changed(num_clips=1000 * CHUNK_CLIPS, chunks_per_pipeline=100, engine_start_s=7.0))
    assert ten.wall_s == pytest.approx(10 * one.wall_s, rel=1e-6)
    assert ten.num_committed == 1000 * CHUNK_CLIPS


def test_larger_chunks_are_fewer_for_the_driver_and_longer_for_a_decode_task():
    small = simulate(changed(driver_s_per_chunk=1.0))
    large = simulate(changed(driver_s_per_chunk=1.0, chunk_clips=128))
    assert small.clips_per_s == pytest.approx(32, rel=0.03)
    assert large.clips_per_s == pytest.approx(128, rel=0.03)
    few = changed(num_clips=5 * 128, chunk_clips=128, decode_tasks=4, decode_s=0.4)
    assert simulate(few).wall_s == pytest.approx(2 * 128 * 0.4 + 128 / 50, rel=0.02)


def test_a_task_that_is_lost_decodes_its_chunk_again_and_no_other():
    # Long decoding: chunks are never waiting when a node is lost, so what is redone is inside tasks, 10 on a node.
    s = changed(num_clips=6400, losses_per_node_hour=12.0, replacement_s=0.0, decode_s=2.0, engine_clips_per_s=1e4)
    runs = [simulate(s.model_copy(update={"seed": seed})) for seed in range(5)]
    losses, redone_s = sum(run.num_losses for run in runs), sum(run.decode_s_redone for run in runs)
    chunk_s = CHUNK_CLIPS * s.decode_s
    assert losses > 5
    assert redone_s <= 10 * losses * chunk_s
    assert redone_s == pytest.approx(10 * losses * chunk_s / 2, rel=0.35)  # half of a chunk on average


def test_chunks_that_wait_are_decoded_again_where_their_node_is_lost():
    # Before engines are up the queue's 64 chunks are full, half of them of each node, and each of 20 tasks has one.
    s = changed(num_clips=96 * CHUNK_CLIPS, engine_start_s=1000.0, losses_per_node_hour=1.8, replacement_s=1.0)
    runs = [simulate(s.model_copy(update={"seed": seed})) for seed in range(12)]
    redone_s = [run.decode_s_redone for run in runs if run.num_losses == 1]
    assert redone_s
    for seconds in redone_s:
        assert seconds == pytest.approx((32 + 10) * CHUNK_CLIPS * s.decode_s, rel=0.1)


def test_losses_cost_about_the_time_that_engines_are_away_and_the_redone_clips():
    calm = simulate(changed(num_clips=640_000))
    stormy = changed(
        num_clips=640_000, losses_per_node_hour=6.0, replacement_s=60.0, engine_start_s=20.0, decode_tasks=400
    )
    run = simulate(stormy)
    away_s = run.num_losses * (stormy.replacement_s + stormy.engine_start_s) / 2  # of the two nodes one is away
    redone_s = run.clips_redone / (4 * 50.0)
    assert run.num_losses > 3
    assert run.wall_s - calm.wall_s == pytest.approx(away_s + redone_s + stormy.engine_start_s, rel=0.3)
    in_engines = stormy.engines_per_node * stormy.concurrent_batches * CHUNK_CLIPS
    assert 0 < run.clips_redone <= run.num_losses * (in_engines + stormy.engines_per_node * CHUNK_CLIPS)


def test_a_reading_opens_shards_and_sends_requests_eight_at_a_time():
    # 2 rounds of opening, 3 of reading; each of 17 requests takes 1 s for its bytes.
    assert read_seconds(17, 9, 17e6, latency_s=0.1, connection_bytes_per_s=1e6) == pytest.approx(0.5 + 3.0)
    assert read_seconds(0, 0, 0, latency_s=0.1, connection_bytes_per_s=1e6) == 0


def test_training_runs_at_the_speed_of_its_slower_side():
    base = TrainScenario(
        num_workers=4, batch_size_per_worker=32, clips_per_s_per_gpu=64.0, decode_cpus_per_worker=16, decode_s=0.05
    )
    fast = simulate_training(base)
    assert fast.clips_per_s == pytest.approx(4 * 64.0, rel=0.03)
    slow = simulate_training(base.model_copy(update={"decode_cpus_per_worker": 2}))
    assert slow.clips_per_s == pytest.approx(4 * 2 / 0.05, rel=0.05)
    assert slow.gpu_share == pytest.approx(slow.clips_per_s / (4 * 64.0), rel=0.05)
    asking = simulate_training(base.model_copy(update={"gets_per_batch": 40.0, "gets_per_s": 100.0}))
    assert asking.clips_per_s == pytest.approx(100 / 40 * 32, rel=0.05)


def test_a_meta_step_every_second_step_costs_its_share():
    base = TrainScenario(
        num_workers=2, batch_size_per_worker=32, clips_per_s_per_gpu=64.0, decode_cpus_per_worker=16, decode_s=0.01
    )
    plain, meta = (
        simulate_training(base.model_copy(update={"meta_every": every, "meta_step_ratio": 2.4})) for every in (0, 2)
    )
    assert meta.wall_s / plain.wall_s == pytest.approx((1 + 2.4) / 2, rel=0.02)
