"""The same command again: what was missing or damaged is taken in, and nothing else is done again."""

import os

import pyarrow.parquet as pq
import pytest

from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.plan import make_plan
from tests.data.video.video_factory import make_video
from tests.orchestration.prepare.in_process import (
    DONE,
    NAMES,
    captions,
    index_rows,
    options,
    prepare,
    reasons,
    run_tasks,
)


def test_a_repaired_file_is_taken_in_and_nothing_else_is_done_again(folder, mp4):
    rows = [{"video": f"{name}.mp4", "caption": name} for name in (*NAMES, "late", "bad", "worse", "gone")]
    for name in ("bad", "worse"):
        (folder / f"videos/{name}.mp4").write_bytes(b"no video")
    rows.append({"video": "bad.mp4", "clip_id": "of-the-table", "start_s": -1})
    assert prepare(**options(folder, rows)).startswith("5 clips in 3 shards, 5 quarantined (")
    assert prepare(**options(folder, rows)) == DONE
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "out").glob("*.tar")}
    old_rows = index_rows(folder)
    (folder / "videos/late.mp4").write_bytes(mp4)
    (folder / "videos/bad.mp4").write_bytes(mp4)
    os.utime(folder / "videos/late.mp4", (0, 0))  # a copy that keeps its old time
    assert prepare(**options(folder, rows)).startswith("7 clips in 4 shards, 3 quarantined (")
    assert {name: (folder / "out" / name).stat().st_mtime_ns for name in before} == before
    assert index_rows(folder)[:5] == old_rows
    assert captions(folder / "out") == {name: [name] for name in (*NAMES, "late", "bad")}
    assert len(reasons(folder / "out")) == 3
    assert prepare(**options(folder, rows)) == DONE
    assert not (folder / "out/.prepare").exists()


def test_a_repair_that_was_killed_goes_on(folder, mp4):
    rows = [{"video": "a.mp4"}, *({"video": f"late{number}.mp4"} for number in range(4))]
    prepare(**options(folder, rows))
    for number in range(4):
        (folder / f"videos/late{number}.mp4").write_bytes(mp4)
    job = PrepareJob(**options(folder, rows))
    plan = make_plan(job)
    assert plan is not None and list(plan.chunks) == [1, 2]
    run_tasks(job, plan)
    assert len(index_rows(folder)) == 1  # until the end, what was there can be used
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "out").glob("*.tar")}
    assert prepare(**options(folder, rows)).startswith("5 clips in 3 shards, 5 without caption: index at")
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "out").glob("*.tar")} == before


def test_a_file_that_comes_while_a_prepare_waits_is_taken_in(folder, mp4):
    rows = [{"video": name} for name in ("a.mp4", "b.mp4", "c.mp4", "late.mp4")]
    with pytest.raises(UserError, match="too many clips were refused"):
        prepare(**options(folder, rows, max_quarantined=0))
    before = (folder / "out/clips-000000.tar").stat().st_mtime_ns
    (folder / "videos/late.mp4").write_bytes(mp4)
    assert prepare(**options(folder, rows, max_quarantined=0)).startswith("4 clips in 2 shards")
    assert (folder / "out/clips-000000.tar").stat().st_mtime_ns == before


def test_a_quarantine_of_an_earlier_version_is_read(folder, mp4):
    rows = [{"video": "a.mp4"}, {"video": "late.mp4"}]
    prepare(**options(folder, rows))
    path = folder / "out/quarantine.parquet"
    pq.write_table(pq.read_table(path).select(["clip_id", "video_id", "video", "start_s", "end_s", "reason"]), path)
    assert prepare(**options(folder, rows)) == DONE
    (folder / "videos/late.mp4").write_bytes(mp4)
    assert prepare(**options(folder, rows)).startswith("2 clips in 2 shards, 2 without caption: index at")


def test_a_folder_without_a_table_becomes_clips_without_captions(folder, mp4):
    (folder / "videos/sub").mkdir()
    (folder / "videos/sub/Deep One.MP4").write_bytes(mp4)
    (folder / "videos/notes.txt").write_text("no video")
    (folder / "videos/bad.mp4").write_bytes(b"no video")
    assert prepare(**options(folder)).startswith("6 clips in 4 shards, 6 without caption, 1 quarantined (")
    assert prepare(**options(folder)) == DONE
    ids = {row["video_id"]: row["clip_id"] for row in index_rows(folder)}
    assert set(ids) == {*NAMES, "sub/Deep One"}
    matroska = make_video(num_frames=2, width=32, height=32, fps=4, container="matroska")
    for name, data in (("a.avi.mp4", mp4), ("a.mkv", matroska), ("bad.mp4", mp4)):
        (folder / "videos" / name).write_bytes(data)
    assert prepare(**options(folder)).startswith("9 clips in 6 shards, 9 without caption: index at")
    now = {row["video_id"]: row["clip_id"] for row in index_rows(folder)}
    assert now == {**ids, "a.avi": now["a.avi"], "a.mkv": now["a.mkv"], "bad": "bad"}
    assert prepare(**options(folder)) == DONE
    (folder / "none").mkdir()
    (folder / "none/x.txt").write_text("x")
    with pytest.raises(UserError, match=r"the folder has no videos: got .*x.txt"):
        prepare(videos=str(folder / "none"), output=str(folder / "nothing"))
