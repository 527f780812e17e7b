"""A disk that is lost while videos are prepared ends the job: it is no fact about the videos."""

import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.plan import Plan, make_plan, video_work
from mama_ray.orchestration.prepare.videos import write_chunk_shard
from mama_ray.storage.failures import StorageError
from tests.orchestration.prepare.in_process import DONE, NAMES, options, prepare


def begin(job: PrepareJob) -> Plan:
    """Make the plan and the first shard."""
    plan = make_plan(job)
    assert plan is not None
    write_chunk_shard(video_work(job), plan.chunks[0])
    return plan


@pytest.mark.parametrize(("scheme", "leaves_an_empty_folder"), [("", False), ("", True), ("local://", False)])
def test_videos_that_are_all_gone_are_a_failing_storage(folder, scheme, leaves_an_empty_folder):
    job = PrepareJob(**options(folder, videos=f"{scheme}{folder}/videos"))
    plan = begin(job)
    (folder / "videos").rename(folder / "elsewhere")
    if leaves_an_empty_folder:  # of a mount point
        (folder / "videos").mkdir()
    with pytest.raises(StorageError, match="the folder of videos is gone or empty"):
        write_chunk_shard(video_work(job), plan.chunks[1])
    shutil.rmtree(folder / "videos", ignore_errors=True)
    (folder / "elsewhere").rename(folder / "videos")
    assert prepare(**job.model_dump()).startswith(f"{len(NAMES)} clips in 3 shards, 5 without caption: index")


@pytest.mark.parametrize("scheme", ["", "local://"])
def test_a_cut_that_cannot_be_written_is_not_a_missing_video(folder, scheme, monkeypatch):
    class CleanedAway(tempfile.TemporaryDirectory):
        """As a cleaner of temporary files leaves it."""

        def __enter__(self) -> str:
            name = super().__enter__()
            shutil.rmtree(name)
            return name

    rows = [{"video": "a.mp4", "start_s": 0.1, "end_s": 0.4}]
    job = PrepareJob(**options(folder, rows, videos=f"{scheme}{folder}/videos"))
    plan = make_plan(job)
    assert plan is not None
    monkeypatch.setattr(tempfile, "TemporaryDirectory", CleanedAway)
    with pytest.raises(FileNotFoundError, match="mama_ray-prepare-"):
        write_chunk_shard(video_work(job), plan.chunks[0])


def test_what_an_earlier_version_took_for_missing_is_looked_at_again(folder):
    rows = [{"video": name} for name in ("a.mp4", "b.mp4")]
    (folder / "videos/b.mp4").rename(folder / "b.mp4")
    prepare(**options(folder, rows))
    (folder / "b.mp4").rename(folder / "videos/b.mp4")
    note_file(folder / "out/quarantine.parquet", folder / "videos/b.mp4")
    assert prepare(**options(folder, rows)).startswith("2 clips in 2 shards, 2 without caption: index")
    assert prepare(**options(folder, rows)) == DONE


def note_file(quarantine: Path, video: Path) -> None:
    """Note of the one refused row the file as it is, which the earlier version did when its scratch folder was gone."""
    (row,) = pq.read_table(quarantine).to_pylist()
    row |= {"file_bytes": video.stat().st_size, "file_modified_ns": video.stat().st_mtime_ns}
    pq.write_table(pa.Table.from_pylist([row], schema=pq.read_schema(quarantine)), quarantine)
