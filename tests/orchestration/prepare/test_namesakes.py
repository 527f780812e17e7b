"""Videos of a folder without a table that differ in the extension alone, of which some come later."""

import hashlib

import pyarrow.parquet as pq

from tests.data.video.video_factory import make_video
from tests.orchestration.prepare.in_process import DONE, index_rows, options, prepare, reasons

SMALLER = {"transcode": {"short_side": 16}}


def other_video(container: str) -> bytes:
    return make_video(num_frames=3, width=32, height=32, fps=4, container=container)


def test_a_namesake_that_comes_later_is_another_clip_though_all_are_stored_as_mp4(tmp_path, mp4):
    videos = tmp_path / "videos"
    videos.mkdir()
    contents = {"a.avi": other_video("avi"), "a.mp4": mp4, "a.mkv": other_video("matroska")}
    for number, (name, content) in enumerate(contents.items(), 1):
        (videos / name).write_bytes(content)
        assert prepare(**options(tmp_path, **SMALLER)).startswith(f"{number} clips in {number} shards")
        assert prepare(**options(tmp_path, **SMALLER)) == DONE
    found = {row["video_id"]: (row["video"], row["source_sha256"]) for row in index_rows(tmp_path)}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert found == {
        "a": ("a.avi", hashes["a.avi"]),
        "a.mp4": ("a.mp4", hashes["a.mp4"]),
        "a.mkv": ("a.mkv", hashes["a.mkv"]),
    }


def test_an_index_of_an_earlier_version_which_names_no_videos_goes_on(folder):
    prepare(**options(folder))
    path = folder / "out/index.parquet"
    pq.write_table(pq.read_table(path).drop_columns("video"), path)
    assert prepare(**options(folder)) == DONE
    (folder / "videos/a.avi").write_bytes(other_video("avi"))
    assert prepare(**options(folder)).startswith("6 clips in 4 shards")
    named = {row["video_id"]: row["video"] for row in index_rows(folder)}
    assert named == {"a": None, "b": None, "c": None, "d": None, "e": None, "a.avi": "a.avi"}
    assert prepare(**options(folder)) == DONE


def test_a_good_copy_beside_a_broken_video_is_taken_in(folder):
    (folder / "videos/a.mp4").write_bytes(b"broken")
    assert prepare(**options(folder)).startswith("4 clips in 3 shards, 4 without caption, 1 quarantined")
    (folder / "videos/a.avi").write_bytes(other_video("avi"))
    assert prepare(**options(folder)).startswith("5 clips in 4 shards, 5 without caption, 1 quarantined")
    assert {row["video"] for row in index_rows(folder)} == {"a.avi", "b.mp4", "c.mp4", "d.mp4", "e.mp4"}
    assert len(reasons(folder / "out")) == 1
    assert prepare(**options(folder)) == DONE
