"""What the simulation is fed with, and the page that tells of it."""

import json

import pytest

from mama_ray.data import shard_check
from mama_ray.experiments.scaling import sizes
from mama_ray.experiments.scaling.captioning import simulate
from mama_ray.experiments.scaling.inputs import (
    Settings,
    batch_requests,
    caption_read_seconds,
    caption_scenario,
    chunk_requests,
    decode_cpus_per_gpu,
    engine_rate,
    load_assumptions,
    load_calibration,
    train_scenario,
    train_step_ratio,
)
from mama_ray.experiments.scaling.page import PAGE, tables_in, tables_of_measurements, with_tables
from mama_ray.experiments.scaling.training import simulate_training
from mama_ray.orchestration.cluster.pipelines import NUMBERS_PER_PIPELINE

ASSUME, CALIBRATION = load_assumptions(), load_calibration()


def scenario(num_clips: int, num_gpus: int = 8, **settings):
    return caption_scenario(ASSUME, CALIBRATION, num_clips=num_clips, num_gpus=num_gpus, settings=Settings(**settings))


@pytest.mark.parametrize(
    ("num_clips", "chunk_clips", "batches"), [(1_000_000, 32, 10), (2_000_000, 64, 5), (100_000_000, 128, 3)]
)
def test_a_job_has_chunks_by_its_size_and_as_many_clips_in_an_engine(num_clips, chunk_clips, batches):
    found = scenario(num_clips)
    assert (found.chunk_clips, found.concurrent_batches) == (chunk_clips, batches)
    assert found.chunks_per_pipeline == NUMBERS_PER_PIPELINE


def test_jobs_side_by_side_share_clips_and_gpus_and_have_the_chunks_of_their_own_size():
    whole, part = scenario(100_000_000, 64), scenario(100_000_000, 64, num_jobs=16)
    assert (part.num_clips, part.num_engines, part.decode_tasks) == (6_250_000, 4, whole.decode_tasks // 16)
    assert part.chunk_clips == 64


def test_settings_change_what_they_are_for():
    plain = scenario(1_000_000)
    assert scenario(1_000_000, shard_folders=256).gets_per_s == 256 * plain.gets_per_s
    assert scenario(1_000_000, extra_decode_cpus_per_gpu=7).decode_tasks == plain.decode_tasks + 8 * 7
    assert scenario(1_000_000, size="320x240").decode_s < plain.decode_s / 3


@pytest.mark.parametrize("size", CALIBRATION["decode"])
def test_requests_of_a_chunk_are_those_that_a_server_was_asked(size):
    counted = CALIBRATION["storage"]["read_of_32"][size]
    found = chunk_requests(CALIBRATION["decode"][size]["clip_mb"] * 1e6, 32)
    assert found == (counted["GET"], counted["HEAD"])


def test_neighbours_of_a_batch_come_by_one_request_where_runs_are_kept():
    gets, opens = batch_requests(500_000, 128)
    assert 100 < gets <= 128 and opens <= 16.0  # single clips of windows of 16 shards
    gets, opens = batch_requests(500_000, 128, run_length=32)
    assert gets == pytest.approx(128 / 16, abs=1)  # 8 MiB hold 16 of them


def test_waiting_for_a_chunk_is_counted_by_hand():
    # 128 clips of 3.11 MB, two to a request: 64, eight at a time, after the shard was opened.
    assert CALIBRATION["decode"]["1280x720"]["clip_mb"] == pytest.approx(3.11, abs=0.01)
    by_hand = 0.1 + 8 * (0.1 + 2 * 3.11e6 / 8.5e7)
    assert caption_read_seconds(ASSUME, CALIBRATION, "1280x720", 128) * 128 == pytest.approx(by_hand, rel=0.01)


def test_the_rule_for_decode_cpus_keeps_engines_busy_and_a_third_fewer_do_not():
    given = scenario(400_000, shard_folders=256).model_copy(update={"engine_start_s": 0.0, "source_s_per_chunk": 0.0})
    read_s = given.read_s_per_chunk / given.chunk_clips
    per_gpu = decode_cpus_per_gpu(engine_rate(ASSUME, CALIBRATION), given.decode_s, read_s)
    enough = simulate(given.model_copy(update={"decode_tasks": 8 * per_gpu}))
    too_few = simulate(given.model_copy(update={"decode_tasks": 8 * per_gpu * 2 // 3}))
    assert enough.busy["engines"] > 0.93
    assert too_few.busy["engines"] < 0.85


def test_training_with_enough_cpus_is_as_fast_as_its_steps():
    run = simulate_training(
        train_scenario(ASSUME, CALIBRATION, num_gpus=8, decode_cpus=96, size="320x240", shard_folders=256)
    )
    by_hand = 8 * ASSUME.train_clips_per_s_per_gpu / train_step_ratio(ASSUME)
    assert 0.85 * by_hand < run.clips_per_s <= by_hand * 1.01
    assert train_step_ratio(ASSUME) == pytest.approx((1 + (1.99 - 1) / 2) / 0.94)


def test_what_a_process_holds_hardly_grows_with_the_job():
    small, large = (sizes.corpus_sizes(ASSUME, CALIBRATION, clips) for clips in (10_000_000, 100_000_000))
    assert large["index_slice_mb"] == small["index_slice_mb"] < 30
    assert large["driver_mb_of_a_pipeline"] == small["driver_mb_of_a_pipeline"]
    assert large["most_memory_of_a_process_gib"] < 1.1
    assert (large["num_parts"], large["num_pipelines"]) == (781_250, 24)
    assert large["job_state_mb_per_node"] == pytest.approx(12.5 + 6.25)


def test_the_check_of_shards_is_a_listing_and_some_ends():
    assert (shard_check._THREADS, shard_check._MOST_ENDS) == (sizes.CHECK_THREADS, sizes.MOST_ENDS)
    counted = CALIBRATION["storage"]["check_of_1100"]
    found = sizes.corpus_sizes(ASSUME, CALIBRATION, 1100 * 256)["check_requests"]
    assert found == sum(counted.values())


def test_the_page_has_the_tables_of_what_was_measured():
    page = PAGE.read_text()
    tables = tables_of_measurements(CALIBRATION, ASSUME)
    assert set(tables) <= set(tables_in(page))
    assert with_tables(page, tables) == page, "run benchmarks/scaling.py --figures"


def test_the_page_opens_with_five_lines():
    title, nothing, mark, *lines = PAGE.read_text().splitlines()
    assert (title, nothing, mark) == ("# Scaling on paper", "", "<!-- table: advice -->")
    assert [line[:4] for line in lines[:5]] == ["* **"] * 5 and lines[5] == "<!-- end -->"


def test_tables_are_put_in_their_places_alone():
    page = "a\n<!-- table: x -->\nold\n<!-- end -->\nb\n<!-- table: y -->\nkept\n<!-- end -->\n"
    assert with_tables(page, {"x": "new\n"}) == page.replace("old", "new")


def test_the_check_against_real_jobs_has_its_three_regimes():
    reality = json.loads(sizes.CALIBRATION.with_name("reality.json").read_text())
    assert list(reality) == ["decode-bound", "engine-bound", "both busy"]
    for row in reality.values():
        ratio = row["predicted_clips_per_s"] / row["measured_clips_per_s"]
        assert row["predicted_over_measured"] == pytest.approx(ratio, rel=0.01)
        assert 0.5 < ratio < 2
