"""What a queue of narrations does at once, without waiting for a job."""

import asyncio
import os
import time
import tracemalloc

from mama_ray.orchestration.serving.narrate.events import describe
from mama_ray.orchestration.serving.narrate.jobs import Narration
from mama_ray.orchestration.serving.narrate.record import RECORD_NAME
from tests.orchestration.serving.narrate.narrations import add, comes_about, during, queue_at
from tests.processes import descendants, title


def test_a_narration_that_was_deleted_cannot_be_let_go_on(tmp_path):
    queue = queue_at(tmp_path, at_once=0)

    async def work() -> None:
        first = add(queue)
        await queue.cancel(first)
        await queue.delete(first)
        queue.retry(first)  # asked for before it was deleted
        second = add(queue, 1)
        assert queue.all() == [second] and queue.place_of(second) == 0
        assert not first.folder.path.exists()

    during(queue, work())


def test_a_narration_may_be_cancelled_as_soon_as_it_has_its_turn(tmp_path):
    queue = queue_at(tmp_path)

    async def work() -> None:
        narration = add(queue)
        await queue.cancel(narration)
        assert narration.record.state == "cancelled"

    during(queue, work())


def test_one_that_waits_is_cancelled_let_go_on_and_deleted_on_a_disk_that_takes_nothing(tmp_path):
    queue = queue_at(tmp_path, at_once=0)

    async def work() -> None:
        narration = add(queue)
        take_no_record(narration)
        changed = narration.changed
        await queue.cancel(narration)
        assert narration.record.state == "cancelled" and changed.is_set() and queue.place_of(narration) is None
        queue.retry(narration)
        assert narration.record.state == "queued" and queue.place_of(narration) == 0
        await queue.delete(narration)
        assert queue.all() == [] and not narration.folder.path.exists()

    during(queue, work())


def take_no_record(narration: Narration) -> None:
    """Make a narration's folder as a full disk: it takes no record."""
    (narration.folder.path / RECORD_NAME).unlink()
    (narration.folder.path / RECORD_NAME).mkdir()


def test_a_process_whose_narration_cannot_be_written_down_is_ended(tmp_path):
    queue = queue_at(tmp_path)

    async def work() -> None:
        narration = add(queue)
        take_no_record(narration)
        await comes_about(lambda: narration.record.state == "failed")
        await comes_about(lambda: not is_narrating())
        assert narration.folder.log.read_bytes() == b""  # where it would say why it failed by itself

    def is_narrating() -> bool:
        return any("narrate.child" in title(one) for one in descendants(os.getpid()))

    during(queue, work())


def test_who_comes_after_the_clock_was_set_back_still_waits_behind_who_came_before(tmp_path):
    queue = queue_at(tmp_path, at_once=0)
    tomorrow = time.time() + 86_400

    async def work() -> None:
        assert queue.arrival_s() < tomorrow
        first = add(queue, tomorrow)
        assert queue.arrival_s() > tomorrow
        await queue.cancel(first)
        assert queue.arrival_s() < tomorrow

    during(queue, work())


def test_nobody_waits_for_a_narration_that_was_deleted(tmp_path):
    queue = queue_at(tmp_path, at_once=0)

    async def work() -> None:
        narration = add(queue)
        changed = narration.changed
        await queue.delete(narration)
        await asyncio.wait_for(changed.wait(), 5)
        assert narration.record.is_over and queue.all() == []

    during(queue, work())


def test_nothing_is_kept_of_the_windows_of_a_long_video_that_is_only_listed(tmp_path):
    queue = queue_at(tmp_path, at_once=0)

    async def work() -> None:
        short = add(queue)
        record = short.record.model_copy(update={"duration_s": 7200.0})
        long = Narration(short.folder, record)
        tracemalloc.start()
        try:
            assert describe(queue, long)["num_windows"] == 7200
            assert tracemalloc.get_traced_memory()[0] < 300_000
        finally:
            tracemalloc.stop()
        last = record.windows()[-1].clip_id
        assert long.has_window(last) and not short.has_window(last)

    during(queue, work())
