"""A run whose disk is full ends with one line, leaves nothing half-written, and goes on when there is room."""

import json
from pathlib import Path

import pytest

from mama_ray.errors import UserError
from mama_ray.orchestration.runs.output import RunOutput
from mama_ray.orchestration.runs.worker_group import _told_without_traceback
from mama_ray.reporting.writers import FILE_NAME, MetricsWriter, read_metrics
from mama_ray.storage.places import Place
from mama_ray.training.manifest import latest_valid_checkpoint
from tests.orchestration.runs.test_checkpoint_writer import save
from tests.storage.small_disks import remount
from tests.training.test_loop import NUM_STEPS, new_state

SETTINGS = {"num_steps": NUM_STEPS, "num_checkpoints_to_keep": 2, "show_bar": False}


def made(folder: Path) -> Place:
    """Make a run's folder, as the driver does."""
    folder.mkdir(parents=True)
    return Place.of(folder)


def fill(writer: MetricsWriter, first_step: int) -> int:
    """Write records until the disk is full; return the first step that could not be written."""
    for step in range(first_step, 1000):
        try:
            writer.write(step, {"train/loss": 1.0, "weights/curve_loss": [0.1] * 500})
        except OSError:
            return step
    raise AssertionError("the disk is not full")


def test_metrics_of_a_full_disk_end_with_the_last_whole_record_and_go_on_after_it(small_disk):
    disk = small_disk("64k")
    run = made(disk / "run")
    writer = MetricsWriter(run)
    failed_at = fill(writer, 1)
    with pytest.raises(OSError, match="No space left"):
        writer.close()
    assert not (disk / "run" / FILE_NAME).read_text().endswith("\n")  # torn, as by a crash
    assert [record["step"] for record in read_metrics(run)] == list(range(1, failed_at))
    with pytest.raises(OSError, match="No space left"):
        MetricsWriter(run, start_step=failed_at - 1)  # started again without any room
    assert [record["step"] for record in read_metrics(run)] == list(range(1, failed_at)), "records were lost"
    assert list(disk.rglob("*.tmp")) == []
    remount(disk, "size=1m")
    with MetricsWriter(run, start_step=failed_at - 2) as writer:
        writer.write(failed_at - 1, {"train/loss": 2.0})
    assert [record["step"] for record in read_metrics(run)] == list(range(1, failed_at))
    assert all(json.loads(line) for line in (disk / "run" / FILE_NAME).read_text().splitlines())


def test_a_checkpoint_without_room_leaves_the_one_before_it_and_nothing_else(small_disk):
    disk = small_disk("8m")
    run = made(disk / "run")
    state, output = new_state(ema_decay=0.9), RunOutput("run", run, first_step=0, **SETTINGS)
    state.step = 1
    save(output, state)
    output.checkpoints.wait()
    used = sum(path.stat().st_blocks * 512 for path in disk.rglob("*"))
    remount(disk, f"size={used + 4096}")
    state.step = 2
    save(output, state)
    with pytest.raises(UserError, match=f"no space left on the storage: got {disk}/run: .*then start again"):
        output.close(has_failed=False)
    assert [path.name for path in (disk / "run/checkpoints").iterdir()] == ["step_00000001"]
    assert latest_valid_checkpoint(run).step == 1
    remount(disk, "size=8m")
    output = RunOutput("run", run, first_step=1, **SETTINGS)
    save(output, state)
    output.close(has_failed=False)
    assert latest_valid_checkpoint(run).step == 2


def test_a_run_whose_folder_is_taken_away_does_not_go_on_in_another(tmp_path):
    run = made(tmp_path / "disk/run")
    state, output = new_state(), RunOutput("run", run, first_step=0, **SETTINGS)
    save(output, state)
    output.checkpoints.wait()
    (tmp_path / "disk").rename(tmp_path / "elsewhere")  # as a disk that is unmounted: its folder is there, and empty
    (tmp_path / "disk").mkdir()
    state.step = 1
    save(output, state)
    with pytest.raises(UserError, match=f"a file of the storage is missing: got {run}: .*put it back"):
        output.close(has_failed=False)
    with pytest.raises(FileNotFoundError, match="the folder of the run is gone"):
        RunOutput("run", run, first_step=0, **SETTINGS)  # as of a worker that is started in the place of another
    assert list((tmp_path / "disk").iterdir()) == []


def test_a_worker_tells_a_full_disk_as_what_its_user_can_put_right():
    def run_out_of_room(_: dict) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="no space left on the storage: got s3://bucket/run|no space left.*TMPDIR"):
        _told_without_traceback(run_out_of_room, "s3://bucket/run", {})

    def fail(_: dict) -> None:
        raise OSError(2, "No such file or directory")

    with pytest.raises(FileNotFoundError):  # may be a worker's own: Ray Train tries again
        _told_without_traceback(fail, "s3://bucket/run", {})
