"""Leases between real processes, on a disk and in a real S3 server."""

import json
import os
import signal
import subprocess
import time

import pytest

from mama_ray.errors import UserError
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place
from mama_ray.storage.this_process import this_process
from tests.storage.lease_holder import contend, hold
from tests.storage.s3_faults import Unconditional, serving

QUICK_S = 0.1  # beats of a start that soon takes the other for dead
SLOW_S = 2.0  # of one that waits longer than a busy machine may keep the other from its beats
LONG_S = 60.0


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path) -> Place:
    if request.param == "disk":
        return Place.of(tmp_path / "folder" / LEASE_NAME)
    bucket = request.getfixturevalue("s3_bucket")
    return Place.of(f"s3://{bucket}/folder/{LEASE_NAME}")


@pytest.fixture(params=["passes over them", "refuses them"])
def place_without_conditions(request, s3_server, s3_bucket, monkeypatch):
    with serving(Unconditional(s3_server["AWS_ENDPOINT_URL"], refuses=request.param == "refuses them")) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield Place.of(f"s3://{s3_bucket}/folder/{LEASE_NAME}")


@pytest.fixture
def started():
    """Processes that are ended with the test."""
    processes = []
    yield lambda process: processes.append(process) or process
    for process in processes:
        process.kill()
        process.communicate()


def lease(place: Place, beat_s: float = SLOW_S, **options) -> Lease:
    return Lease(place, "place of a test", beat_s=beat_s, **options)


def nonce_at(place: Place) -> str:
    return json.loads(place.read_bytes())["nonce"]


def test_a_second_start_is_told_who_the_first_is_and_the_first_goes_on(place, started):
    first = started(hold(place, QUICK_S))
    before = place.read_bytes()
    with pytest.raises(UserError) as told, lease(place):
        pass
    who = json.loads(before)
    for words in (this_process().host, f"pid {first.pid}", who["started"], f"kill {first.pid}", "start again", "UTC"):
        assert words in str(told.value)
    assert "\n" not in str(told.value)
    assert nonce_at(place) == who["nonce"]
    first.communicate("end\n", timeout=LONG_S)
    assert first.returncode == 0
    assert not place.exists()
    with lease(place):  # what was released is free
        assert place.exists()


@pytest.mark.parametrize("is_reaped", [True, False])
def test_what_a_killed_start_left_is_taken_over_at_once_on_its_own_machine(place, started, is_reaped):
    first = started(hold(place, SLOW_S))
    first.kill()
    if is_reaped:
        first.wait()
    else:
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
    began = time.monotonic()
    with lease(place, beat_s=LONG_S):
        assert time.monotonic() - began < LONG_S / 10
        assert json.loads(place.read_bytes())["process"]["pid"] == os.getpid()
    assert not place.exists()


def test_a_number_that_another_process_bears_now_is_not_the_holder(tmp_path):
    place = Place.of(tmp_path / LEASE_NAME)
    with lease(place):
        record = json.loads(place.read_bytes())
    record["process"]["start"] = str(int(record["process"]["start"]) - 1)
    place.write_whole(json.dumps(record))
    with lease(place, beat_s=LONG_S):
        assert nonce_at(place) != record["nonce"]


def test_a_live_start_on_another_machine_is_seen_by_its_beats(place, started):
    first = started(hold(place, QUICK_S, "elsewhere"))
    nonce = nonce_at(place)
    with pytest.raises(UserError, match=f"host elsewhere, pid {first.pid}, since .* end it there"), lease(place):
        pass
    assert nonce_at(place) == nonce
    assert first.poll() is None


def test_a_dead_start_on_another_machine_is_taken_over_after_its_beats_have_ended(place, started):
    first = started(hold(place, QUICK_S, "elsewhere"))
    first.kill()
    first.wait()
    began = time.monotonic()
    with lease(place, beat_s=QUICK_S):
        assert time.monotonic() - began >= 6 * QUICK_S
    assert not place.exists()


def test_a_start_that_was_suspended_ends_with_one_line_when_its_place_is_taken(place, started):
    wake_while_another_holds(place, started(hold(place, QUICK_S, "elsewhere")))


def test_it_ends_so_on_a_store_that_knows_no_conditions(place_without_conditions, started):
    # Suspended long before its first beat: amid one it would still write over another's.
    first = started(hold(place_without_conditions, SLOW_S, "elsewhere"))
    wake_while_another_holds(place_without_conditions, first)


def wake_while_another_holds(place: Place, first: subprocess.Popen) -> None:
    first.send_signal(signal.SIGSTOP)
    with lease(place, beat_s=QUICK_S):
        nonce = nonce_at(place)
        first.send_signal(signal.SIGCONT)
        assert first.wait(LONG_S) == 1
        (line,) = first.stderr.read().splitlines()
        assert line.startswith("error: another start has taken over this place of a test")
        assert f"pid {os.getpid()}" in line
        assert nonce_at(place) == nonce  # only its own is released


