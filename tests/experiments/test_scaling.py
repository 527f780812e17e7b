"""The simulation of benchmarks/scaling.py against what can be worked out by hand."""

import pytest

from mama_ray.experiments.scaling.inputs import (
    Remedies,
    caption_scenario,
    decode_cpus_per_gpu,
    engine_rate,
    load_assumptions,
    load_calibration,
)
from mama_ray.experiments.scaling.pipeline import simulate
from mama_ray.experiments.scaling.scenario import CHUNK_CLIPS, CaptionScenario
from mama_ray.experiments.scaling.training import TrainScenario, simulate_training

# 4 engines of 50 clips/s; everything else is ten times as fast as they are.
BALANCED = CaptionScenario(
    num_clips=64_000, num_engines=4, engines_per_node=2, engine_clips_per_s=50.0, decode_tasks=20, decode_s=0.01,
    gets_per_clip=2, gets_per_s=4000, clip_bytes=1e6, read_bytes_per_s=2e9, connection_bytes_per_s=1e12,
    puts_per_chunk=3, puts_per_s=200, driver_s_per_chunk=0.016, ledger_s_per_chunk=0.016, max_blocks=400,
)  # fmt: skip


def changed(**values) -> CaptionScenario:
    return BALANCED.model_copy(update=values)


@pytest.mark.parametrize(
    ("changes", "rate", "bottleneck"),
    [
        ({}, 4 * 50.0, "engines"),
        ({"decode_s": 0.4}, 20 / 0.4, "decode CPUs"),
        ({"gets_per_s": 100}, 100 / 2, "storage requests"),
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
def test_every_clip_is_committed_once_whatever_was_lost(num_clips, losses):
    run = simulate(changed(num_clips=num_clips, losses_per_node_hour=losses, replacement_s=5.0, decode_s=0.05))
    assert run.num_committed == num_clips


def test_gathering_chunks_into_units_changes_little():
    fine, coarse = simulate(BALANCED), simulate(changed(max_units=200))
    assert coarse.wall_s == pytest.approx(fine.wall_s, rel=0.05)


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


def test_a_block_that_is_lost_is_decoded_again_from_its_start():
    one_block = {"num_clips": 64_000, "max_blocks": 20, "replacement_s": 0.0}
    run = simulate(changed(**one_block, losses_per_node_hour=60.0, decode_s=0.1))
    assert run.num_losses and run.decode_s_redone > 10 * run.num_losses


def test_few_blocks_leave_decode_cores_idle():
    # 6 blocks on 4 cores: two rounds, of which the second has work for two.
    run = simulate(changed(max_blocks=6, decode_tasks=4, decode_s=0.4, num_clips=6 * 3200))
    assert run.wall_s == pytest.approx(2 * 3200 * 0.4, rel=0.05)


def test_training_runs_at_the_speed_of_its_slower_side():
    base = TrainScenario(
        num_workers=4, batch_size_per_worker=32, clips_per_s_per_gpu=64.0, decode_cpus_per_worker=16, decode_s=0.05
    )
    fast = simulate_training(base)
    assert fast.clips_per_s == pytest.approx(4 * 64.0, rel=0.03)
    slow = simulate_training(base.model_copy(update={"decode_cpus_per_worker": 2}))
    assert slow.clips_per_s == pytest.approx(4 * 2 / 0.05, rel=0.05)
    assert slow.gpu_share == pytest.approx(slow.clips_per_s / (4 * 64.0), rel=0.05)


def test_a_meta_step_every_second_step_costs_its_share():
    base = TrainScenario(
        num_workers=2, batch_size_per_worker=32, clips_per_s_per_gpu=64.0, decode_cpus_per_worker=16, decode_s=0.01
    )
    plain, meta = (
        simulate_training(base.model_copy(update={"meta_every": every, "meta_step_ratio": 2.4})) for every in (0, 2)
    )
    assert meta.wall_s / plain.wall_s == pytest.approx((1 + 2.4) / 2, rel=0.02)


def test_the_rule_for_decode_cpus_keeps_engines_busy_and_a_third_fewer_do_not():
    assume, calibration = load_assumptions(), load_calibration()
    scenario = caption_scenario(
        assume, calibration, num_clips=400_000, num_gpus=8, remedies=Remedies(num_prefixes=100, max_blocks=65_536)
    )
    scenario = scenario.model_copy(update={"engine_start_s": 0.0})
    read_s = (scenario.gets_per_clip * scenario.read_latency_s + scenario.clip_bytes / 85e6) / 8
    per_gpu = decode_cpus_per_gpu(engine_rate(assume, calibration), scenario.decode_s, read_s)
    enough = simulate(scenario.model_copy(update={"decode_tasks": 8 * per_gpu}))
    too_few = simulate(scenario.model_copy(update={"decode_tasks": 8 * per_gpu * 2 // 3}))
    assert enough.busy["engines"] > 0.93
    assert too_few.busy["engines"] < 0.85
