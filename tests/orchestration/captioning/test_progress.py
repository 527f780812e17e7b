"""What a captioning job counts on the way, and the limits of its pool."""

import logging
import time

import pytest
from pydantic import ValidationError

from mama_ray.orchestration.captioning.job import PoolConfig
from mama_ray.orchestration.captioning.pool import PoolHistory
from mama_ray.orchestration.captioning.progress import CaptionProgress


def counts(engine: str, busy_s: float, idle_s: float, *, clips: int = 32, errors: int = 0, tokens: int = 320) -> dict:
    """Return the row of one batch, as Captioning gives it."""
    return {
        "num_clips": [clips], "num_errors": [errors], "num_tokens": [tokens], "read_s": [0.1], "decode_s": [0.2],
        "caption_s": [0.5], "write_s": [0.01], "engine": [engine], "engine_busy_s": [busy_s], "engine_idle_s": [idle_s],
    }  # fmt: skip


def test_counts_of_batches_add_up_and_engines_count_once():
    progress = CaptionProgress(100)
    progress.start(0, PoolHistory())
    progress.add(counts("a", 1.0, 1.0))
    progress.add(counts("a", 3.0, 1.0))
    progress.add(counts("b", 2.0, 2.0, errors=2))
    progress.add(counts("a", 2.0, 1.0))  # told late: the engine is further by now
    speed = progress.speed()
    assert speed.counts["num_clips"] == 128
    assert speed.counts["num_errors"] == 2
    assert speed.counts["decode_s"] == pytest.approx(0.8)
    assert speed.busy_share == pytest.approx(5 / 8)


def test_without_an_engine_there_is_no_share():
    assert CaptionProgress(10).speed().busy_share is None


def test_the_last_line_counts_what_was_committed_earlier(caplog):
    caplog.set_level(logging.INFO, "mama_ray")
    progress = CaptionProgress(100)
    progress.start(68, PoolHistory())
    progress.add(counts("a", 1.0, 0.0))
    progress.close()
    assert "100 of 100 clips (100%)" in caplog.text


def test_clips_of_an_earlier_pass_are_not_counted_twice(caplog):
    caplog.set_level(logging.INFO, "mama_ray")
    progress = CaptionProgress(64)
    progress.start(0, PoolHistory())
    progress.add(counts("a", 1.0, 0.0))
    progress.add(counts("a", 2.0, 0.0))
    progress.start(32, PoolHistory())  # a part was damaged: its clips are captioned again
    progress.add(counts("a", 3.0, 0.0))
    caplog.clear()
    progress.close()
    assert "64 of 64 clips (100%)" in caplog.text


def test_the_speed_is_that_of_all_passes():
    progress = CaptionProgress(64)
    progress.start(0, PoolHistory())
    time.sleep(0.3)
    progress.add(counts("a", 1.0, 0.0, clips=64))
    progress.start(63, PoolHistory())
    time.sleep(0.1)
    progress.add(counts("a", 2.0, 0.0, clips=1))
    assert progress.duration_s == pytest.approx(0.4, rel=0.2)
    assert progress.speed().clips_per_s == pytest.approx(65 / progress.duration_s)


def test_the_history_of_the_pool_keeps_changes_alone():
    history = PoolHistory()
    for size in (0, 1, 1, 1, 2, 2, 0):
        history.note(size)
        time.sleep(0.001)
    assert [size for _, size in history.sizes] == [1, 2, 0]
    times = [second for second, _ in history.sizes]
    assert times == sorted(times)
    assert history.size == 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"min_size": 3, "max_size": 2}, "max_size 2 is below min_size 3"),
        ({"min_size": 2, "max_size": 4, "initial_size": 1}, "initial_size 1 is not from min_size 2 to max_size 4"),
        ({"max_size": 2, "initial_size": 3}, "initial_size 3 is not from min_size 1 to max_size 2"),
        ({"cpus_per_engine": 0.5, "decode_cpus": 0.5}, "Ray Data would fuse the two"),
    ],
)
def test_sizes_of_a_pool_that_cannot_be_are_refused(settings, told):
    with pytest.raises(ValidationError, match=told):
        PoolConfig(**settings)
