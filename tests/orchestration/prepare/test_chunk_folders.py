"""Videos in folders of chunks: clips over their boundaries, what is missing, and what the report counts."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mama_ray.data.annotations import parse_annotation
from mama_ray.data.reading import read_clip_bytes
from mama_ray.data.video.cut import cut_clip
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.settings import WindowConfig
from mama_ray.orchestration.prepare.sources import Sources
from mama_ray.storage.places import Place
from tests.data.video.chunk_factory import make_chunks, make_uncut
from tests.data.video.video_factory import frame_number, make_video
from tests.orchestration.prepare.in_process import DONE, index_rows, options, prepare, reasons


@pytest.fixture(scope="module")
def uncut() -> bytes:
    return make_uncut()


@pytest.fixture
def folder(tmp_path):
    make_chunks(tmp_path / "videos/uid.mp4")
    return tmp_path


def clip(start_s, end_s, **more) -> dict:
    return {"video": "uid.mp4", "start_s": start_s, "end_s": end_s, "caption": "#C C looks", **more}


def video_of(folder, row) -> bytes:
    return read_clip_bytes(Place.of(folder / "out"), row["shard"], row["offset"], row["num_bytes"])


def test_clips_of_chunks_are_those_of_the_uncut_video(folder, uncut):
    windows = [(0.2, 1.0), (1.4, 2.6), (1.0, 6.6)]
    told = prepare(**options(folder, [clip(*window) for window in windows]))
    assert told.startswith("3 clips in 2 shards: index at")
    rows = index_rows(folder)
    assert [(row["video_id"], row["start_s"], row["end_s"]) for row in rows] == [("uid", *window) for window in windows]
    assert [video_of(folder, row) for row in rows] == [cut_clip(uncut, *window) for window in windows]
    assert len({row["clip_id"] for row in rows}) == 3 and all(row["clip_id"].startswith("uid_") for row in rows)


def test_every_oddity_is_a_row_with_its_reason_or_a_clamp_that_is_counted(folder):
    (folder / "videos/uid.mp4/8.mp4").write_bytes(b"")
    make_chunks(folder / "videos/holes.mp4")
    (folder / "videos/holes.mp4/2.mp4").unlink()
    (folder / "videos/holes.mp4/6.mp4").write_bytes(b"no video")
    (folder / "videos/none.mp4").mkdir()
    (folder / "videos/none.mp4/readme.txt").touch()
    rows = [
        clip(7.0, 8.5),  # clamped: the chunk that is empty is the end
        clip(8.5, 9.0),
        clip(-0.5, 1.0),
        clip(2.0, 1.0),
        clip(1.5, 2.5, video="holes.mp4"),
        clip(4.2, 5.8, video="holes.mp4"),  # good
        clip(5.5, 6.5, video="holes.mp4"),
        clip(0.0, 1.0, video="none.mp4"),
        clip(0.0, 1.0, video="gone.mp4"),
    ]
    told = prepare(**options(folder, rows))
    assert told.startswith("2 clips in 2 shards, 1 cut short by the end of their video, 7 quarantined (")
    found = " | ".join(reasons(folder / "out"))
    for reason in (
        "the clip starts after the end of the video: got 8.5, limit 8.000 s",
        "start_s: got -0.5, wanted 0 or more seconds",
        "end_s: got 1.0, wanted more than start_s = 2.0",
        "a chunk of the video is missing or empty: got nothing from 2.0 s to 4.0 s",
        "a chunk of the video cannot be read: got 6.mp4 (not a readable video",
        "the folder of the video has no chunks that are named by their start",
        "no such video file",
    ):
        assert reason in found, reason
    summary = json.loads((folder / "out/prepare.json").read_text())
    assert summary["clamped"] == {"end": 1} and summary["num_quarantined"] == 7
    assert [(row["video_id"], row["end_s"]) for row in index_rows(folder)] == [("uid", 8.0), ("holes", 5.8)]


def test_a_chunk_that_came_is_taken_in_by_the_same_command(folder):
    chunk = folder / "videos/uid.mp4/2.mp4"
    content = chunk.read_bytes()
    chunk.unlink()
    given = options(folder, [clip(0.2, 1.0), clip(1.5, 2.5), clip(7.0, 9.0)])
    assert prepare(**given).startswith("2 clips in 2 shards, 1 cut short by the end of their video, 1 quarantined")
    assert prepare(**given) == DONE
    chunk.write_bytes(content)
    assert prepare(**given).startswith("3 clips in 3 shards, 1 cut short by the end of their video: index")
    assert prepare(**given) == DONE


def test_a_folder_of_chunks_without_a_table_is_one_video(folder, uncut, mp4):
    (folder / "videos/plain.mp4").write_bytes(mp4)
    assert prepare(**options(folder)).startswith("2 clips in 1 shards, 2 without caption")
    rows = {row["video_id"]: row for row in index_rows(folder)}
    assert rows.keys() == {"plain", "uid"}
    frames = VideoDecoder(video_of(folder, rows["uid"]))
    assert (frames.num_frames, frames.duration_s) == (40, pytest.approx(8.0))
    every = range(40)
    assert np.array_equal(frames.frames_by_index(every), VideoDecoder(cut_clip(uncut, 0, 8)).frames_by_index(every))


def test_scenes_of_chunks_are_cut_over_their_boundaries(folder):
    scenes = {"detector": "content", "threshold": 250.0, "min_s": 1, "max_s": 3}  # nothing changes so much
    assert prepare(**options(folder, scenes=scenes)).startswith("3 clips in ")
    assert np.allclose([row["start_s"] for row in index_rows(folder)], [0, 8 / 3, 16 / 3])


def test_frames_are_counted_at_a_fixed_rate_on_request(folder):
    given = options(folder, [clip(0.4, 0.9), clip(1.9, 2.1)], window={"fps": 10, "min_frames": 1})
    prepare(**given)
    shown = [VideoDecoder(video_of(folder, row)) for row in index_rows(folder)]
    numbers = [[frame_number(frame) for frame in one.frames_by_index(range(one.num_frames))] for one in shown]
    assert numbers == [[4, 5, 6, 7, 8], [3, 4]]  # frame 19 of a chunk of 10 is frame 9 of the next one, 19 of the video
    assert prepare(**given) == DONE


def test_a_video_of_29_97_frames_over_a_chunk_boundary_has_every_frame_once(tmp_path):
    rate = Fraction(30000, 1001)
    make_chunks(tmp_path / "videos/uid.mp4", num_frames=180, fps=float(rate))
    prepare(**options(tmp_path, [clip(1.5, 2.5)]))
    (row,) = index_rows(tmp_path)
    frames = VideoDecoder(video_of(tmp_path, row))
    wanted = [number % 16 for number in range(44, 75)]  # 44 / 29.97 = 1.468 s is shown at 1.5 s, 74 at 2.469 s
    assert [frame_number(frame) for frame in frames.frames_by_index(range(frames.num_frames))] == wanted


def test_chunks_of_another_storage_are_fetched_as_clips_need_them(folder):
    (folder / "scratch").mkdir()
    (folder / "videos/plain.mp4").write_bytes(make_video())
    sources = Sources(f"local://{folder}/videos", str(folder / "scratch"), WindowConfig())

    def fetch(row) -> dict[str, bool]:
        path = Path(sources.local_path(parse_annotation(row)))
        return {chunk.name: chunk.stat().st_size > 0 for chunk in path.iterdir()} if path.is_dir() else {}

    assert fetch(clip(2.5, 4.5)) == {"0.mp4": False, "2.mp4": True, "4.mp4": True, "6.mp4": False}
    assert fetch(clip(0.5, 1.0)) == {"0.mp4": True, "2.mp4": True, "4.mp4": True, "6.mp4": False}
    assert fetch({"video": "plain.mp4"}) == {}
    assert fetch(clip(7.0, 9.0)) == {"0.mp4": False, "2.mp4": False, "4.mp4": False, "6.mp4": True}
    with pytest.raises(FileNotFoundError):
        fetch(clip(0, 1, video="gone.mp4"))


def test_prepare_from_another_storage_cuts_the_same_clips(folder):
    rows = [clip(1.4, 4.6), clip(0.2, 0.8), clip(7.5, 9.0)]
    prepare(**options(folder, rows))
    prepare(**options(folder, rows, videos=f"local://{folder}/videos", output=str(folder / "far")))
    assert (folder / "far/clips-000000.tar").read_bytes() == (folder / "out/clips-000000.tar").read_bytes()
    assert (folder / "far/clips-000001.tar").read_bytes() == (folder / "out/clips-000001.tar").read_bytes()