def test_a_start_that_is_suspended_on_this_machine_keeps_its_place(place, started):
    first = started(hold(place, QUICK_S))
    first.send_signal(signal.SIGSTOP)
    with pytest.raises(UserError, match=f"kill {first.pid}"), lease(place, beat_s=QUICK_S):
        pass
    first.send_signal(signal.SIGCONT)
    first.communicate("end\n", timeout=LONG_S)
    assert first.returncode == 0


@pytest.mark.parametrize("host", [None, "elsewhere"])
def test_of_many_starts_at_a_dead_ones_place_one_gets_it(place, started, host):
    dead = started(hold(place, QUICK_S, host))
    dead.kill()
    dead.wait()
    starts = [started(contend(place, 0.3)) for _ in range(4)]
    deadline = time.monotonic() + LONG_S
    while sum(start.poll() is None for start in starts) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (winner,) = [start for start in starts if start.poll() is None]
    assert winner.stdout.readline() == "held\n"
    assert json.loads(place.read_bytes())["process"]["pid"] == winner.pid
    refused = [start for start in starts if start is not winner]
    assert all("another start is at work" in start.communicate()[1].splitlines()[-1] for start in refused)


def test_a_start_may_wait_for_the_end_of_a_live_one(place, started):
    first = started(hold(place, QUICK_S))
    first.stdin.write("end\n")
    first.stdin.flush()
    with lease(place, beat_s=0.5, waits_s=LONG_S):
        assert json.loads(place.read_bytes())["process"]["pid"] == os.getpid()


def test_a_clock_that_jumps_by_a_day_changes_nothing(tmp_path, started):
    place = Place.of(tmp_path / LEASE_NAME)
    started(hold(place, QUICK_S, "elsewhere"))
    for day in (-86400, 86400):
        os.utime(place.path, (time.time() + day,) * 2)
        with pytest.raises(UserError, match="host elsewhere"), lease(place):
            pass


@pytest.mark.parametrize("content", [b"", b"\x00" * 400, b"[" * 100_000, b'{"process": {"pid": -1}}'])
def test_a_file_that_tells_nothing_is_watched_and_taken_over(tmp_path, content):
    place = Place.of(tmp_path / LEASE_NAME)
    place.write_whole(content)
    with lease(place, beat_s=QUICK_S):
        assert nonce_at(place)


def test_a_folder_or_link_in_the_place_of_the_file_is_told(tmp_path):
    (tmp_path / LEASE_NAME).symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError, match="link"), lease(Place.of(tmp_path / LEASE_NAME), beat_s=0.01):
        pass


def test_words_of_a_lease_reach_no_terminal_as_commands(tmp_path):
    place = Place.of(tmp_path / LEASE_NAME)
    with lease(place):
        record = json.loads(place.read_bytes())
        record["process"]["host"] = "\x1b[2Jhost" + "x" * 10_000
        place.write_whole(json.dumps(record))
        with pytest.raises(UserError) as told, lease(place):
            pass
    assert "\x1b" not in str(told.value)
    assert len(str(told.value)) < 1000


def test_a_file_that_was_deleted_comes_back(place):
    with lease(place, beat_s=QUICK_S):
        place.delete_file()
        deadline = time.monotonic() + LONG_S
        while not place.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not place.exists()


def test_a_start_whose_folder_is_taken_away_ends_and_makes_no_other(tmp_path, started):
    place = Place.of(tmp_path / "folder" / LEASE_NAME)
    process = started(hold(place, QUICK_S))
    (tmp_path / "folder").rename(tmp_path / "elsewhere")
    assert process.wait(LONG_S) == 1
    (line,) = process.stderr.read().splitlines()
    assert line.startswith("error: the folder of this place of a test was taken away") and "put it back" in line
    assert not (tmp_path / "folder").exists()


def test_nothing_else_is_left_in_the_folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / f"{LEASE_NAME}.0123abcd.tmp").touch()  # by a start that was killed at this point
    with lease(Place.of(folder / LEASE_NAME)):
        assert os.listdir(folder) == [LEASE_NAME]
    assert os.listdir(folder) == []


def test_an_object_store_without_conditions_keeps_a_lease_too(place_without_conditions):
    place = place_without_conditions
    with lease(place), pytest.raises(UserError, match=f"pid {os.getpid()}"), lease(place):
        pass
    assert not place.exists()


def test_a_storage_without_conditions_keeps_a_lease_too():
    place = Place.of(f"memory://folder-{os.getpid()}/{LEASE_NAME}")
    with lease(place), pytest.raises(UserError, match=f"pid {os.getpid()}"), lease(place):
        pass
    assert not place.exists()
