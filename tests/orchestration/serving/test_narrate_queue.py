"""What a queue of narrations does at once, without waiting for a job."""

import asyncio

import psutil

from mama_ray.orchestration.serving.narrate_record import RECORD_NAME
from tests.orchestration.serving.narrations import add, comes_about, during, queue_at


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


def test_a_process_whose_narration_cannot_be_written_down_is_ended(tmp_path):
    queue = queue_at(tmp_path)

    async def work() -> None:
        narration = add(queue)
        (narration.folder.path / RECORD_NAME).unlink()
        (narration.folder.path / RECORD_NAME).mkdir()  # as a full disk, it takes no record
        await comes_about(lambda: narration.record.state == "failed")
        await comes_about(lambda: not is_narrating())
        assert narration.folder.log.read_bytes() == b""  # where it would say why it failed by itself

    def is_narrating() -> bool:
        return any("narrate_child" in " ".join(one.cmdline()) for one in psutil.Process().children())

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
