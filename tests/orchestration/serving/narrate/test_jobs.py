"""Narrations wait their turn, run as processes of their own, and whatever becomes of one harms no other."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from mama_ray.captioning.engines.generation import SamplingConfig
from mama_ray.orchestration.serving.narrate.jobs import Narration, QueueFull, sampling_for
from mama_ray.orchestration.serving.narrate.process import end_left_over
from mama_ray.orchestration.serving.narrate.record import (
    NarrationFolder,
    Record,
    Settings,
    new_id,
    partial_upload,
)
from mama_ray.storage.this_process import process_of, this_process
from tests.orchestration.serving.narrate.narrations import add, comes_about, during, queue_at

pytestmark = [pytest.mark.slow, pytest.mark.promise]  # processes of its own for each case


def test_a_job_that_fails_tells_why_in_one_line_and_the_next_one_has_its_turn(tmp_path):
    queue = queue_at(tmp_path)

    async def work() -> None:
        first, second = add(queue), add(queue, 1)
        assert (first.record.state, queue.place_of(second)) == ("queued", 0)
        await comes_about(lambda: first.record.is_over and second.record.is_over)
        for narration in (first, second):
            assert narration.record.state == "failed" and "not the folder of a model" in narration.record.reason
            assert "\n" not in narration.record.reason and str(narration.folder.path) not in narration.record.reason
            assert narration.folder.read() == narration.record

    during(queue, work())


def test_a_full_queue_refuses_before_anything_is_received(tmp_path):
    queue = queue_at(tmp_path, at_once=0, max_waiting=2)

    async def work() -> None:
        add(queue)
        with queue.place_reserved(), pytest.raises(QueueFull, match="2 already"), queue.place_reserved():
            pass
        add(queue)
        with pytest.raises(QueueFull):
            add(queue)
        assert len(list(queue.folder.iterdir())) == 2

    during(queue, work())


def test_one_that_waits_is_cancelled_and_goes_on_later(tmp_path):
    queue = queue_at(tmp_path, at_once=0)

    async def work() -> None:
        first, second = add(queue), add(queue, 1)
        await queue.cancel(first)
        assert first.record.state == "cancelled" and queue.place_of(second) == 0
        queue.retry(first)
        assert queue.place_of(first) == 1

    during(queue, work())


def test_one_that_runs_is_cancelled_with_its_process(tmp_path):
    queue = queue_at(tmp_path)

    async def work() -> None:
        narration = add(queue)
        await comes_about(lambda: narration.process is not None)
        pid = narration.record.process.pid
        await queue.cancel(narration)
        assert narration.record.state == "cancelled" and not psutil.pid_exists(pid)

    during(queue, work())


def test_one_that_is_killed_fails_and_the_app_goes_on(tmp_path):
    queue = queue_at(tmp_path)

    async def work() -> None:
        killed, other = add(queue), add(queue, 1)
        await comes_about(lambda: killed.process is not None)
        psutil.Process(killed.record.process.pid).kill()
        await comes_about(lambda: killed.record.is_over and other.record.is_over)
        assert "signal 9" in killed.record.reason and "not the folder of a model" in other.record.reason

    during(queue, work())


def test_another_start_goes_on_with_what_ran_and_what_waited_in_their_order(tmp_path):
    queue = queue_at(tmp_path)
    names = []

    async def first() -> None:
        names.extend(add(queue, number).record.narration_id for number in range(3))
        await comes_about(lambda: queue.find(names[0]).process is not None)

    during(queue, first())
    states = [NarrationFolder(queue.folder / name).read().state for name in names]
    assert states == ["queued"] * 3
    again = queue_at(tmp_path, at_once=0)

    async def second() -> None:
        assert [again.place_of(again.find(name)) for name in names] == [0, 1, 2]

    during(again, second())


def test_what_a_killed_app_left_of_uploads_is_removed(tmp_path):
    queue = queue_at(tmp_path, at_once=0)
    name = new_id()
    (queue.folder / name).mkdir(parents=True)
    (queue.folder / name / "a.mp4").write_bytes(b"video")
    partial_upload(queue.folder, new_id()).write_bytes(b"vid")
    (queue.folder / "of-a-person").mkdir()

    async def work() -> None:
        assert [path.name for path in queue.folder.iterdir()] == ["of-a-person"] and not queue.all()

    during(queue, work())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"narration_id": "../../x"}', "null"])
def test_a_record_that_cannot_be_read_is_no_narration(tmp_path, content):
    queue = queue_at(tmp_path, at_once=0)
    folder = queue.folder / new_id()
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(content)

    async def work() -> None:
        assert not queue.all()

    during(queue, work())


def test_edits_outlive_the_app_and_may_be_taken_back(tmp_path):
    queue = queue_at(tmp_path, at_once=0)

    async def work() -> None:
        narration = add(queue)
        narration.edit("a-0", "mine")
        narration.edit("a-1", "")
        narration.edit("a-0", None)
        assert Narration(narration.folder, narration.record).edits == {"a-1": ""}
        await queue.delete(narration)
        assert not list(queue.folder.iterdir())

    during(queue, work())


def test_a_process_that_an_earlier_app_left_is_waited_for_by_its_start_and_not_by_its_number_alone():
    other = replace(this_process(), start="1")  # ticks since the boot
    asyncio.run(end_left_over(other))  # else this test would not come to its end


def test_a_process_that_an_earlier_app_left_is_ended():
    left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        asyncio.run(end_left_over(process_of(left.pid)))
        assert left.wait(10) == -signal.SIGKILL
    finally:
        left.kill()


def test_the_process_of_a_narration_is_read_back_and_one_that_an_older_version_wrote_down_is_forgotten(tmp_path):
    record = Record(narration_id="0" * 16, name="a.mp4", file_name="a.mp4", created_s=0.0, num_bytes=1, duration_s=2.0,
                    settings=Settings(), process=this_process())  # fmt: skip
    folder = NarrationFolder(tmp_path / record.narration_id)
    folder.write(record)
    assert folder.read() == record
    older = json.loads(record.model_dump_json()) | {"process": [os.getpid(), 1764454000.25]}
    (folder.path / "record.json").write_text(json.dumps(older))
    assert folder.read() == record.model_copy(update={"process": None})


def test_several_samples_are_drawn_with_a_temperature():
    assert sampling_for(SamplingConfig(), Settings()).temperature == 0
    assert sampling_for(SamplingConfig(), Settings(num_captions=3)).temperature > 0
    assert sampling_for(SamplingConfig(temperature=0.2), Settings(num_captions=3)).temperature == 0.2


def test_a_disk_without_room_fails_the_narration_and_not_the_app(tmp_path):
    queue = queue_at(tmp_path)

    async def work() -> None:
        narration = add(queue)
        shutil.rmtree(narration.folder.path)
        await comes_about(lambda: not queue._running)
        assert narration.record.state == "failed"
        other = add(queue, 1)
        await comes_about(lambda: other.record.is_over)

    during(queue, work())
